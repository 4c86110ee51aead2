"""Heads that runs began for themselves are named as the likely reason why no soup is better."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from stockpot.entities import Candidate, Recipe, SoupReport, Sweep, SweepSelector, TensorSpec
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.testing.store_values import report as report_of
from stockpot.testing.tiny import weights
from stockpot.tracking import MemoryTracker
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.publishing.verdict import reasons
from stockpot.workflow.selecting.heads import heads_apart, told
from stockpot.workflow.selecting.ranking import Ranking


def _own_head(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(100 + seed)
    return {**weights("attention", seed=seed, spread=0.02), "head.weight": torch.randn(4, 8, generator=draw)}


def _shared_head(seed: int) -> dict[str, Tensor]:
    return weights("attention", seed=seed, spread=0.02)


def ranked_sweep(folder: Path, states: Sequence[Mapping[str, Tensor]]) -> tuple[Supply, Ranking]:
    """A sweep of these candidates in memory, whose weights are here."""
    tracker = MemoryTracker()
    supply = Supply(tracker, MemoryStore(), CheckpointCache(folder))
    experiment = tracker.add_experiment("e")
    for place, state in enumerate(states):
        tracker.add_file(tracker.add_run(experiment, f"tune-{place}"), "model.safetensors", save(dict(state)))
    found = []
    for run in tracker.runs(SweepSelector(experiment="e")):
        (source,) = tracker.weights(run)
        read = supply.read(source)
        assert read.checkpoint is not None
        found.append(Candidate(run, source, read.sha256, read.checkpoint))
    supply.offer(found)
    selector = SweepSelector(experiment="e")
    return supply, Ranking(Sweep(selector, tuple(found), ()), tuple(found), {})


def _report(ranking: Ranking, soup: float) -> SoupReport:
    """The greedy soup of all scores so much on the held-out split, the best single 0.5."""
    digests = [candidate.checkpoint.digest for candidate in ranking.candidates]
    made = report_of(Recipe.mean(digests[:1]), Recipe.mean(digests))
    held_out = made.request.select_on
    best, second = made.rows
    rows = (
        replace(best, scores={**best.scores, held_out: 0.5}),
        replace(second, scores={**second.scores, held_out: soup}),
    )
    return replace(made, rows=rows)


def test_heads_of_their_own_are_named_where_no_soup_is_better(tmp_path: Path) -> None:
    supply, ranking = ranked_sweep(tmp_path, [_own_head(seed) for seed in range(5)])
    said = heads_apart(_report(ranking, 0.3), ranking, supply)
    assert said.startswith("the candidates agree but for head.weight (mean cosine ")
    assert "Start all runs from one saved model, head included" in said
    assert heads_apart(_report(ranking, 0.6), ranking, supply) == "", "it is no question then"
    adapters = [replace(c, source=replace(c.source, base=c.source)) for c in ranking.candidates]
    of_adapters = replace(ranking, candidates=tuple(adapters))
    assert heads_apart(_report(ranking, 0.3), of_adapters, supply) == "", "what they adapt alone differs"


def test_a_head_that_all_share_is_no_reason(tmp_path: Path) -> None:
    supply, ranking = ranked_sweep(tmp_path, [_shared_head(seed) for seed in range(3)])
    assert heads_apart(_report(ranking, 0.3), ranking, supply) == ""


@pytest.mark.parametrize("kept", [0, 1])
def test_a_matrix_that_is_zero_in_all_runs_but_one_is_no_head_of_its_own(tmp_path: Path, kept: int) -> None:
    zero = {"head.weight": torch.zeros(4, 8)}
    states = [_own_head(seed) if seed < kept else {**_own_head(seed), **zero} for seed in range(3)]
    supply, ranking = ranked_sweep(tmp_path, states)
    assert heads_apart(_report(ranking, 0.3), ranking, supply) == ""


def test_a_matrix_that_is_zero_in_the_base_is_no_head_of_its_own(tmp_path: Path) -> None:
    states = [_own_head(seed) for seed in range(5)]
    supply, ranking = ranked_sweep(tmp_path, [*states, {**_own_head(5), "head.weight": torch.zeros(4, 8)}])
    *candidates, zero = ranking.candidates
    other = replace(ranking, candidates=tuple(candidates[:4]), base=candidates[4])
    assert "but for head.weight" in heads_apart(_report(other, 0.3), other, supply)
    other = replace(other, base=zero)
    assert heads_apart(_report(other, 0.3), other, supply) == ""


def test_nothing_is_downloaded_for_it(tmp_path: Path) -> None:
    supply, ranking = ranked_sweep(tmp_path, [_own_head(seed) for seed in range(3)])
    for candidate in ranking.candidates[1:]:
        (tmp_path / f"{candidate.checkpoint.digest.removeprefix('sha256:')}.safetensors").unlink()
    assert heads_apart(_report(ranking, 0.3), ranking, supply) == ""


@pytest.mark.parametrize(
    ("cosines", "named"),
    [
        ({"a": 0.99, "b": 0.99, "head": 0.1}, True),
        ({"a": 0.99, "b": 0.99, "head": 0.6}, False),
        ({"a": 0.7, "b": 0.99, "head": 0.1}, False),
        ({"a": 0.1, "b": 0.99, "head": 0.1}, False),
    ],
)
def test_only_a_few_matrices_that_differ_where_all_others_agree_are_heads(
    cosines: dict[str, float], *, named: bool
) -> None:
    specs = [TensorSpec(name, "F32", (4, 4)) for name in cosines]
    assert bool(told([*specs, TensorSpec("bias", "F32", (4,))], {**cosines, "bias": 0.0})) is named


def test_the_reason_is_told_with_the_others() -> None:
    from tests.unit.test_verdict import _report as verdict_report
    from tests.unit.test_verdict import _row

    report = verdict_report(_row(-0.004, 0.02))
    assert "heads" not in " ".join(reasons(report))
    assert [*reasons(replace(report, hint="heads"))][-1] == "heads"
