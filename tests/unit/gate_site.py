"""A registry in memory, real weights and a real task: to judge versions in milliseconds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from stockpot.entities import Decision, ModelVersion, SoupRequest, digest_of_bytes, tags
from stockpot.evaluation import TorchBench
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.testing.signers import PlainVerifier
from stockpot.testing.tiny import TinyTask, weights
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.promotion.gate import Gate
from stockpot.workflow.promotion.policies import Policy
from stockpot.workflow.promotion.promote import Promoter

POLICY = Policy(task="tiny")
GOOD, WORSE = weights(spread=0.0), weights(seed=9, spread=2.0)
"""The teacher of `TinyTask`'s labels, and a model that knows little."""
NAN = {name: tensor * torch.nan for name, tensor in GOOD.items()}


def content(tensors: Mapping[str, Tensor]) -> bytes:
    """In canonical form."""
    return save(dict(tensors), metadata={"format": "pt"})


@dataclass
class Site:
    """Registers versions of the model `tiny`, and judges them."""

    folder: Path
    task: TinyTask = field(default_factory=lambda: TinyTask("dense", "80"))
    tracker: MemoryTracker = field(default_factory=MemoryTracker)
    store: MemoryStore = field(default_factory=MemoryStore)
    passes: Callable[[], float] = lambda: 0.0
    """Of the last judgement."""
    makes: Callable[[SoupRequest], TorchBench] | None = None

    def __post_init__(self) -> None:
        self.supply = Supply(self.tracker, self.store, CheckpointCache(self.folder / "cache"))

    def register(
        self,
        files: Mapping[str, bytes] | Mapping[str, Tensor],
        told: Mapping[str, str] | None = None,
        *,
        alias: str | None = None,
    ) -> ModelVersion:
        """Files of a LoggedModel, or the tensors of its model.safetensors, as a version with these tags."""
        tensors = {name: value for name, value in files.items() if isinstance(value, Tensor)}
        held = {name: value for name, value in files.items() if isinstance(value, bytes)}
        kept = {**held, **({"model.safetensors": content(tensors)} if tensors else {})}
        run = self.tracker.add_run(self.tracker.add_experiment("sweep"), "by hand")
        model = self.tracker.add_model(run, "by hand", kept)
        number = self.tracker.add_version("tiny", run, told, model_id=model)
        if alias is not None:
            self.tracker.point_alias("tiny", alias, number)
        return self.tracker.version(f"models:/tiny/{number}")

    def bench(self, request: SoupRequest) -> TorchBench:
        """The task, whatever the request calls it."""
        bench = TorchBench(
            self.task,
            identity=(request.task, "1"),
            task_args={},
            checkpoints=self.supply,
            device="cpu",
        )
        self.passes = lambda: bench.passes
        return bench

    @property
    def gate(self) -> Gate:
        return Gate(
            self.tracker, self.store, self.supply, self.makes or self.bench, Silent(), PlainVerifier()
        )

    def promoter(self, policy: Policy = POLICY) -> Promoter:
        return Promoter(self.gate, policy)

    def judge(self, version: ModelVersion, **policy: object) -> Decision:
        """Against the champion, if there is one."""
        return self.promoter(replace(POLICY, **policy)).judge(version.uri)  # type: ignore[arg-type]  # of the test's own


def tagged(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The tags by which a version tells of these weights."""
    return {tags.CHECKPOINT: digest_of_bytes(content(tensors))}


def outcomes(decision: Decision) -> dict[str, str]:
    """Of each check, by name."""
    return {check.name: check.outcome.value for check in decision.checks}


def told(decision: Decision, name: str) -> str:
    """Why a check ended as it did."""
    return next(check.told for check in decision.checks if check.name == name)
