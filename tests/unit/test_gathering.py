"""Which runs become candidates; every other one is excluded with a reason and, where there is one, a mend."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from registry.entities import (
    Candidate,
    Checkpoint,
    Digest,
    Direction,
    ExclusionReason,
    Run,
    SoupRequest,
    Sweep,
    SweepSelector,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
)
from registry.errors import NothingToSoup
from registry.workflow.gather import Gathering, require_two

REQUEST = SoupRequest(model="m", task="t", sweep="s")
LAYOUT = (TensorSpec("w", "F32", (2, 2)),)
NO_INTEGERS = Digest("sha256:0")


def _run(
    number: int, tags: Mapping[str, str] | None = None, metrics: Mapping[str, float] | None = None
) -> Run:
    return Run(f"id{number}", f"tune-{number}", "1", "FINISHED", number, {}, metrics or {}, tags or {})


def _file(path: str, form: WeightsFormat = WeightsFormat.SAFETENSORS) -> WeightsSource:
    return WeightsSource("id", form, path, f"uri:{path}", None, 10)


def _candidate(
    number: int, layout: tuple[TensorSpec, ...] = LAYOUT, *, digest: str = "", exact: Digest = NO_INTEGERS
) -> Candidate:
    checkpoint = Checkpoint(Digest(digest or f"sha256:{number:064x}"), 10, layout, exact)
    return Candidate(_run(number, metrics={"acc": number / 10}), _file("m.safetensors"), "", checkpoint)


def _reasons(gathering: Gathering) -> dict[str, ExclusionReason]:
    return {exclusion.run_id: exclusion.reason for exclusion in gathering.exclusions}


def test_only_finished_runs_stay() -> None:
    gathering = Gathering()
    runs = [_run(1), replace(_run(2), status="FAILED"), replace(_run(3), status="RUNNING")]
    assert gathering.finished(runs) == [runs[0]]
    assert set(_reasons(gathering).values()) == {ExclusionReason.NOT_FINISHED}
    assert "FAILED" in gathering.exclusions[0].detail


@pytest.mark.parametrize(("direction", "kept"), [(Direction.MAX, [2, 3]), (Direction.MIN, [1, 3])])
def test_top_keeps_the_best_by_a_logged_metric_in_the_sweeps_order(
    direction: Direction, kept: list[int]
) -> None:
    nan = float("nan")
    values = {1: 0.1, 2: 0.9, 3: 0.5, 4: nan}
    runs = [*(_run(number, metrics={"acc": value}) for number, value in values.items()), _run(5)]
    gathering = Gathering()
    request = replace(REQUEST, top=2, by="acc", direction=direction)
    assert [run.started for run in gathering.top(runs, request)] == kept
    assert set(_reasons(gathering).values()) == {ExclusionReason.NOT_IN_TOP}
    assert "not logged" in gathering.exclusions[-1].detail


def test_a_run_from_another_starting_point_is_refused_unless_told_otherwise() -> None:
    tag = "stockpot.base"
    runs = [_run(1, {tag: "A"}), _run(2, {tag: "B"}), _run(3, {tag: "A"}), _run(4)]
    gathering = Gathering()
    assert gathering.same_base(runs, REQUEST) == [runs[0], runs[2], runs[3]]
    assert _reasons(gathering) == {"id2": ExclusionReason.DIFFERENT_BASE}
    assert "--any-base" in gathering.exclusions[0].mend
    assert Gathering().same_base(runs, replace(REQUEST, any_base=True)) == runs


PICKLE = _file("model.pt", WeightsFormat.PICKLE)
BEST, LAST = _file("best.safetensors"), _file("last.safetensors")


@pytest.mark.parametrize(
    ("found", "tag", "pattern", "chosen"),
    [
        ([BEST], "", None, BEST),
        ([BEST, PICKLE], "", None, BEST),
        ([BEST, LAST], "", None, ExclusionReason.AMBIGUOUS_WEIGHTS),
        ([BEST, LAST], "last.safetensors", None, LAST),
        ([BEST, LAST], "", "best*", BEST),
        ([BEST, LAST], "last.safetensors", "best*", LAST),
        ([BEST, LAST], "", "epoch*", ExclusionReason.NO_WEIGHTS),
        ([PICKLE], "", None, ExclusionReason.PICKLE),
        ([], "", None, ExclusionReason.NO_WEIGHTS),
    ],
)
def test_a_run_has_one_checkpoint_or_is_excluded(
    found: list[WeightsSource], tag: str, pattern: str | None, chosen: WeightsSource | ExclusionReason
) -> None:
    gathering = Gathering()
    run = _run(1, {"stockpot.weights": tag} if tag else {})
    got = gathering.choose_weights(run, found, pattern)
    assert (got or _reasons(gathering)["id1"]) == chosen
    for exclusion in gathering.exclusions:
        assert all(source.path in exclusion.detail for source in found)


def test_batch_norm_is_refused_with_the_layer_named() -> None:
    layout = tuple(TensorSpec(f"net.bn.{name}", "F32", (2,)) for name in ("running_mean", "running_var"))
    gathering = Gathering()
    assert gathering.without_batch_norm([_candidate(1, layout), _candidate(2)]) == [_candidate(2)]
    assert _reasons(gathering) == {"id1": ExclusionReason.BATCH_NORM}
    assert "net.bn" in gathering.exclusions[0].detail


def test_the_largest_compatible_group_is_used_and_every_difference_told() -> None:
    wide = (TensorSpec("w", "F32", (9, 9)), TensorSpec("extra", "F32", (1,)))
    candidates = [_candidate(1), _candidate(2), _candidate(3, wide), _candidate(4, exact=Digest("sha256:1"))]
    gathering = Gathering()
    assert gathering.largest_group(candidates, REQUEST) == candidates[:2]
    details = {exclusion.run_id: exclusion.detail for exclusion in gathering.exclusions}
    assert "extra" in details["id3"]
    assert "9" in details["id3"]
    assert "integer or boolean tensors" in details["id4"]


def test_with_a_metric_the_group_of_the_best_run_is_used() -> None:
    half = (TensorSpec("w", "F16", (2, 2)),)
    candidates = [_candidate(1), _candidate(2), _candidate(9, half)]
    request = replace(REQUEST, top=3, by="acc")
    assert Gathering().largest_group(candidates, request) == candidates[2:]


def test_identical_weights_count_once_and_the_twin_is_named() -> None:
    candidates = [_candidate(1, digest="sha256:x"), _candidate(2), _candidate(3, digest="sha256:x")]
    gathering = Gathering()
    assert gathering.unique(candidates) == candidates[:2]
    assert _reasons(gathering) == {"id3": ExclusionReason.DUPLICATE}
    assert "tune-1" in gathering.exclusions[0].detail


@pytest.mark.parametrize(("count", "said"), [(0, "has no runs"), (1, "one usable run")], ids=["none", "one"])
def test_fewer_than_two_candidates_are_no_sweep_to_soup(count: int, said: str) -> None:
    candidates = tuple(_candidate(number) for number in range(count))
    with pytest.raises(NothingToSoup, match=said):
        require_two(Sweep(SweepSelector("s"), candidates, ()))
