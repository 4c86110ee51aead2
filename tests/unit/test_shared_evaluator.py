import math
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from stockpot.entities import (
    Accept,
    Aim,
    Bound,
    Contender,
    Digest,
    Lease,
    Outcome,
    Recipe,
    Score,
    Selection,
    Threshold,
    Trial,
    digest_of_bytes,
)
from stockpot.ports import OrderDependent, Store, Wanted, always
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.store import MemoryStore, SqlStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

RECIPES = [Recipe.mean([digest_of_bytes(bytes([place]))]) for place in range(4)]
TRIALS = [Trial(recipe) for recipe in RECIPES]


def scores(recipe: Recipe) -> list[float]:
    return [RECIPES.index(recipe) / 10, math.nan if recipe == RECIPES[3] else 0.0]


class BreaksDown(TableEvaluator):
    """Fails at one recipe."""

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        if RECIPES[2] in [trial.recipe for trial in trials]:
            raise RuntimeError("killed")
        return super().evaluate(trials, then=then, wanted=wanted)


def test_a_committed_score_is_never_evaluated_again() -> None:
    store, inner = MemoryStore(), TableEvaluator(scores, n=2)
    first = SharedEvaluator(inner, store)
    outcomes = first.evaluate(TRIALS)
    second = SharedEvaluator(inner, store)
    assert repr(second.evaluate(TRIALS)) == repr(outcomes), "NaN included"
    assert (first.started, second.started, len(inner.trials)) == (4, 0, 4)


def test_scores_that_arrived_before_a_crash_are_kept() -> None:
    store = MemoryStore()
    with pytest.raises(RuntimeError, match="killed"):
        SharedEvaluator(BreaksDown(scores, n=2), store).evaluate(TRIALS)
    inner = TableEvaluator(scores, n=2)
    resumed = SharedEvaluator(inner, store)
    resumed.evaluate(TRIALS)
    assert [trial.recipe for trial in inner.trials] == RECIPES[2:]
    assert resumed.started == 2


def test_the_score_that_was_committed_first_is_the_answer() -> None:
    store = MemoryStore()
    inner = TableEvaluator(scores, n=2)
    theirs = Score((0.25, 0.25))

    class Slower(TableEvaluator):
        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            store.commit_score(RECIPES[0], inner.protocol, theirs)
            return super().evaluate(trials, then=then, wanted=wanted)

    assert SharedEvaluator(Slower(scores, n=2), store).evaluate(TRIALS[:1]) == [theirs]


def test_what_is_read_off_another_split_is_an_answer_only_as_long_as_that_may_be() -> None:
    store, inner = MemoryStore(), TableEvaluator(scores, n=2)
    elsewhere: dict[Recipe, Score] = {RECIPES[0]: Score((0.25, 0.25))}
    reading = SharedEvaluator(inner, store, derived=elsewhere.get)
    assert reading.evaluate(TRIALS[:1]) == [elsewhere[RECIPES[0]]]
    assert (reading.started, len(inner.trials)) == (0, 0)
    elsewhere.clear()  # a pass has refuted it
    assert reading.evaluate(TRIALS[:1]) == [Score((0.0, 0.0))]
    assert store.score(RECIPES[0].digest, inner.protocol.digest) == Score((0.0, 0.0))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        with closing(SqlStore(f"sqlite:///{tmp_path}/stockpot.db")) as kept:
            yield kept


def asked(recipe: Recipe, reach: float, *, strict: bool = False) -> Trial:
    return Trial(recipe, Threshold(reach, strict=strict))


def early(store: Store, inner: TableEvaluator | None = None) -> SharedEvaluator:
    """One whose evaluations stop early: recipe 0 scores 0, at most 0.5 after the first of two examples."""
    return SharedEvaluator(inner or TableEvaluator(scores, n=2, greatest=1.0), store)


def test_an_evaluation_that_stopped_early_is_never_begun_again(store: Store) -> None:
    trial = asked(RECIPES[0], 0.9)
    assert early(store).evaluate([trial]) == [Bound(0.5)]
    again = early(store)
    assert again.evaluate([trial]) == [Bound(0.5)]
    assert again.started == 0


def test_a_bound_answers_exactly_the_thresholds_that_it_excludes() -> None:
    for trial, known in [
        (asked(RECIPES[0], math.nextafter(0.5, 1)), True),
        (asked(RECIPES[0], 0.5, strict=True), True),
        (asked(RECIPES[0], 0.5), False),
        (asked(RECIPES[0], 0.25, strict=True), False),
        (asked(RECIPES[1], 0.9), False),
        (Trial(RECIPES[0]), False),
    ]:
        store = MemoryStore()
        store.commit_bound(RECIPES[0], early(store).protocol, Bound(0.5))
        evaluator = early(store)
        outcomes = evaluator.evaluate([trial])
        assert (evaluator.started == 0) is known
        assert not known or outcomes == [Bound(0.5)]


def test_a_threshold_that_the_bound_does_not_exclude_is_evaluated_and_the_score_then_answers_all(
    store: Store,
) -> None:
    evaluator = early(store)
    evaluator.evaluate([asked(RECIPES[0], 0.9)])
    whole = Score((0.0, 0.0))
    assert (
        evaluator.evaluate([Trial(RECIPES[0]), asked(RECIPES[0], 0.9), asked(RECIPES[0], 0.0)]) == [whole] * 3
    )
    assert evaluator.started == 2


def test_a_later_and_lower_bound_takes_the_place_of_the_first(store: Store) -> None:
    protocol = early(store).protocol
    store.commit_bound(RECIPES[0], protocol, Bound(0.75))
    evaluator = early(store)
    assert evaluator.evaluate([asked(RECIPES[0], 0.6)]) == [Bound(0.5)]
    assert evaluator.evaluate([asked(RECIPES[0], 0.9)]) == [Bound(0.5)]
    assert (evaluator.started, store.bound(RECIPES[0].digest, protocol.digest)) == (1, Bound(0.5))


def test_outcomes_that_arrived_before_a_crash_are_kept_bounds_too() -> None:
    store, trials = MemoryStore(), [asked(recipe, 0.9) for recipe in RECIPES[:3]]
    with pytest.raises(RuntimeError, match="killed"):
        early(store, BreaksDown(scores, n=2, greatest=1.0)).evaluate(trials)
    resumed = early(store)
    resumed.evaluate(trials)
    assert resumed.started == 1, "the one that was under way"


class Mixes(TableEvaluator):
    """Its bounds are mixed until it learns that outputs depend on the batch, or is told."""

    def keep_batches(self) -> None:
        self.order_dependent = True

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        mixed = not self.order_dependent
        outcomes = super().evaluate(trials, then=then, wanted=wanted)
        return [replace(o, mixed=mixed) if isinstance(o, Bound) else o for o in outcomes]


class LearnsAtTheLast(Mixes):
    """Fails its probe with the second of the recipes."""

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        self.order_dependent |= trials[0].recipe == RECIPES[1]
        return super().evaluate(trials, then=then, wanted=wanted)


def test_a_failed_probe_withdraws_what_others_have_given_and_goes_on(store: Store) -> None:
    first = early(store, Mixes(scores, n=2, greatest=1.0))
    first.evaluate([asked(RECIPES[0], 0.9)])
    second = early(store, LearnsAtTheLast(scores, n=2, greatest=1.0))
    assert second.evaluate([asked(RECIPES[1], 0.9)]) == [Bound(0.55)], "its own bounds are true"
    second.confirm()
    protocol = first.protocol.digest
    assert store.bound(RECIPES[0].digest, protocol) is None
    with pytest.raises(OrderDependent):
        first.confirm()
    assert first.order_dependent
    first.confirm()
    assert (
        first.evaluate([asked(RECIPES[0], 0.9)]) == [Bound(0.5)] == [store.bound(RECIPES[0].digest, protocol)]
    )


def test_a_failed_probe_after_a_mixed_bound_was_an_answer_starts_the_search_again(store: Store) -> None:
    early(store, Mixes(scores, n=2, greatest=1.0)).evaluate([asked(RECIPES[0], 0.9)])
    second = early(store, LearnsAtTheLast(scores, n=2, greatest=1.0))
    trials = [asked(recipe, 0.9) for recipe in RECIPES[:2]]
    with pytest.raises(OrderDependent):
        second.evaluate(trials)
    assert second.evaluate(trials) == [Bound(0.5), Bound(0.55)]
    second.confirm()


def test_a_search_that_an_evaluation_has_ended_is_started_again_once(store: Store) -> None:
    class Contradicted(Mixes):
        """Sees the second recipe's examples score differently in another order."""

        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            if trials[0].recipe == RECIPES[1] and not self.order_dependent:
                self.order_dependent = True
                raise OrderDependent
            return super().evaluate(trials, then=then, wanted=wanted)

    evaluator = early(store, Contradicted(scores, n=2, greatest=1.0))
    trials = [asked(recipe, 0.9) for recipe in RECIPES[:2]]
    with pytest.raises(OrderDependent):
        evaluator.evaluate(trials)
    assert evaluator.evaluate(trials) == [Bound(0.5), Bound(0.55)]
    evaluator.confirm()


def test_what_others_have_found_is_heeded_before_anything_is_evaluated(store: Store) -> None:
    early(store, LearnsAtTheLast(scores, n=2, greatest=1.0)).evaluate([asked(RECIPES[1], 0.9)])
    late = Mixes(scores, n=2, greatest=1.0)
    early(store, late).evaluate([asked(RECIPES[0], 0.9)])
    assert late.order_dependent


def test_what_others_have_found_is_heeded_after_evaluations_of_a_part_too(store: Store) -> None:
    early(store, LearnsAtTheLast(scores, n=2, greatest=1.0)).evaluate([asked(RECIPES[1], 0.9)])
    late = Mixes(scores, n=2, greatest=1.0)
    whole = early(store, late)
    part = whole.of_part(TableEvaluator(scores, n=2, split="validation of fish"), lambda _: None)
    part.evaluate(TRIALS[:1])
    assert (part.started, whole.started) == (1, 1)
    whole.evaluate([asked(RECIPES[0], 0.9)])
    assert late.order_dependent


def by_aim(store: Store, inner: TableEvaluator, aim: Aim) -> tuple[SharedEvaluator, Digest]:
    """One that makes a number in this way, and what its bounds are kept under."""
    return SharedEvaluator(inner, store, aim=aim), inner.protocol.aimed(aim.name).digest


def test_bounds_answer_whoever_has_their_aim_and_nobody_else(store: Store) -> None:
    one, two = Aim(("a", "b"), {"a": 1.0, "b": 1.0}), Aim(("a", "b"), {"a": 3.0, "b": 1.0})
    store.commit_bound(RECIPES[0], early(store).protocol, Bound(0.5))
    for aim, started in ((one, 1), (one, 0), (two, 1), (two, 0)):
        evaluator, _ = by_aim(store, TableEvaluator(scores, n=2, greatest=1.0), aim)
        (bound,) = evaluator.evaluate([asked(RECIPES[0], 0.9)])
        assert (bound, evaluator.started) == (Bound(0.5 if aim is one else 0.25), started)


def test_a_failed_probe_withdraws_bounds_of_every_aim_as_soon_as_somebody_asks_for_them(store: Store) -> None:
    one, two = Aim(("a", "b"), {"a": 1.0, "b": 1.0}), Aim(("a", "b"), {"a": 3.0, "b": 1.0})
    before = [by_aim(store, Mixes(scores, n=2, greatest=1.0), aim) for aim in (one, two)]
    for first, under in before:
        first.evaluate([asked(RECIPES[0], 0.9)])
        assert store.bound(RECIPES[0].digest, under) is not None
    plain = early(store, Mixes(scores, n=2, greatest=1.0))
    plain.evaluate([asked(RECIPES[0], 0.9)])
    finds, _ = by_aim(store, LearnsAtTheLast(scores, n=2, greatest=1.0), one)
    finds.evaluate([asked(RECIPES[1], 0.9)])
    of_one, of_two = (store.bound(RECIPES[0].digest, under) for _, under in before)
    assert of_one is None
    assert of_two is not None, "nobody knows all aims that there are"
    assert store.bound(RECIPES[0].digest, plain.protocol.digest) is None
    second, under = before[1]
    with pytest.raises(OrderDependent):
        second.confirm()
    assert store.bound(RECIPES[0].digest, under) is None
    second.confirm()


def test_bounds_given_under_an_assumption_that_failed_are_withdrawn_and_scores_stay(store: Store) -> None:
    class Discovers(Mixes):
        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            if RECIPES[2] in [trial.recipe for trial in trials]:
                raise OrderDependent
            return super().evaluate(trials, then=then, wanted=wanted)

    early(store, Mixes(scores, n=2, greatest=1.0)).evaluate([asked(RECIPES[0], 0.9)])
    other = early(store, Mixes(scores, n=2, split="test", greatest=1.0))
    other.evaluate([asked(RECIPES[0], 0.9)])
    discovering = early(store, Discovers(scores, n=2, greatest=1.0))
    store.commit_bound(RECIPES[1], discovering.protocol, Bound(0.5))
    with pytest.raises(OrderDependent):
        discovering.evaluate([asked(RECIPES[3], 0.9), Trial(RECIPES[1]), asked(RECIPES[2], 0.9)])
    protocol = discovering.protocol.digest
    assert store.bound(RECIPES[0].digest, protocol) is None, "an earlier process's, under the same assumption"
    assert store.bound(RECIPES[3].digest, protocol) is None
    assert store.bound(RECIPES[1].digest, protocol) == Bound(0.5), "shown with whole batches"
    assert store.score(RECIPES[1].digest, protocol) == Score((0.1, 0.0))
    assert store.bound(RECIPES[0].digest, other.protocol.digest) is not None


def test_no_other_error_withdraws_a_bound() -> None:
    store, trials = MemoryStore(), [asked(recipe, 0.9) for recipe in (RECIPES[0], RECIPES[2])]
    with pytest.raises(RuntimeError, match="killed"):
        early(store, BreaksDown(scores, n=2, greatest=1.0)).evaluate(trials)
    assert store.bound(RECIPES[0].digest, early(store).protocol.digest) == Bound(0.5)


def test_what_an_evaluation_found_out_before_it_failed_withdraws_bounds_as_well(store: Store) -> None:
    class FailsThen(LearnsAtTheLast):
        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            super().evaluate(trials, then=then, wanted=wanted)
            raise RuntimeError("killed")

    early(store, Mixes(scores, n=2, greatest=1.0)).evaluate([asked(RECIPES[0], 0.9)])
    failing = early(store, FailsThen(scores, n=2, greatest=1.0))
    with pytest.raises(RuntimeError, match="killed"):
        failing.evaluate([asked(RECIPES[1], 0.9)])
    assert store.bound(RECIPES[0].digest, failing.protocol.digest) is None


class Asked(MemoryStore):
    """Counts what costs a round trip, or a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = self.leases = 0

    def score(self, recipe: Digest, protocol: Digest) -> Score | None:
        self.looks += 1
        return super().score(recipe, protocol)

    def take_lease(self, name: str, *, owner: str, seconds: float) -> Lease:
        self.leases += 1
        return super().take_lease(name, owner=owner, seconds=seconds)


def test_of_new_evaluations_each_is_looked_up_once_and_those_that_are_known_take_no_lease() -> None:
    store, inner = Asked(), TableEvaluator(scores, n=2)
    evaluator = SharedEvaluator(inner, store)
    for trial in TRIALS:
        evaluator.evaluate([trial])
    assert (store.looks, store.leases) == (1 + len(TRIALS), len(TRIALS))
    for _ in range(3):
        for trial in TRIALS:
            evaluator.evaluate([trial])
    assert store.leases == len(TRIALS) + 1, "one, until it is seen that they are known"
    SharedEvaluator(inner, store).evaluate(TRIALS)
    assert store.leases == len(TRIALS) + 1


def test_after_a_new_evaluation_a_bound_still_answers_what_another_process_evaluates() -> None:
    store = MemoryStore()
    evaluator = early(store)
    store.commit_bound(RECIPES[1], evaluator.protocol, Bound(0.5))
    store.take_lease(lease(RECIPES[1], TableEvaluator(scores, n=2)), owner="another", seconds=60)
    evaluator.evaluate([Trial(RECIPES[0])])
    assert evaluator.attempt(asked(RECIPES[1], 0.9)) == Bound(0.5)
    assert evaluator.attempt(Trial(RECIPES[1])) is None


class Listening(TableEvaluator):
    heard: Sequence[Trial] = ()

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        self.heard = then
        return super().evaluate(trials, then=then, wanted=wanted)


def lease(recipe: Recipe, evaluator: TableEvaluator) -> str:
    """The name under which it is evaluated."""
    return f"evaluate {recipe.digest} under {evaluator.protocol.digest}"


def test_nobody_prepares_for_what_is_remembered() -> None:
    store, inner = MemoryStore(), Listening(scores, n=2)
    store.commit_score(RECIPES[1], inner.protocol, Score((0.5, 0.5)))
    store.commit_bound(RECIPES[2], inner.protocol, Bound(0.5))
    then = [asked(RECIPES[1], 0.9), asked(RECIPES[2], 0.9), asked(RECIPES[2], 0.4), asked(RECIPES[3], 0.9)]
    SharedEvaluator(inner, store).evaluate(TRIALS[:1], then=then)
    assert inner.heard == then[2:3]


def test_nobody_prepares_for_what_another_process_evaluates() -> None:
    store, inner = MemoryStore(), Listening(scores, n=2)
    store.take_lease(lease(RECIPES[1], inner), owner="another", seconds=60)
    SharedEvaluator(inner, store).evaluate(TRIALS[:1], then=TRIALS[1:])
    assert inner.heard == TRIALS[2:3]


def test_a_search_answered_from_bounds_is_the_same_search(store: Store) -> None:
    """Most of the soups are rejected early, and none is begun again."""
    names = [digest_of_bytes(bytes([place, 1])) for place in range(16)]

    def right(recipe: Recipe) -> list[float]:
        draw = random.Random(recipe.digest)  # noqa: S311 - made-up answers
        return [float(draw.random() < 0.7) for _ in range(20)]

    def searched() -> tuple[Selection, int]:
        evaluator = early(store, TableEvaluator(right, n=20, greatest=1.0))
        contenders = [Contender(name, str(place), place) for place, name in enumerate(names)]
        return run_selection(Greedy(contenders, accept=Accept.NOT_WORSE), evaluator), evaluator.started

    (first, begun), (second, begun_again) = searched(), searched()
    assert sum(step.bound is not None for step in first.steps) > 4
    assert (second, begun, begun_again) == (first, 31, 0)


def test_scores_of_another_split_are_not_taken() -> None:
    store = MemoryStore()
    SharedEvaluator(TableEvaluator(scores, n=2, split="validation"), store).evaluate(TRIALS)
    other = SharedEvaluator(TableEvaluator(scores, n=2, split="test"), store)
    other.evaluate(TRIALS[:2])
    assert other.started == 2


def test_statistics_and_shared_scores_need_no_torch_and_no_scipy_at_import() -> None:
    modules = "stockpot.statistics, stockpot.workflow.sharing.shared_evaluator, stockpot.workflow.walk"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'scipy', 'numpy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
