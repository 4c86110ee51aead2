"""Candidates on their way: headers before downloads, downloads ahead of scores, and always the same sweep."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from stockpot.entities import (
    Candidate,
    Composition,
    ExclusionReason,
    Recipe,
    Run,
    SoupRequest,
    TensorSpec,
    WeightsSource,
)
from stockpot.entities import Sweep as GatheredSweep
from stockpot.errors import BadCheckpoint, Incompatible, NothingToSoup, TrackingError
from stockpot.soup import CheckpointCache, differences
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.gathering.arrivals import Arrivals, Prospects, read_all
from stockpot.workflow.gathering.expected import doubts, expected_sweep
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.selecting.ranking import Ranking, rank
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

SECONDS = 20
"""After which a thread that waits is taken to hang."""
REQUEST = SoupRequest(model="m", task="t", experiment="e")
DTYPES = torch.float32, torch.float16, torch.bfloat16
NO_METRICS: Mapping[str, Mapping[str, float]] = {}


def _tensors(value: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {"w": torch.full((2, 3), value, dtype=dtype)}


NORM = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.ones(2)}
MIXED: Mapping[str, bytes] = {
    "good": save(_tensors(1)),
    "norm": save({**_tensors(2), **NORM}),
    "wide": save({**_tensors(3), "extra": torch.zeros(1)}),
    "torn": save(_tensors(4))[:-1],
    "half": save(_tensors(5, torch.float16)),
    "nan": save(_tensors(torch.nan)),
    "twin": save(_tensors(1)),
    "wrapped": save({"module.w": torch.full((2, 3), 6.0)}),
    "last": save(_tensors(7)),
}


def _fits(tensors: Sequence[TensorSpec]) -> Sequence[str]:
    """The task's model has one tensor, of any dtype."""
    return [
        fault for fault in differences([TensorSpec("w", "F32", (2, 3))], tensors) if "instead" not in fault
    ]


class Sweep:
    """A sweep in memory, one run per file; `fetched` lists the downloads."""

    def __init__(
        self,
        folder: Path,
        files: Mapping[str, bytes],
        metrics: Mapping[str, Mapping[str, float]] = NO_METRICS,
        *,
        ranges: bool = True,
    ) -> None:
        self.fetched: list[str] = []
        self.endless = ""
        self.before: Callable[[str], None] = lambda _: None
        self.tracker, self.store = _Tracker(self, ranges=ranges), MemoryStore()
        self.supply = Supply(self.tracker, self.store, CheckpointCache(folder))
        experiment = self.tracker.add_experiment("e")
        for name, content in files.items():
            run = self.tracker.add_run(experiment, name, metrics=metrics.get(name, {}))
            self.tracker.add_file(run, "model.safetensors", content)

    def gather(self, request: SoupRequest = REQUEST) -> Prospects:
        return gather(request, self.tracker, self.supply, _fits, Silent())

    def arrivals(self, request: SoupRequest = REQUEST) -> Arrivals:
        return Arrivals(self.gather(request), self.supply, _fits, Silent())

    def rank(self, evaluator: TableEvaluator, stop: Callable[[], bool] = lambda: False) -> Ranking:
        return rank(self.arrivals(), SharedEvaluator(evaluator, MemoryStore()), Silent(), stop)

    def name(self, recipe: Composition) -> str:
        (digest,) = recipe.checkpoints
        with self.supply.open(digest) as file:
            return f"{file.read('w')[0, 0].item():.0f}"


class _Tracker(MemoryTracker):
    def __init__(self, sweep: Sweep, *, ranges: bool) -> None:
        super().__init__()
        self._sweep, self._ranges = sweep, ranges

    def weights(self, run: Run) -> tuple[WeightsSource, ...]:
        if run.name == self._sweep.endless:
            raise BadCheckpoint("more folders than anyone looks through", mend="log fewer")
        return super().weights(run)

    def head(self, source: WeightsSource, length: int) -> bytes | None:
        return super().head(source, length) if self._ranges else None

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        name = self.runs_kept[source.run_id].run.name
        self._sweep.before(name)
        self._sweep.fetched.append(name)
        return super().fetch(source, into)


def _evaluator(n: int = 4) -> TableEvaluator:
    """Scores a recipe by its digest alone."""
    return TableEvaluator(lambda recipe: [int(recipe.digest[-8:], 16) / 2**32] * n, n=n)


def test_what_the_header_shows_to_be_incompatible_is_never_downloaded(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, MIXED)
    read_all(sweep.arrivals())
    assert sorted(sweep.fetched) == sorted(MIXED.keys() - {"norm", "wide", "torn", "half"})


def test_a_layout_of_few_is_downloaded_once_the_others_turn_out_to_be_fewer(tmp_path: Path) -> None:
    halves = {name: save(_tensors(value, torch.float16)) for name, value in (("half", 1), ("other", 2))}
    sweep = Sweep(tmp_path, {**halves, "nan": MIXED["nan"], "good": MIXED["good"], "torn": MIXED["nan"]})
    gathered = read_all(sweep.arrivals())
    assert {*sweep.fetched[-2:]} == {"half", "other"}
    assert [candidate.run.name for candidate in gathered.candidates] == ["half", "other"]


def test_twins_do_not_outvote_those_that_can_be_averaged(tmp_path: Path) -> None:
    halves = {name: save(_tensors(value, torch.float16)) for name, value in (("half", 1), ("other", 2))}
    sweep = Sweep(tmp_path, {**dict.fromkeys(["a", "b", "c"], MIXED["good"]), **halves})
    evaluator = _evaluator()
    ranking = sweep.rank(evaluator)
    assert [candidate.run.name for candidate in ranking.sweep.candidates] == ["half", "other"]
    assert sorted(sweep.name(trial.recipe) for trial in evaluator.trials) == ["1", "2"]


@pytest.mark.parametrize("by", ["", "accuracy"])
@pytest.mark.parametrize("seed", range(30))
def test_what_is_not_downloaded_changes_no_candidate(tmp_path: Path, seed: int, by: str) -> None:
    draw = random.Random(seed)  # noqa: S311  # not for secrets
    files = {
        f"run {place}": save(_tensors(draw.choice([place, 1, torch.nan]), draw.choice(DTYPES)))
        for place in range(draw.randint(2, 9))
    }
    metrics = {name: {"accuracy": float(draw.randint(0, 3))} for name in files}
    sweeps = [Sweep(tmp_path / f"{ranges}", files, metrics, ranges=ranges) for ranges in (True, False)]
    request = replace(REQUEST, by=by, top=len(files)) if by else REQUEST
    told = [_candidates_or_error(sweep, request) for sweep in sweeps]
    assert told[0] == told[1]
    assert {*sweeps[0].fetched} <= {*sweeps[1].fetched} == {*files}


def _candidates_or_error(sweep: Sweep, request: SoupRequest) -> list[str]:
    try:
        gathered = read_all(sweep.arrivals(request))
    except NothingToSoup as error:
        return [error.what]
    assert len(gathered.candidates) + len(gathered.exclusions) == len(sweep.tracker.runs_kept)
    return [candidate.run.name for candidate in gathered.candidates]


def test_a_run_whose_artifacts_nobody_can_look_through_is_left_out(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, MIXED)
    sweep.endless = "good"
    gathered = read_all(sweep.arrivals())
    (left_out,) = (e for e in gathered.exclusions if e.run_name == "good")
    assert (left_out.reason, left_out.mend) == (ExclusionReason.NO_WEIGHTS, "log fewer")
    assert "folders" in left_out.detail
    assert [candidate.run.name for candidate in gathered.candidates] == ["twin", "wrapped", "last"]


def _expected(sweep: Sweep) -> tuple[list[str], list[tuple[str, ExclusionReason]]]:
    found = expected_sweep(sweep.gather(), sweep.supply)
    return _told(found)


def _told(found: GatheredSweep) -> tuple[list[str], list[tuple[str, ExclusionReason]]]:
    return [c.run.name for c in found.candidates], [(e.run_name, e.reason) for e in found.exclusions]


def test_a_dry_run_tells_what_headers_tell_and_downloads_nothing(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, MIXED)
    prospects = sweep.gather()
    expected = expected_sweep(prospects, sweep.supply)
    assert sweep.fetched == []
    assert _told(expected) == (
        ["good", "nan", "twin", "wrapped", "last"],
        [
            ("norm", ExclusionReason.INCOMPATIBLE),
            ("wide", ExclusionReason.INCOMPATIBLE),
            ("torn", ExclusionReason.UNREADABLE),
            ("half", ExclusionReason.INCOMPATIBLE),
        ],
    )
    (doubt,) = doubts(prospects, expected)
    assert "5 candidates" in doubt
    assert "finite" in doubt


def test_a_dry_run_after_a_run_tells_what_the_run_told_but_for_faults_of_the_bytes(tmp_path: Path) -> None:
    files = {name: content for name, content in MIXED.items() if name != "nan"}
    sweep = Sweep(tmp_path, files)
    gathered = read_all(sweep.arrivals())
    assert _expected(sweep) == _told(gathered)
    assert doubts(sweep.gather(), gathered) == ()


def test_integers_that_only_the_bytes_can_tell_are_named_by_the_dry_run(tmp_path: Path) -> None:
    counted = {str(i): save({**_tensors(i), "steps": torch.tensor(i)}) for i in range(3)}
    sweep = Sweep(tmp_path, counted)
    found = gather(REQUEST, sweep.tracker, sweep.supply, lambda _: [], Silent())
    (doubt,) = doubts(found, expected_sweep(found, sweep.supply))
    assert doubt.endswith("agree: steps")


def test_where_no_header_can_be_read_the_dry_run_says_so(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, MIXED, ranges=False)
    prospects = sweep.gather()
    expected = expected_sweep(prospects, sweep.supply)
    assert len(expected.candidates) == len(MIXED)
    assert "not even a header could be read of 9 of them" in doubts(prospects, expected)[1]
    assert sweep.fetched == []


def test_candidates_of_one_layout_share_it_in_memory(tmp_path: Path) -> None:
    sweep = read_all(Sweep(tmp_path, MIXED).arrivals())
    assert len({id(candidate.checkpoint.tensors) for candidate in sweep.candidates}) == 1
    assert len(sweep.candidates) == 3


def test_the_sweep_is_the_same_with_and_without_range_requests(tmp_path: Path) -> None:
    with_ranges, without = Sweep(tmp_path / "a", MIXED), Sweep(tmp_path / "b", MIXED, ranges=False)
    gathered = read_all(with_ranges.arrivals())
    assert gathered == read_all(without.arrivals())
    assert sorted(without.fetched) == sorted(MIXED)
    assert [(exclusion.run_name, exclusion.reason) for exclusion in gathered.exclusions] == [
        ("norm", ExclusionReason.INCOMPATIBLE),
        ("wide", ExclusionReason.INCOMPATIBLE),
        ("torn", ExclusionReason.UNREADABLE),
        ("half", ExclusionReason.INCOMPATIBLE),
        ("nan", ExclusionReason.NOT_FINITE),
        ("twin", ExclusionReason.DUPLICATE),
    ]
    assert [candidate.run.name for candidate in gathered.candidates] == ["good", "wrapped", "last"]


def test_a_header_longer_than_the_first_read_is_read_whole(tmp_path: Path) -> None:
    many = {f"layer{number:05}": torch.zeros(1) for number in range(2000)}
    sweep = Sweep(tmp_path, {"one": save(_tensors(1)), "two": save(_tensors(2)), "deep": save(many)})
    read_all(sweep.arrivals())
    assert sorted(sweep.fetched) == ["one", "two"]


def test_what_was_read_before_is_neither_peeked_at_nor_downloaded(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, MIXED)
    first = read_all(sweep.arrivals())
    sweep.fetched.clear()
    assert read_all(sweep.arrivals()) == first
    assert sorted(sweep.fetched) == ["nan"], "a faulty file may have been mended"


def test_a_candidate_is_scored_while_others_are_downloaded(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {str(number): save(_tensors(number)) for number in range(9)})
    scored = threading.Event()

    def before(name: str) -> None:
        assert name != "8" or scored.wait(SECONDS), "nothing was scored before the last one arrived"

    def scores(_: Recipe) -> list[float]:
        scored.set()
        return [0.5]

    sweep.before = before
    ranking = sweep.rank(TableEvaluator(scores, n=1))
    assert len(ranking.candidates) == 9


def test_the_ranking_does_not_depend_on_which_download_ends_first(tmp_path: Path) -> None:
    plain, late = Sweep(tmp_path / "a", MIXED), Sweep(tmp_path / "b", MIXED)
    others = threading.Event()

    def before(name: str) -> None:
        if name == "good":
            assert others.wait(SECONDS)
        elif name == "nan":
            others.set()

    late.before = before
    assert plain.rank(_evaluator()) == late.rank(_evaluator())
    assert late.fetched[0] != "good"


def test_only_candidates_are_scored_and_twins_once(tmp_path: Path) -> None:
    sweep, evaluator = Sweep(tmp_path, MIXED), _evaluator()
    ranking = sweep.rank(evaluator)
    assert sorted(sweep.name(trial.recipe) for trial in evaluator.trials) == ["1", "6", "7"]
    assert ranking.held_out.keys() == {c.checkpoint.digest for c in ranking.candidates}


@pytest.mark.parametrize(
    "files",
    [
        {"one": MIXED["good"], "twin": MIXED["good"]},
        {"one": MIXED["good"], "half": MIXED["half"], "norm": MIXED["norm"]},
        {"one": MIXED["good"], "norm": MIXED["norm"], "wide": MIXED["wide"]},
        {"torn": MIXED["torn"], "norm": MIXED["norm"], "wide": MIXED["wide"]},
    ],
    ids=["twins", "two dtypes", "one is left", "none is left"],
)
def test_where_there_is_nothing_to_average_nothing_is_scored_and_every_fault_told(
    tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    sweep, evaluator = Sweep(tmp_path, files), _evaluator()
    with pytest.raises(NothingToSoup) as caught:
        sweep.rank(evaluator)
    assert evaluator.trials == []
    told = sum(int(fault.split()[0]) for fault in caught.value.faults) + ("one usable" in caught.value.what)
    assert told == len(files)


def test_too_few_prospects_are_told_before_anything_is_written_to_mlflow(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {"one": MIXED["good"], "norm": MIXED["norm"]})
    with pytest.raises(NothingToSoup, match="one usable run"):
        sweep.gather()


def test_a_failed_download_is_raised_and_costs_the_others_nothing(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {str(number): save(_tensors(number)) for number in range(9)})

    def before(name: str) -> None:
        if name == "3":
            raise TrackingError("downloading 3: the link is down")

    sweep.before = before
    threads = set(threading.enumerate())
    with pytest.raises(TrackingError, match="the link is down"):
        sweep.rank(_evaluator())
    assert set(threading.enumerate()) <= threads
    first, sweep.before = set(sweep.fetched), lambda _: None
    assert first >= {"0", "1", "2"}
    sweep.fetched.clear()
    assert len(sweep.rank(_evaluator()).candidates) == 9
    assert sorted(sweep.fetched) == sorted({str(number) for number in range(9)} - first)


def test_an_evaluation_that_fails_stops_the_downloads(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {str(number): save(_tensors(number)) for number in range(50)})

    def scores(_: Recipe) -> list[float]:
        raise RuntimeError("no score")

    threads = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="no score") as caught:
        sweep.rank(TableEvaluator(scores, n=1))
    assert set(threading.enumerate()) <= threads, "also while somebody holds the error"
    assert caught.tb is not None
    assert len(sweep.fetched) < 50


@pytest.mark.parametrize(("strays", "base", "ranked"), [(1, "stray 0", 0), (2, "run 3", 3)])
def test_nothing_is_scored_that_cannot_be_averaged_with_the_base(
    tmp_path: Path, strays: int, base: str, ranked: int
) -> None:
    """By its integers, which no header tells; also where strays of others are the first to arrive."""
    files = {f"stray {n}": save({**_tensors(n), "pos": torch.zeros(4).int()}) for n in range(strays)}
    files |= {f"run {n}": save({**_tensors(n), "pos": torch.ones(4).int()}) for n in range(2, 5)}
    sweep, evaluator = Sweep(tmp_path, files), _evaluator()
    prospects = gather(REQUEST, sweep.tracker, sweep.supply, lambda _: (), Silent())
    (start,) = (prospect for prospect in prospects.found if prospect.run.name == base)
    read = sweep.supply.read(start.source)
    assert read.checkpoint is not None
    named = Candidate(start.run, start.source, read.sha256, read.checkpoint)
    arrivals = Arrivals(prospects, sweep.supply, lambda _: (), Silent(), named)
    with nullcontext() if ranked else pytest.raises(Incompatible, match=r"the base stray 0 .*\n.*pos"):
        rank(arrivals, SharedEvaluator(evaluator, MemoryStore()), Silent())
    assert len(evaluator.trials) == ranked


def test_progress_ends_where_it_said(tmp_path: Path) -> None:
    sweep, watch = Sweep(tmp_path, MIXED), Counting()
    prospects = gather(REQUEST, sweep.tracker, sweep.supply, _fits, watch)
    evaluator = SharedEvaluator(_evaluator(), MemoryStore())
    rank(Arrivals(prospects, sweep.supply, _fits, watch), evaluator, watch)
    assert watch.totals == {"list runs": 0, "find weights": 9, "read weights": 6, "rank": 6}
    assert watch.done == {**watch.totals, "list runs": 9}


class Counting(Silent):
    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.done: dict[str, int] = {}

    def start(self, stage: str, total: int) -> None:
        self.totals[stage], self.done[stage] = total, 0

    def advance(self, stage: str) -> None:
        self.done[stage] += 1


def test_when_time_is_up_ranking_ends_with_two_and_names_every_run_that_was_cut(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {str(number): save(_tensors(number)) for number in range(30)})
    evaluator = _evaluator()
    ranking = sweep.rank(evaluator, lambda: True)
    assert len(evaluator.trials) == len(ranking.candidates) >= 2
    assert len(sweep.fetched) < 30, "nothing is downloaded for runs that no time is left for"
    cut = [e for e in ranking.sweep.exclusions if e.reason is ExclusionReason.TIME_IS_UP]
    assert len(cut) + len(ranking.candidates) == 30
    assert all("--max-seconds" in exclusion.mend for exclusion in cut)
    assert len(sweep.rank(_evaluator()).candidates) == 30, "a later request goes on"


def test_time_that_is_up_after_some_scores_cuts_only_what_has_none(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {str(number): save(_tensors(number)) for number in range(12)})
    evaluator = _evaluator()
    ranking = sweep.rank(evaluator, lambda: len(evaluator.trials) >= 5)
    assert 5 <= len(ranking.candidates) < 12
    assert len(ranking.candidates) == len(evaluator.trials)
