"""Language models, one of each domain, and what scores them: for tests of specialists together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stockpot.entities import Aim, Digest, Recipe, Score, SoupRequest, digest_of_bytes
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.store import MemoryStore
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.testing.tiny import LABELS, LanguageTask, text_weights
from stockpot.watching import Silent
from stockpot.workflow.selecting.by_features import open_features, specialists_by_nearness
from stockpot.workflow.selecting.by_posterior import Mixed, specialists_together
from stockpot.workflow.selecting.domains import Domains
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

USED = LABELS[:3]
N = 150
REQUEST = SoupRequest(model="m", task="t", sweep="s")
RUNS = {digest_of_bytes(f"{d} {seed}".encode()): (d, seed) for d in USED for seed in range(2)}
SPECIALISTS = [Recipe.mean([digest for digest, (of, _) in RUNS.items() if of == domain]) for domain in USED]
OWN = dict(zip(USED, SPECIALISTS, strict=True))
Positions = list[NDArray[np.float64]]
"""Of each text, the log probabilities of its positions."""


class Kitchen:
    """A bench, and evaluators of two splits over a store in memory."""

    def __init__(self, task: Any = None, outputs: RememberedOutputs | None = None) -> None:
        self.task = task or LanguageTask(n=str(N))
        self.bench = TorchBench(
            self.task,
            identity=("texts", "1"),
            task_args={},
            checkpoints=MadeCheckpoints(_weights),
            device="cpu",
            outputs=outputs,
        )
        aims = {
            split: Aim(tuple(self.bench.domains(split) or ()), dict.fromkeys(USED[:2], 1.0))
            for split in ("validation", "test")
        }
        self.domains = Domains(aims)
        self.evaluators = {
            split: SharedEvaluator(self.bench.evaluator(split, compared=False), MemoryStore(), aim=aim)
            for split, aim in aims.items()
        }

    def together(
        self, specialists: Sequence[Recipe] = SPECIALISTS, *, late: bool = False
    ) -> tuple[dict[str, Mixed], tuple[str, ...]]:
        found, notes = specialists_together(
            REQUEST, self.domains, specialists, self.evaluators, self.bench, lambda: late, Silent()
        )
        return {mixed.label: mixed for mixed in found}, notes

    def near(
        self, own: Mapping[str, Recipe] = OWN, *, late: bool = False
    ) -> tuple[dict[str, Mixed], tuple[str, ...]]:
        features = open_features(REQUEST, self.bench, self.domains)
        found, notes = specialists_by_nearness(
            REQUEST, self.domains, own, features, self.evaluators, self.bench, lambda: late
        )
        return {mixed.label: mixed for mixed in found}, notes

    def score(self, recipe: Recipe, split: str = "test") -> Score:
        return score_in_full(recipe, self.evaluators[split])

    def positions(self, recipe: Recipe, split: str) -> Positions:
        module, found = self.bench.module_with(recipe), []
        for text, length in self.task.examples(split):
            tokens = text[:length]
            with torch.no_grad():
                logs = module(tokens[None])[0, :-1].double().log_softmax(1)
            found.append(logs.gather(1, tokens[1:, None])[:, 0].numpy())
        return found


def _weights(digest: Digest) -> dict[str, Tensor]:
    domain, seed = RUNS[digest]
    return text_weights(domain, seed=seed)


def learnt(experts: Sequence[Positions], texts: Sequence[int]) -> NDArray[np.float64]:
    """The cached prior after these texts, two at a time, position by position."""
    prior = np.full(len(experts), 1 / len(experts))
    for start in range(0, len(texts), 2):
        found = []
        for text in texts[start : start + 2]:
            joint = prior * np.exp([positions[text].sum() for positions in experts])
            found.append(joint / joint.sum())
        prior = 0.7 * prior + 0.3 * np.mean(found, axis=0)
    return prior
