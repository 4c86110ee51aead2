"""Several processes that share their evaluations, each a thread with an evaluator of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from stockpot.entities import Bound, Outcome, Recipe, Score, Threshold, Trial, digest_of_bytes, short
from stockpot.errors import BadTask
from stockpot.ports import Interrupted, OrderDependent, Wanted, always
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow import leases
from stockpot.workflow.sharing import shared_evaluator
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator
from stockpot.workflow.sharing.units import Unit, settled

DIGESTS = [digest_of_bytes(b"weights %d" % place) for place in range(6)]
SINGLES = [Recipe.mean([digest]) for digest in DIGESTS]
SECONDS = 30
"""After which a test that hangs fails."""


def guess(place: int, threshold: float = 0.5) -> Trial:
    return Trial(Recipe.mean([DIGESTS[0], DIGESTS[place]]), Threshold(threshold, strict=False))


class Slow(TableEvaluator):
    """Each evaluation begins, and ends when the test lets it, or nobody wants it any more."""

    def __init__(self, *, score: float = 0.0, errors: Sequence[tuple[Trial, Exception]] = ()) -> None:
        super().__init__(lambda _: [score], n=1)
        self.begun: list[Trial] = []
        self.given_up: list[Trial] = []
        self.looked = 0
        """How often it has asked whether it is wanted."""
        self._events: dict[tuple[str, Trial], Event] = {}
        self._errors = errors

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        (trial,) = trials
        self.begun.append(trial)
        self._event("begun", trial).set()
        while not self._event("ended", trial).wait(0.01):
            self.looked += 1
            if not wanted():
                self.given_up.append(trial)
                self._event("given up", trial).set()
                raise Interrupted
        for failing, error in self._errors:
            if failing == trial:
                raise error
        return super().evaluate(trials, then=then, wanted=wanted)

    def end(self, *trials: Trial) -> None:
        for trial in trials:
            self._event("ended", trial).set()

    def see(self, what: str, trial: Trial) -> None:
        assert self._event(what, trial).wait(SECONDS)

    def _event(self, what: str, trial: Trial) -> Event:
        return self._events.setdefault((what, trial), Event())


Begin = Callable[..., "Future[list[Outcome]]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Lets a process evaluate."""
    with ThreadPoolExecutor() as pool:
        yield lambda evaluator, trials, then=(): pool.submit(evaluator.evaluate, trials, then=then)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_evaluator, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(shared_evaluator, "POLL_SECONDS", (0.01, 0.01))


def test_what_another_process_evaluates_is_waited_for_and_is_the_answer(begin: Begin) -> None:
    store, mine, theirs = MemoryStore(), Slow(score=0.25), Slow(score=0.75)
    first = begin(SharedEvaluator(theirs, store), [guess(1)])
    theirs.see("begun", guess(1))
    second = begin(SharedEvaluator(mine, store), [guess(1)])
    theirs.end(guess(1))
    assert first.result(SECONDS) == second.result(SECONDS) == [Score((0.75,))]
    assert mine.begun == []


def test_whoever_waits_for_long_says_once_for_what_and_for_whom(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_evaluator, "TELL_SECONDS", 0.0)
    store, mine, said, told = MemoryStore(), Slow(), list[str](), Event()
    name = f"evaluate {guess(1).recipe.digest} under {mine.protocol.digest}"
    store.take_lease(name, owner="far/7/helper", seconds=SECONDS)
    looks = iter(range(4))

    def close() -> None:  # between two looks
        if next(looks, None) is None:
            told.set()

    monkeypatch.setattr(store, "close", close)
    waiting = begin(SharedEvaluator(mine, store, say=said.append), [guess(1)])
    assert told.wait(SECONDS)
    store.release_lease(name, owner="far/7/helper")
    mine.end(guess(1))
    waiting.result(SECONDS)
    (line,) = said
    what = f"waiting for the evaluation of {short(guess(1).recipe.digest)} on split {mine.protocol.split} by "
    assert line.startswith(f"{what}process 7 on far, since 20")


def test_an_evaluation_that_hangs_is_taken_over_and_one_that_goes_on_is_not(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(shared_evaluator, "HANGS", 2)
    store, hangs, mine = MemoryStore(), Event(), Slow(score=0.5)
    entered = Event()

    class Hanging(TableEvaluator):
        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            entered.set()
            assert hangs.wait(SECONDS)
            return super().evaluate(trials, then=then, wanted=wanted)

    first = begin(SharedEvaluator(Hanging(lambda _: [0.75], n=1), store), [guess(1)])
    assert entered.wait(SECONDS)
    second = begin(SharedEvaluator(mine, store), [guess(1)])
    mine.see("begun", guess(1))
    third = SharedEvaluator(TableEvaluator(lambda _: [0.25], n=1), store)
    for _ in leases.pauses(store, 0.05, 0.05):  # far beyond two renewals: the second one goes on
        assert third.attempt(guess(1)) is None
        if mine.looked >= 100:
            break
    mine.end(guess(1))
    assert second.result(SECONDS) == [Score((0.5,))]
    hangs.set()
    assert first.result(SECONDS) == [Score((0.5,))], "the first one counts"


def test_who_has_to_wait_goes_on_with_what_may_come_next(begin: Begin) -> None:
    store, mine, theirs = MemoryStore(), Slow(), Slow()
    trials = [guess(1), guess(2), guess(3)]
    first = begin(SharedEvaluator(theirs, store), trials[:1], trials[1:])
    theirs.see("begun", guess(1))
    second = begin(SharedEvaluator(mine, store), trials[:1], trials[1:])
    mine.end(guess(2))
    mine.see("begun", guess(3))
    theirs.end(guess(1))
    assert first.result(SECONDS) == [Score((0.0,))]
    mine.end(guess(3))
    assert second.result(SECONDS) == [Score((0.0,))]
    assert (theirs.begun, mine.begun) == ([guess(1)], [guess(2), guess(3)])
    again = SharedEvaluator(TableEvaluator(lambda _: [1.0], n=1), store)
    assert again.evaluate(trials) == [Score((0.0,))] * 3
    assert again.started == 0


def test_a_guess_is_given_up_once_the_trial_before_it_is_accepted(begin: Begin) -> None:
    store, mine, theirs = MemoryStore(), Slow(), Slow(score=1.0)
    begin(SharedEvaluator(theirs, store), [guess(1)])
    theirs.see("begun", guess(1))
    waiting = begin(SharedEvaluator(mine, store), [guess(1)], [guess(2)])
    mine.see("begun", guess(2))
    theirs.end(guess(1))
    mine.see("given up", guess(2))
    assert waiting.result(SECONDS) == [Score((1.0,))]
    late = SharedEvaluator(TableEvaluator(lambda _: [0.5], n=1), store)
    assert late.evaluate([guess(2)]) == [Score((0.5,))], "its lease was given back"


def test_a_guess_that_fails_is_no_error_until_it_is_asked_for(begin: Begin) -> None:
    broken = BadTask("the task fails here")
    store, mine, theirs = MemoryStore(), Slow(errors=[(guess(2), broken)]), Slow()
    begin(SharedEvaluator(theirs, store), [guess(1)])
    theirs.see("begun", guess(1))
    shared = SharedEvaluator(mine, store)
    waiting = begin(shared, [guess(1)], [guess(2), guess(3)])
    mine.end(guess(2))
    mine.see("begun", guess(3))
    mine.end(guess(3))
    theirs.end(guess(1))
    assert waiting.result(SECONDS) == [Score((0.0,))]
    assert mine.begun == [guess(2), guess(3)], "once"
    with pytest.raises(BadTask) as raised:
        shared.evaluate([guess(2)])
    assert raised.value is broken


def test_dependence_on_order_that_a_guess_found_is_told_although_nobody_asked(begin: Begin) -> None:
    found = OrderDependent("outputs depend on their neighbours")
    store, mine, theirs = MemoryStore(), Slow(errors=[(guess(2), found)]), Slow()
    begin(SharedEvaluator(theirs, store), [guess(1)])
    theirs.see("begun", guess(1))
    waiting = begin(SharedEvaluator(mine, store), [guess(1)], [guess(2)])
    mine.end(guess(2))
    with pytest.raises(OrderDependent, match="neighbours"):
        waiting.result(SECONDS)
    assert store.mixed_bounds_withdrawn(mine.protocol.digest)
    theirs.end(guess(1))


def test_what_a_dead_process_was_evaluating_is_taken_over_when_its_lease_runs_out(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.3)
    store, mine = MemoryStore(), Slow(score=0.5)
    name = f"evaluate {guess(1).recipe.digest} under {mine.protocol.digest}"
    store.take_lease(name, owner="dead", seconds=0.3)
    waiting = begin(SharedEvaluator(mine, store), [guess(1)])
    mine.see("begun", guess(1))
    mine.end(guess(1))
    assert waiting.result(SECONDS) == [Score((0.5,))]
    assert store.holder(name) is None


def test_a_lease_that_is_lost_costs_an_evaluation_and_no_answer(begin: Begin) -> None:
    store, mine, theirs = MemoryStore(), Slow(score=0.25), Slow(score=0.75)
    waiting = begin(SharedEvaluator(mine, store), [guess(1)])
    mine.see("begun", guess(1))
    name = f"evaluate {guess(1).recipe.digest} under {mine.protocol.digest}"
    (held,) = [store.holder(name)]
    assert held is not None
    store.release_lease(name, owner=held.owner)  # as if it had run out while the process stood still
    theirs.end(guess(1))
    assert SharedEvaluator(theirs, store).evaluate([guess(1)]) == [Score((0.75,))]
    mine.end(guess(1))
    assert waiting.result(SECONDS) == [Score((0.75,))], "the first one counts"


def test_once_nothing_is_wanted_the_evaluation_ends_and_gives_its_lease_back(begin: Begin) -> None:
    store, mine, wanted = MemoryStore(), Slow(), Event()
    wanted.set()
    shared = SharedEvaluator(mine, store, wanted=wanted.is_set)
    waiting = begin(shared, [guess(1)])
    mine.see("begun", guess(1))
    wanted.clear()
    with pytest.raises(Interrupted):
        waiting.result(SECONDS)
    with pytest.raises(Interrupted):
        shared.attempt(guess(2))
    assert store.holder(f"evaluate {guess(1).recipe.digest} under {mine.protocol.digest}") is None


def test_units_that_nobody_evaluates_come_first_and_each_is_evaluated_once() -> None:
    store, mine, theirs = MemoryStore(), TableEvaluator(lambda _: [0.5], n=1), Slow(score=0.75)
    shared, other = SharedEvaluator(mine, store), SharedEvaluator(theirs, store)
    with ThreadPoolExecutor() as pool:
        pool.submit(other.evaluate, [Trial(SINGLES[1])])
        theirs.see("begun", Trial(SINGLES[1]))
        seen: list[tuple[Recipe, float]] = []
        for unit, score in settled([Unit(recipe, shared) for recipe in SINGLES[:4]]):
            seen.append((unit.recipe, score.value))
            if len(seen) == 3:
                theirs.end(Trial(SINGLES[1]))
    assert seen == [*((SINGLES[place], 0.5) for place in (0, 2, 3)), (SINGLES[1], 0.75)]
    assert (shared.started, other.started) == (3, 1)


def test_optional_units_come_last_and_until_it_is_time_to_stop() -> None:
    shared = SharedEvaluator(TableEvaluator(lambda _: [0.5], n=1), MemoryStore())
    units = [Unit(recipe, shared) for recipe in SINGLES]
    late = iter([False])
    seen = [unit for unit, _ in settled(units[3:5], units[:3], lambda: next(late, True))]
    assert seen == [*units[3:5], units[0]]


def test_a_bound_that_another_process_found_answers() -> None:
    store, trial = MemoryStore(), guess(1, threshold=0.9)
    table = TableEvaluator(lambda _: [0.0, 0.0], n=2, greatest=1.0)
    assert SharedEvaluator(table, store).evaluate([trial]) == [Bound(0.5)]
    other = SharedEvaluator(table, store)
    assert other.attempt(trial) == Bound(0.5)
    assert other.started == 0
