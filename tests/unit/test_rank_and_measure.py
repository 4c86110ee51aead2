"""Ranking and measuring over evaluators made of a table."""

import math
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, cast

import pytest

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Aim,
    Candidate,
    Checkpoint,
    Composition,
    Digest,
    Ensemble,
    ExclusionReason,
    IngestedSource,
    Metric,
    Outcome,
    OverlayRule,
    Recipe,
    Run,
    Score,
    SoupReport,
    SoupRequest,
    Sweep,
    TensorSpec,
    Trial,
    WeightsFormat,
    WeightsSource,
)
from stockpot.errors import BadCheckpoint, BadRequest, BadTask, NothingToSoup
from stockpot.ports import Wanted, always
from stockpot.selection.greedy import Greedy
from stockpot.selection.uniform import Uniform
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.gathering.arrivals import Arrivals, Prospect, Prospects
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.selecting.curve import measured_curve, recipes_of
from stockpot.workflow.selecting.measure import MORE_OUTPUTS, measure, open_splits
from stockpot.workflow.selecting.ranking import Ranking, rank
from stockpot.workflow.selecting.search import search
from stockpot.workflow.selecting.together import greedy_ensemble
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, MakeMethod

REQUEST = SoupRequest(model="m", task="t", sweep="s", shifts=("fog", "night"))
N = 10


def digest(number: int) -> Digest:
    return Digest(f"sha256:{number:064x}")


def _candidate(number: int, started: int | None = None) -> Candidate:
    began = number if started is None else started
    run = Run(f"id{number}", f"tune-{number}", "1", "FINISHED", began, {}, {}, {})
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", run.run_id, None, 1)
    return Candidate(run, source, "", Checkpoint(digest(number), 1, (), Digest("sha256:e")))


def _right(count: float) -> list[float]:
    right = min(int(count), N)
    return [1.0] * right + [0.0] * (N - right)


def _scores(recipe: Composition) -> list[float]:
    """Candidate k alone gets k right; a soup as many as its best, and one more for each further one."""
    numbers = [int(checkpoint.removeprefix("sha256:"), 16) for checkpoint in recipe.checkpoints]
    return _right(max(numbers) + len(numbers) - 1)


class TableBench:
    def __init__(
        self, scores: object = _scores, *, same: bool = False, forgotten: Sequence[str] = ()
    ) -> None:
        self._scores, self._same, self._forgotten = scores, same, forgotten

    def evaluator(self, split: str, *, compared: bool = True, plain: bool = False) -> TableEvaluator:
        assert compared == (split in {"test", "fog", "night", "rain"}), "the held-out split is never compared"
        assert not plain
        return TableEvaluator(self._scores, n=N, split="one" if self._same else split)  # type: ignore[arg-type]  # a stand-in

    unit = None
    has_ensembles = True

    further = False

    def beside(self, split: str, score: float) -> dict[str, float]:
        return {"wrong": (1 - score) * N} if self.further and split == "test" else {}

    def groups(self, split: str) -> Sequence[Hashable] | None:
        assert split in {"test", "fog", "night", "rain"}, "the held-out split is never compared on"
        return None

    def ensemble(self, ensemble: Ensemble, split: str, *, compared: bool = True) -> Score | None:
        """One more right answer than the soup; unknown on the splits in `forgotten`."""
        assert compared == (split in {"test", "fog", "night", "rain"})
        if split in self._forgotten:
            return None
        return Score(tuple(_right(sum(_scores(ensemble)) + 1)))


def shared(evaluator: "Evaluator") -> SharedEvaluator:
    """Over a store of its own."""
    return SharedEvaluator(evaluator, MemoryStore())


def opened(request: SoupRequest, bench: "Bench") -> dict[str, SharedEvaluator]:
    return {split: shared(evaluator) for split, evaluator in open_splits(request, bench).items()}


def ranked_with(evaluators: dict[str, SharedEvaluator], ranking: Ranking) -> dict[str, SharedEvaluator]:
    """The same ones, as if the ranking had been made with them."""
    held_out = evaluators["validation"]
    held_out.evaluate([Trial(Recipe.mean([c.checkpoint.digest])) for c in ranking.candidates])
    held_out.started = 0
    return evaluators


def table_bench(scores: object = _scores, *, same: bool = False, forgotten: Sequence[str] = ()) -> "Bench":
    """As much of one as these use cases need."""
    return cast("Bench", TableBench(scores, same=same, forgotten=forgotten))


def _rank(count: int, evaluator: TableEvaluator) -> Ranking:
    return _rank_all([_candidate(number) for number in range(count)], evaluator)


def _rank_all(
    found: Sequence[Candidate], evaluator: TableEvaluator, stop: Callable[[], bool] = lambda: False
) -> Ranking:
    """Rank candidates whose weights were read before."""
    store = MemoryStore()
    for c in found:
        store.remember_ingested(IngestedSource(c.source.uri, c.source.size, c.source_sha256, c.checkpoint))
    prospects = Prospects(
        REQUEST,
        tuple(Prospect(c.run, c.source) for c in found),
        (),
        {c.run.run_id: (c.run.started, c.run.run_id) for c in found},
    )
    with TemporaryDirectory() as folder:
        supply = Supply(MemoryTracker(), store, CheckpointCache(Path(folder)))
        arrivals = Arrivals(prospects, supply, lambda _: [], Silent())
        return rank(arrivals, shared(evaluator), Silent(), stop)


def _ranked(count: int) -> Ranking:
    return _rank(count, TableEvaluator(_scores, n=N))


def test_the_ranking_is_best_first_and_ties_go_to_the_earlier_run_then_to_the_lesser_id() -> None:
    found = [_candidate(number, started) for number, started in ((0, 7), (3, 5), (2, 5), (1, 9))]
    tied = _rank_all(found, TableEvaluator(lambda _: _right(5), n=N))
    assert [candidate.run.run_id for candidate in tied.candidates] == ["id2", "id3", "id0", "id1"]
    assert [candidate.run.started for candidate in _ranked(4).candidates] == [3, 2, 1, 0]


def test_those_that_time_is_too_short_for_are_not_said_to_have_no_score() -> None:
    found = [_candidate(number, number) for number in range(5)]
    ranking = _rank_all(found, TableEvaluator(_scores, n=N), lambda: True)
    told = {(exclusion.reason, exclusion.detail) for exclusion in ranking.sweep.exclusions}
    assert told == {(ExclusionReason.TIME_IS_UP, "its turn to be ranked did not come")}


class Arriving:
    """As much of arrivals as a ranking needs: candidates in groups, all of which are here."""

    def __init__(self, *groups: list[Candidate]) -> None:
        self.groups = groups
        self.total = sum(map(len, groups))
        self.refused: list[Digest] = []

    def due(self) -> Generator[list[Candidate], None, None]:
        yield from self.groups

    def is_here(self, _: Candidate) -> bool:
        return True

    def refuse(self, digest: Digest, _: BadCheckpoint) -> None:
        self.refused.append(digest)

    def unread(self) -> list[Run]:
        return []

    def sweep(self) -> Sweep:
        found = [c for group in self.groups for c in group if c.checkpoint.digest not in self.refused]
        return Sweep(REQUEST.selector, tuple(found), ())

    def rank(self, evaluator: TableEvaluator, stop: Callable[[], bool] = lambda: False) -> Ranking:
        return rank(cast("Arrivals", self), shared(evaluator), Silent(), stop)


def test_once_time_is_up_two_scores_are_enough_whenever_they_arrived() -> None:
    one, two, three = (_candidate(number) for number in (1, 2, 3))
    evaluator = TableEvaluator(_scores, n=N)
    ranking = Arriving([one], [two, three]).rank(evaluator, stop=lambda: True)
    assert [c.checkpoint.digest for c in ranking.candidates] == [digest(2), digest(1)]
    assert len(evaluator.trials) == 2


def test_weights_that_are_refused_are_not_asked_for_again() -> None:
    class Refusing(TableEvaluator):
        asked = 0

        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            if digest(2) in trials[0].recipe.checkpoints:
                self.asked += 1
                raise BadCheckpoint("a tensor is missing")
            return super().evaluate(trials, then=then, wanted=wanted)

    evaluator = Refusing(_scores, n=N)
    arriving = Arriving([_candidate(2), _candidate(1)], [_candidate(3)], [])
    ranking = arriving.rank(evaluator)
    assert [c.checkpoint.digest for c in ranking.candidates] == [digest(3), digest(1)]
    assert (evaluator.asked, arriving.refused) == (1, [digest(2)])


def test_a_candidate_that_scores_nan_is_excluded_with_the_example() -> None:
    def scores(recipe: Recipe) -> list[float]:
        return [0.5, math.nan, 0.5] if recipe.checkpoints == (digest(1),) else [0.5] * 3

    ranking = _rank(3, TableEvaluator(scores, n=3))
    assert [candidate.run.started for candidate in ranking.candidates] == [0, 2]
    (exclusion,) = ranking.sweep.exclusions
    assert (exclusion.run_id, exclusion.reason) == ("id1", ExclusionReason.NOT_SCORED)
    assert "example 1" in exclusion.detail


def test_a_task_that_scores_nan_for_everything_is_to_blame() -> None:
    with pytest.raises(BadTask, match="NaN for every candidate"):
        _rank(3, TableEvaluator(lambda _: [math.nan], n=1))


def test_a_candidate_whose_metric_is_nan_is_excluded_though_each_example_has_a_score() -> None:
    class Undefined(TableEvaluator):
        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            super().evaluate(trials, then=then, wanted=wanted)
            return [Score((1.0, 1.0), Metric(_undefined(trial), ())) for trial in trials]

    def _undefined(trial: Trial) -> float:
        return math.nan if trial.recipe.checkpoints == (digest(1),) else 0.5

    ranking = _rank(3, Undefined(_scores, n=2))
    (exclusion,) = ranking.sweep.exclusions
    assert (exclusion.run_id, exclusion.reason) == ("id1", ExclusionReason.NOT_SCORED)
    assert "score on split validation is NaN" in exclusion.detail


@pytest.mark.parametrize("alone", [True, False])
def test_which_domain_a_metric_is_undefined_on_is_told(*, alone: bool) -> None:
    aim = Aim(("owls", "mice", "newts"), {"owls": 1.0, "mice": 1.0})

    class Undefined(TableEvaluator):
        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            super().evaluate(trials, then=then, wanted=wanted)
            return [_scored(not alone or trial.recipe.checkpoints == (digest(1),)) for trial in trials]

    def _scored(undefined: bool) -> Score:  # noqa: FBT001 - of one example each
        values = {"owls": 0.5, "mice": math.nan if undefined else 0.5, "newts": math.nan}
        return Score.of_parts({d: Score((1.0,), Metric(value, ())) for d, value in values.items()}, aim)

    evaluator = Undefined(_scores, n=3)
    if alone:
        (exclusion,) = _rank(3, evaluator).sweep.exclusions
        assert "its score on the examples of mice in split validation is NaN" in exclusion.detail
    else:
        with pytest.raises(BadTask, match="candidate on the examples of mice in split") as told:
            _rank(3, evaluator)
        assert "--mix" in told.value.mend


def test_one_scored_candidate_is_no_soup() -> None:
    def scores(recipe: Recipe) -> list[float]:
        return [1.0] if recipe.checkpoints == (digest(1),) else [math.nan]

    with pytest.raises(NothingToSoup, match="one usable run"):
        _rank(3, TableEvaluator(scores, n=1))


def test_a_search_that_runs_out_of_time_keeps_the_best_until_then() -> None:
    evaluator = TableEvaluator(_scores, n=N)
    late = iter([False, False])  # two soups are tried, then time is up
    (selection,) = search(
        REQUEST, _ranked(4), {"greedy": Greedy}, shared(evaluator), lambda: next(late, True), Silent()
    )
    assert not selection.complete
    assert len(selection.recipe.checkpoints) == 3
    assert len(evaluator.trials) == 4 + 2


def test_splits_that_hold_the_same_data_are_refused_whatever_their_names() -> None:
    with pytest.raises(BadRequest, match="validation and test hold the same data"):
        open_splits(REQUEST, table_bench(same=True))


def test_methods_that_end_in_the_same_ingredients_made_one_soup() -> None:
    bench, ranking = table_bench(), _ranked(4)
    evaluators = opened(REQUEST, bench)
    methods: dict[str, MakeMethod] = {"greedy": Greedy, "uniform": Uniform}
    never = lambda: False  # noqa: E731 - a name for what it means
    selections = search(REQUEST, ranking, methods, evaluators["validation"], never, Silent())
    report = measure(REQUEST, ranking, selections, evaluators, bench, never, Silent())
    assert [(row.label, row.methods) for row in report.rows] == [
        ("best single", ()),
        ("greedy and uniform soup", ("greedy", "uniform")),
    ]
    assert report.rows[1].recipe == selections[0].recipe
    gain = report.rows[1].versus_best[MEAN_OF_SHIFTS]
    assert gain.difference == pytest.approx(0.3)
    assert report.rows[0].versus_best == {}


def test_when_time_is_up_the_other_candidates_stay_unmeasured_and_the_soups_do_not() -> None:
    bench, ranking = table_bench(), _ranked(4)
    evaluators = opened(REQUEST, bench)
    selections = search(
        REQUEST, ranking, {"uniform": Uniform}, evaluators["validation"], lambda: False, Silent()
    )
    report = measure(REQUEST, ranking, selections, evaluators, bench, lambda: True, Silent())
    assert [point.report for point in report.candidates] == [0.3, None, None, None]
    assert "time is up; missing from the figure: 3 of 3 candidates" in report.notes
    assert [point.held_out for point in report.candidates] == [0.3, 0.2, 0.1, 0.0]
    assert set(report.rows[1].scores) == {"validation", "test", "fog", "night", MEAN_OF_SHIFTS}


def _measured(
    bench: "Bench", methods: "dict[str, MakeMethod]", request: SoupRequest = REQUEST, candidates: int = 4
) -> tuple[SoupReport, int]:
    """The report on these candidates, and how many evaluations it took after they were ranked."""
    ranking = _ranked(candidates)
    evaluators = ranked_with(opened(request, bench), ranking)
    never = lambda: False  # noqa: E731 - a name for what it means
    selections = search(request, ranking, methods, evaluators["validation"], never, Silent())
    report = measure(request, ranking, selections, evaluators, bench, never, Silent())
    return report, sum(evaluator.started for evaluator in evaluators.values())


def test_what_else_the_scores_say_is_told_for_each_row() -> None:
    bench = TableBench()
    bench.further = True
    report, _ = _measured(cast("Bench", bench), {"greedy": Greedy})
    wrong = [(1 - row.scores["test"]) * N for row in report.rows]
    assert report.notes == (f"wrong on test: best single {wrong[0]:.4g}, greedy soup {wrong[1]:.4g}",)


def test_beside_each_soup_stands_the_ensemble_of_its_ingredients() -> None:
    report, _ = _measured(table_bench(), {"greedy": Greedy, "uniform": Uniform})
    best, soup = report.rows
    ensemble, greedy_ensemble = report.ensembles
    assert report.table == (best, soup, ensemble, greedy_ensemble)
    assert (ensemble.label, ensemble.recipe) == ("ensemble of the greedy and uniform soup", soup.recipe)
    assert (best.inference_cost, soup.inference_cost, ensemble.inference_cost) == (1, 1, 4)
    assert ensemble.scores == {split: pytest.approx(0.7) for split in soup.scores}
    assert list(ensemble.versus_best) == ["test", "fog", "night", MEAN_OF_SHIFTS]
    for split, gain in ensemble.versus_best.items():
        assert gain.difference == pytest.approx(ensemble.scores[split] - best.scores[split])
    assert report.notes == ()


def test_the_ensemble_costs_no_evaluation() -> None:
    every = ("validation", "test", "fog", "night")
    with_it, without = table_bench(), table_bench(forgotten=every)
    (report, started), (bare, started_without) = (
        _measured(bench, {"uniform": Uniform}) for bench in (with_it, without)
    )
    assert (len(report.ensembles), len(bare.ensembles)) == (2, 0)
    assert started == started_without == 3 * 4 + 4


def test_without_remembered_outputs_the_report_says_so_and_is_otherwise_the_same() -> None:
    report, _ = _measured(table_bench(forgotten=("test",)), {"uniform": Uniform})
    whole, _ = _measured(table_bench(), {"uniform": Uniform})
    assert (report.rows, report.ensembles) == (whole.rows, ())
    why = "outputs of its models on test are not remembered"
    assert report.notes == (
        f"no row for the ensemble of the uniform soup, the greedy ensemble: {why}",
        MORE_OUTPUTS,
    )
    everywhere = replace(REQUEST, points="all")
    all_of_them, _ = _measured(table_bench(forgotten=("test",)), {"uniform": Uniform}, everywhere)
    assert all_of_them.notes == report.notes[:1], "more cannot be asked for"


@pytest.mark.parametrize("forgotten", ["validation", "fog"])
def test_a_split_without_remembered_outputs_leaves_a_cell_empty(forgotten: str) -> None:
    report, _ = _measured(table_bench(forgotten=(forgotten,)), {"uniform": Uniform})
    ensemble = report.ensembles[0]
    unknown = {forgotten} if forgotten == "validation" else {forgotten, MEAN_OF_SHIFTS}
    assert report.rows[0].scores.keys() - ensemble.scores.keys() == unknown
    assert not unknown & ensemble.versus_best.keys()
    why = f"outputs of its models on {forgotten} are not remembered"
    assert f"the {ensemble.label} has empty cells: {why}" in report.notes


def test_a_single_candidate_has_no_ensemble_and_misses_none() -> None:
    alone: MakeMethod = lambda contenders, accept: Greedy(contenders[:1], accept=accept)  # noqa: E731 - a method
    report, _ = _measured(table_bench(), {"greedy": alone})
    assert [row.label for row in report.ensembles] == ["greedy ensemble"]
    assert report.notes == ()
    assert not report.rows[1].recipe.is_soup
    assert not report.rows[1].versus_best, "nothing is compared with itself"


def test_last_stands_the_ensemble_that_greedy_finds_among_all_candidates() -> None:
    report, _ = _measured(table_bench(), {"uniform": Uniform})
    row, found = report.ensembles[-1], report.selections[-1]
    best_first = [candidate.checkpoint for candidate in report.candidates]
    assert (row.label, found.method, found.rule) == ("greedy ensemble", "greedy ensemble", "not_worse")
    assert row.recipe == found.recipe == Ensemble.of(best_first)
    assert (row.inference_cost, row.scores["validation"]) == (4, found.score)
    tried = [step.tried for step in found.steps[4:]]
    assert tried == [tuple(best_first[:size]) for size in (2, 3, 4)]
    assert [step.kept for step in found.steps[4:]] == [True, True, True]
    assert list(row.versus_best) == ["test", "fog", "night", MEAN_OF_SHIFTS]
    assert [row.label for row in report.rows] == ["best single", "uniform soup"], "it is no soup"


def _measured_from_a_base(stop: Callable[[], bool]) -> tuple[SoupReport, dict[str, SharedEvaluator]]:
    bench, ranking = table_bench(), replace(_ranked(4), base=_candidate(7))
    evaluators = ranked_with(opened(REQUEST, bench), ranking)
    methods: dict[str, MakeMethod] = {"uniform": Uniform, "greedy": Greedy}
    found = search(REQUEST, ranking, methods, evaluators["validation"], lambda: False, Silent())
    return measure(REQUEST, ranking, found, evaluators, bench, stop, Silent()), evaluators


def test_the_base_is_compared_and_the_way_to_the_greedy_soup_is_measured_off_the_report_split() -> None:
    report, evaluators = _measured_from_a_base(lambda: False)
    assert report.base is not None
    assert report.base.recipe == Recipe.mean([digest(7)])
    assert report.base.scores == {
        **dict.fromkeys(("validation", "test", "fog", "night"), 0.7),
        MEAN_OF_SHIFTS: 0.7,
    }
    assert report.base.versus_best["test"].difference == pytest.approx(0.7 - 0.3)
    assert report.base not in report.rows, "it is nothing that could be registered"
    curve = report.curve
    assert curve is not None
    assert curve.label == "uniform and greedy soup"
    assert [list(point.scores) for point in curve.points] == [
        ["validation", "fog", "night", MEAN_OF_SHIFTS]
    ] * 11
    assert curve.points[0].recipe == report.base.recipe.digest
    assert curve.points[-1].recipe == report.rows[1].recipe.digest
    assert evaluators["test"].started == 1 + 1 + 3 + 1, "the best, the soup, the points and the base"
    assert evaluators["fog"].started == evaluators["test"].started + 9


def test_what_lies_between_the_base_and_a_single_candidate_gets_the_statistics_of_soups() -> None:
    ranking, rule = replace(_ranked(4), base=_candidate(7)), OverlayRule("train", 8, "1", digest(9))
    single, soup = Recipe.mean([digest(3)]), replace(Recipe.mean([digest(1), digest(2)]), overlay=rule)
    recipes = recipes_of(ranking, [(("greedy",), single), (("uniform",), soup)])
    first, *between, last = recipes.values()
    assert (first, last) == (Recipe.mean([digest(7)]), single), "each keeps its own"
    assert {recipe.overlay for recipe in between} == {rule}
    for layout, why in ((_norm(counts=True), "no method ended in a soup"), (_norm(counts=False), "")):
        checkpoint = replace(_candidate(7).checkpoint, tensors=layout)
        with_norm = replace(ranking, base=replace(_candidate(7), checkpoint=checkpoint))
        alone = [(("greedy",), single)]
        assert bool(recipes_of(with_norm, alone)) == (not why), "an average of what is estimated says nothing"
        evaluators = opened(REQUEST, table_bench())
        curve, told = measured_curve(REQUEST, with_norm, alone, evaluators, lambda: False, Silent())
        assert (curve is None, bool(told)) == (bool(why), bool(why))
        assert why in told


def _norm(*, counts: bool) -> tuple[TensorSpec, ...]:
    """Of a BatchNorm; a frozen one counts no batches."""
    held = [TensorSpec(f"norm.running_{name}", "F32", (4,)) for name in ("mean", "var")]
    return (*held, *([TensorSpec("norm.num_batches_tracked", "I64", ())] if counts else []))


def test_where_time_is_up_there_is_no_curve_and_that_is_said() -> None:
    report, _ = _measured_from_a_base(lambda: True)
    assert report.base is not None
    assert report.curve is None
    assert "no curve from the base: time is up" in report.notes


def test_ensembles_that_are_committed_need_no_outputs() -> None:
    ranking, store = _ranked(4), MemoryStore()

    def report(bench: "Bench") -> SoupReport:
        splits = open_splits(REQUEST, bench).items()
        evaluators = {split: SharedEvaluator(evaluator, store) for split, evaluator in splits}
        ranked_with(evaluators, ranking)
        methods: dict[str, MakeMethod] = {"uniform": Uniform}
        found = search(REQUEST, ranking, methods, evaluators["validation"], lambda: False, Silent())
        return measure(REQUEST, ranking, found, evaluators, bench, lambda: False, Silent())

    first = report(table_bench())
    assert len(first.ensembles) == 2
    assert report(table_bench(forgotten=("validation", "test", "fog", "night"))) == first


def test_where_time_is_up_or_outputs_are_missing_there_is_no_greedy_ensemble_and_that_is_said() -> None:
    bench, ranking = table_bench(), _ranked(4)
    evaluators = opened(REQUEST, bench)
    late = measure(REQUEST, ranking, (), evaluators, bench, lambda: True, Silent())
    assert "no row for the greedy ensemble: time is up" in late.notes
    forgotten, _ = _measured(table_bench(forgotten=("validation",)), {"uniform": Uniform})
    why = "no row for the greedy ensemble: outputs of candidates on validation are not remembered"
    assert why in forgotten.notes
    for report in (late, forgotten):
        assert "greedy ensemble" not in {row.label for row in report.ensembles}
        assert "greedy ensemble" not in {found.method for found in report.selections}


def test_a_greedy_ensemble_of_the_best_single_alone_is_no_row() -> None:
    class Quarrelling(TableBench):
        def ensemble(self, ensemble: Ensemble, split: str, *, compared: bool = True) -> Score | None:
            del ensemble, split, compared
            return Score((0.0,) * N)

    report, _ = _measured(cast("Bench", Quarrelling()), {"greedy": Greedy})
    assert [row.label for row in report.ensembles] == ["ensemble of the greedy soup"]
    assert report.notes == ("no row for the greedy ensemble: beside the best single no candidate was kept",)


def test_time_that_runs_out_leaves_the_best_ensemble_until_then() -> None:
    bench, ranking = table_bench(), _ranked(4)
    evaluators = ranked_with(opened(REQUEST, bench), ranking)
    asked = iter([False, False, True])
    found, _ = greedy_ensemble(
        REQUEST, ranking, evaluators["validation"], bench, lambda: next(asked), Silent()
    )
    assert found is not None
    assert (found.complete, len(found.recipe.checkpoints)) == (False, 2)


@pytest.mark.parametrize(("points", "measured"), [(0, 1), (2, 3), (5, 6), ("all", 12)])
def test_beside_the_best_single_only_so_many_candidates_are_measured_for_the_figure(
    points: Literal["all"] | int, measured: int
) -> None:
    request = replace(REQUEST, points=points)
    report, started = _measured(table_bench(), {"uniform": Uniform}, request, candidates=12)
    shown = [point.report is not None for point in report.candidates]
    assert shown == [True] * measured + [False] * (12 - measured)
    assert report.rows[0].scores["test"] == report.candidates[0].report
    assert started == 3 * measured + 4, "held-out scores are the ranking's, and the search's"
    assert report.notes == ()


def test_a_request_as_large_as_the_demos_takes_less_than_ninety_passes() -> None:
    request = replace(REQUEST, shifts=("fog", "night", "rain"))
    bench = table_bench()
    _, started = _measured(bench, {"greedy": Greedy, "uniform": Uniform}, request, candidates=24)
    assert started <= 90


def test_methods_are_merged_by_recipe_and_not_by_their_checkpoints() -> None:
    bench, ranking = table_bench(), _ranked(4)
    evaluators = opened(REQUEST, bench)
    never = lambda: False  # noqa: E731 - a name for what it means
    (found,) = search(REQUEST, ranking, {"uniform": Uniform}, evaluators["validation"], never, Silent())
    assert isinstance(found.recipe, Recipe)
    backwards = replace(found.recipe, ingredients=found.recipe.ingredients[::-1])
    overlaid = replace(found.recipe, overlay=Digest("sha256:head"))
    selections = [found]
    a, b, c, d = found.recipe.checkpoints
    even, uneven = Recipe.grouped([[d, b], [a, c]]), Recipe.grouped([[d, b, a], [c]])
    others = {"back": backwards, "over": overlaid, "even": even, "uneven": uneven}
    selections += [replace(found, method=method, recipe=recipe) for method, recipe in others.items()]
    report = measure(REQUEST, ranking, selections, evaluators, bench, never, Silent())
    assert [row.methods for row in report.rows] == [(), ("uniform", "back", "even"), ("over",), ("uneven",)]
    assert report.rows[1].recipe == found.recipe, "the first one's name"
