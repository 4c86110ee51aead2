"""Speculation: the plain loop's answer, in fewer rounds, whatever the devices do."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, Thread
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.entities import (
    Accept,
    Contender,
    Outcome,
    Recipe,
    Score,
    Threshold,
    Trial,
    digest_of_bytes,
)
from stockpot.errors import BadRequest, BadTask, StockpotError
from stockpot.evaluation.rejection.order_dependence import OrderDependent
from stockpot.evaluation.speculation.device_threads import DeviceThreads
from stockpot.evaluation.speculation.interruption import Interrupted
from stockpot.evaluation.speculation.speculating_evaluator import SpeculatingEvaluator
from stockpot.evaluation.speculation.width import Width
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.testing.evaluators import TableEvaluator

Scores = Callable[[Recipe], Sequence[float]]
DIGESTS = [digest_of_bytes(b"weights %d" % place) for place in range(80)]
CONTENDERS = [Contender(digest, f"run-{place:03}", place) for place, digest in enumerate(DIGESTS)]
ACCEPTED = (1, 10, 16, 17)
N = 4


def names(k: int) -> list[str]:
    return [f"device {place}" for place in range(k)]


def soup(*places: int) -> Recipe:
    return Recipe.mean([DIGESTS[place] for place in places])


def guess(place: int, threshold: float = 0.5) -> Trial:
    """A trial of a soup with this one last."""
    return Trial(soup(0, place), Threshold(threshold, strict=False))


def published(recipe: Recipe) -> tuple[float, ...]:
    """The published trace: the singles in their order, then a gain from each accepted rank, else a loss."""
    last = DIGESTS.index(recipe.checkpoints[-1])
    if not recipe.is_soup:
        return (0.5 - last / 1000,)
    gained = sum(DIGESTS.index(digest) in ACCEPTED for digest in recipe.checkpoints)
    return (0.5 + gained / 1000 - (0 if last in ACCEPTED else 0.1),)


# The published trace, in steps of time


class LockStep:
    """Devices that each need one tick of this clock per evaluation, however fast the threads are."""

    def __init__(self, k: int) -> None:
        self.threads = DeviceThreads(names(k))
        self.rounds = self.evaluations = 0
        self.evaluators = [Ticking(self, place) for place in range(k)]
        self.over = False
        # One condition for all, so that the clock sees the threads and the evaluations as of one moment.
        self.changed = self.threads._changed
        self._clock = Thread(target=self._tick)
        self._clock.start()

    def finish(self) -> None:
        with self.changed:
            self.over = True
            self.changed.notify_all()
        self._clock.join()
        self.threads.close()

    def _tick(self) -> None:
        with self.changed:
            while self.changed.wait_for(lambda: self.over or self._at_rest()) and not self.over:
                self.rounds += 1
                for evaluator in self.evaluators:
                    self.evaluations += evaluator.inside
                    evaluator.inside = False
                self.changed.notify_all()

    def _at_rest(self) -> bool:
        """Whether nothing can happen before time goes on: someone waits, and whoever can evaluates."""
        running = self.threads._running
        inside = [evaluator.inside for evaluator in self.evaluators]
        return (
            any(e is not None and e.asked for e in running)
            and [e is not None for e in running] == inside
            and not any(e.unwanted for e in running if e is not None)
            and (all(inside) or self.threads._next() is None)
        )


class Ticking(TableEvaluator):
    interrupted: Callable[[], bool]

    def __init__(self, steps: LockStep, place: int) -> None:
        super().__init__(published, n=1)
        self.interrupted = lambda: False
        self.inside = False
        self._steps = steps
        self._place = place

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        with self._steps.changed:
            self.inside = True
            self._steps.changed.notify_all()
            self._steps.changed.wait_for(lambda: not self.inside or self.interrupted())
            if self.inside:
                self.inside = False
                raise Interrupted
        return super().evaluate(trials, then=then)


def ranked(count: int, scores: Scores) -> Greedy:
    method = Greedy(CONTENDERS[:count], accept=Accept.BETTER)
    for trial in method.ask():
        method.tell(trial, Score(tuple(scores(trial.recipe))))
    return method


@pytest.mark.parametrize(
    ("k", "rounds", "wasted"), [(1, 71, 0), (2, 37, 3), (4, 21, 8), (8, 12, 17), (16, 8, 35)]
)
def test_the_published_trace_takes_few_rounds(k: int, rounds: int, wasted: int) -> None:
    steps = LockStep(k)
    try:
        selection = run_selection(
            ranked(72, published), SpeculatingEvaluator(steps.evaluators, steps.threads)
        )
    finally:
        steps.finish()
    plain = run_selection(ranked(72, published), TableEvaluator(published, n=1))
    assert selection == plain
    kept = [step.tried[-1] for step in plain.steps[72:] if step.kept]
    assert [DIGESTS.index(digest) for digest in kept] == list(ACCEPTED)
    print(f"k = {k}: {steps.rounds} rounds, {steps.evaluations - 71} wasted")  # noqa: T201 - seen with -s
    assert (steps.rounds, steps.evaluations - 71) == (rounds, wasted)


# The plain loop's answer


def random_table(seed: int) -> tuple[list[Contender], Scores]:
    """Contenders with ties, and scores with ties and, now and then, NaN."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    contenders = CONTENDERS[: dice.randint(1, 9)]
    levels, nan_rate = dice.choice([2, 3, 11]), dice.choice([0.0, 0.0, 0.1])

    def scores(recipe: Recipe) -> tuple[float, ...]:
        own = random.Random(f"{seed} {recipe.digest}")  # noqa: S311 - no secret
        drawn = [own.randrange(levels) / (levels - 1) for _ in range(N)]
        return (math.nan, *drawn[1:]) if own.random() < nan_rate else tuple(drawn)

    return contenders, scores


@pytest.mark.parametrize("greatest", [None, 1.0], ids=["full passes", "early rejection"])
@pytest.mark.parametrize("accept", list(Accept))
@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_the_search_is_the_plain_one_on_hundreds_of_instances(
    k: int, accept: Accept, greatest: float | None
) -> None:
    kept: Counter[Recipe] = Counter()
    with DeviceThreads(names(k)) as threads:
        for seed in range(100):
            contenders, scores = random_table(seed)
            tables = [TableEvaluator(scores, n=N, greatest=greatest) for _ in range(k)]
            evaluator = SpeculatingEvaluator(tables, threads, keep=lambda recipe, _: kept.update([recipe]))
            found = run_selection(Greedy(contenders, accept=accept), evaluator)
            plain = run_selection(
                Greedy(contenders, accept=accept), TableEvaluator(scores, n=N, greatest=greatest)
            )
            assert repr(found) == repr(plain), seed  # NaN included
    assert not any(thread.is_alive() for thread in threads._threads)
    assert all(recipe.is_soup for recipe in kept), "every single is asked for"


@given(
    table=st.lists(st.floats(allow_infinity=False), min_size=32, max_size=32),
    k=st.integers(1, 6),
    accept=st.sampled_from(Accept),
)
@settings(max_examples=60, deadline=None)
def test_the_search_is_the_plain_one_for_any_table_of_scores(
    table: Sequence[float], k: int, accept: Accept
) -> None:
    def scores(recipe: Recipe) -> tuple[float, ...]:
        return (table[sum(1 << DIGESTS.index(digest) for digest in recipe.checkpoints)],)

    with DeviceThreads(names(k)) as threads:
        evaluator = SpeculatingEvaluator([TableEvaluator(scores, n=1) for _ in range(k)], threads)
        found = run_selection(Greedy(CONTENDERS[:5], accept=accept), evaluator)
    assert repr(found) == repr(
        run_selection(Greedy(CONTENDERS[:5], accept=accept), TableEvaluator(scores, n=1))
    )


@pytest.mark.parametrize("most", range(1, 17))
def test_the_width_shrinks_upon_acceptance_and_grows_back(most: int) -> None:
    width = Width(most)
    seen = [width.now]
    for accepted in [False, True, True, *[False] * most]:
        width.heed(accepted=accepted)
        seen.append(width.now)
    shrunk = math.ceil(most * 3 / 4)
    assert seen[:4] == [most, most, shrunk, shrunk]
    assert seen[3:] == sorted(seen[3:])
    assert seen[-1] == most


# What begins and ends when


class Desk:
    """Devices whose evaluations end when the test says so; `stubborn` ones cannot be interrupted."""

    def __init__(self, k: int, *, scores: Scores = lambda _: (0.0,), stubborn: bool = False) -> None:
        self.begun: list[Trial] = []
        self.interrupted: list[Trial] = []
        self.said: list[str] = []
        self.kept: list[Recipe] = []
        self.threads = DeviceThreads(names(k), lost=lambda e: isinstance(e, GoneError), say=self.said.append)
        self.changed = self.threads._changed
        self.endings: dict[Trial, BaseException | None] = {}
        kind = AtDesk if stubborn else Interruptible
        self.evaluators = [kind(scores, self) for _ in range(k)]
        self.evaluator = SpeculatingEvaluator(
            self.evaluators, self.threads, keep=lambda recipe, _: self.kept.append(recipe)
        )

    def end(self, *trials: Trial, error: BaseException | None = None) -> None:
        """Let these end, now or as soon as they are begun."""
        with self.changed:
            self.endings |= dict.fromkeys(trials, error)
            self.changed.notify_all()

    def see_begun(self, *trials: Trial) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(trials) <= set(self.begun), timeout=30)

    def see_interrupted(self, *trials: Trial) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(trials) <= set(self.interrupted), timeout=30)

    def see_needless(self) -> None:
        """Until somebody has given up what the first device evaluates."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.threads.interrupted(0), timeout=30)

    def ask(self, trials: Sequence[Trial], then: Sequence[Trial] = ()) -> "Asking":
        return Asking(partial(self.evaluator.evaluate, trials, then=then))


class GoneError(RuntimeError):
    """What a driver says of a device that fell off the bus."""


class AtDesk(TableEvaluator):
    def __init__(self, scores: Scores, desk: Desk) -> None:
        super().__init__(scores, n=1, greatest=None)
        self.told = 0
        self.then: list[Sequence[Trial]] = []
        self._desk = desk

    def given_up(self) -> bool:
        return False

    @property
    def order_dependent(self) -> bool:
        return self.told > 0

    def keep_batches(self) -> None:
        self.told += 1

    def confirm(self) -> None:
        """Nothing was found."""

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        desk, (trial,) = self._desk, trials
        with desk.changed:
            self.then.append(then)
            desk.begun.append(trial)
            desk.changed.notify_all()
            desk.changed.wait_for(lambda: trial in desk.endings or self.given_up())
            if trial not in desk.endings:
                desk.interrupted.append(trial)
                desk.changed.notify_all()
                raise Interrupted
            error = desk.endings[trial]
            if isinstance(error, GoneError):
                del desk.endings[trial]
        if error is not None:
            raise error
        return super().evaluate(trials)


class Interruptible(AtDesk):
    def __init__(self, scores: Scores, desk: Desk) -> None:
        super().__init__(scores, desk)
        self.interrupted: Callable[[], bool] = lambda: False

    def given_up(self) -> bool:
        return self.interrupted()


class Asking(Thread):
    """A call of the evaluator under way."""

    def __init__(self, call: Callable[[], list[Outcome] | None]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._outcomes: list[Outcome] | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcomes = self._call()
        except BaseException as error:  # noqa: BLE001 - told to the test
            self._error = error

    def outcomes(self) -> list[Outcome]:
        self.join(30)
        assert not self.is_alive(), "the caller hangs"
        if self._error is not None:
            raise self._error
        return cast("list[Outcome]", self._outcomes)


def test_a_free_device_goes_on_while_another_is_slow() -> None:
    desk = Desk(2)
    with desk.threads:
        asking = desk.ask([guess(1)], [guess(2), guess(3), guess(4)])
        desk.see_begun(guess(1), guess(2))
        desk.end(guess(2), guess(3))
        desk.see_begun(guess(3), guess(4))
        desk.end(guess(1))
        assert asking.outcomes() == [Score((0.0,))]
        desk.end(guess(4))
        later = [guess(2), guess(3), guess(4)]
        for place, trial in enumerate(later, start=1):
            assert desk.ask([trial], later[place:]).outcomes() == [Score((0.0,))]
    assert Counter(desk.begun) == Counter([guess(1), *later]), "each once"
    assert desk.evaluator.wasted == 0


def test_a_device_hears_what_may_come_next_to_prepare_for_it() -> None:
    desk = Desk(1)
    with desk.threads:
        desk.end(guess(1))
        desk.ask([guess(1)], [guess(2), guess(3)]).outcomes()
    assert desk.evaluators[0].then[0] == [guess(2), guess(3)]


def test_trials_asked_for_together_run_side_by_side_and_are_answered_in_order() -> None:
    singles = [Trial(soup(place)) for place in range(3)]
    desk = Desk(3, scores=lambda recipe: (DIGESTS.index(recipe.checkpoints[0]) / 10,))
    with desk.threads:
        asking = desk.ask(singles)
        desk.see_begun(*singles)
        desk.end(*singles[::-1])
        assert asking.outcomes() == [Score((0.0,)), Score((0.1,)), Score((0.2,))]


def test_obsolete_guesses_are_interrupted_or_never_begun() -> None:
    desk = Desk(2)
    with desk.threads:
        asking = desk.ask([guess(1)], [guess(2), guess(3), guess(4)])
        desk.see_begun(guess(1), guess(2))
        desk.end(guess(1))
        asking.outcomes()
        desk.see_begun(guess(3))
        asking = desk.ask([guess(5)], [guess(6)])
        desk.see_interrupted(guess(2), guess(3))
        desk.end(guess(5), guess(6))
        asking.outcomes()
    assert guess(4) not in desk.begun
    desk.evaluator.settle()
    assert desk.evaluator.wasted == 3, "those, and one that ended and was never asked for"
    assert desk.kept == [guess(6).recipe]


def test_an_accepted_trial_ends_the_guesses_after_it_before_anybody_asks() -> None:
    desk = Desk(3, scores=lambda recipe: (1.0 if recipe == guess(2).recipe else 0.0,))
    with desk.threads:
        asking = desk.ask([guess(1)], [guess(2), guess(3), guess(4)])
        desk.see_begun(guess(1), guess(2), guess(3))
        desk.end(guess(2))
        desk.see_interrupted(guess(3))
        desk.end(guess(1))
        assert asking.outcomes() == [Score((0.0,))]
        assert desk.ask([guess(2)]).outcomes() == [Score((1.0,))]
    assert guess(4) not in desk.begun


def test_a_completed_guess_is_kept_and_answers_later_whatever_its_threshold() -> None:
    desk = Desk(2, scores=lambda _: (0.25,), stubborn=True)
    with desk.threads:
        desk.end(guess(1), guess(5))
        asking = desk.ask([guess(1)], [guess(2)])
        desk.see_begun(guess(2))
        asking.outcomes()
        desk.ask([guess(5)]).outcomes()
        desk.end(guess(2))
        desk.threads.rest()
        desk.ask([guess(5)]).outcomes()
        assert desk.kept == [guess(2).recipe]
        assert desk.ask([guess(2, threshold=0.75)]).outcomes() == [Score((0.25,))]
    assert desk.begun.count(guess(2)) == 1
    assert desk.evaluator.wasted == 1


def test_a_guess_that_fails_is_no_error_until_it_is_asked_for() -> None:
    desk = Desk(2)
    with desk.threads:
        broken = BadTask("the task fails here")
        desk.end(guess(2), error=broken)
        desk.end(guess(1), guess(3), guess(4))
        assert desk.ask([guess(1)], [guess(2), guess(3)]).outcomes()
        assert desk.ask([guess(4)]).outcomes()
        asking = desk.ask([guess(1)], [guess(2)])
        asking.outcomes()
        desk.see_begun(guess(2))
        with pytest.raises(BadTask) as raised:
            desk.ask([guess(2)]).outcomes()
        assert raised.value is broken


def test_an_asked_trial_that_fails_interrupts_the_guesses() -> None:
    desk = Desk(2)
    with desk.threads:
        asking = desk.ask([guess(1)], [guess(2), guess(3)])
        desk.see_begun(guess(1), guess(2))
        desk.end(guess(1), error=BadTask("the task fails here"))
        desk.see_interrupted(guess(2))
        with pytest.raises(BadTask, match="fails here"):
            asking.outcomes()
        desk.threads.rest()
    assert set(desk.begun) - {guess(1)} == set(desk.interrupted)
    assert desk.said == [], "no device is to blame"


def test_dependence_on_order_that_a_guess_found_is_told_although_nobody_asked() -> None:
    desk = Desk(2)
    with desk.threads:
        desk.end(guess(2), error=OrderDependent("outputs depend on their neighbours"))
        asking = desk.ask([guess(1)], [guess(2), guess(3)])
        desk.see_begun(guess(1), guess(2), guess(3))
        desk.end(guess(1))
        with pytest.raises(OrderDependent, match="neighbours"):
            asking.outcomes()
        assert [e.told for e in desk.evaluators] == [1, 1], "every device is told"
        desk.end(guess(2))
        assert desk.ask([guess(1)], [guess(2)]).outcomes() == [Score((0.0,))], "once"


def test_a_search_is_not_confirmed_before_the_last_guess_has_told_what_it_found() -> None:
    desk = Desk(1, stubborn=True)
    with desk.threads:
        desk.end(guess(1))
        desk.ask([guess(1)], [guess(2)]).outcomes()
        desk.see_begun(guess(2))
        confirming = Asking(desk.evaluator.confirm)
        desk.see_needless()
        confirming.join(0.3)  # one that waits for nothing is over by then
        desk.end(guess(2), error=OrderDependent("outputs depend on their neighbours"))
        with pytest.raises(OrderDependent, match="neighbours"):
            confirming.outcomes()
        desk.evaluator.confirm()


def test_an_outcome_that_cannot_be_compared_is_an_error_and_the_device_goes_on() -> None:
    desk = Desk(1, scores=lambda r: cast("Sequence[float]", ["none"]) if r == guess(1).recipe else (0.5,))
    with desk.threads:
        desk.end(guess(1), guess(2))
        with pytest.raises(TypeError, match="real number"):
            desk.ask([guess(1)]).outcomes()
        assert desk.ask([guess(2)]).outcomes() == [Score((0.5,))]


# Devices that go, people who leave


def test_a_device_that_is_gone_is_told_and_the_others_take_over() -> None:
    desk = Desk(2)
    with desk.threads:
        asking = desk.ask([guess(1)], [guess(2)])
        desk.see_begun(guess(1), guess(2))
        desk.end(guess(1), error=GoneError("CUDA error: unspecified launch failure\nmore about it"))
        desk.end(guess(2))
        with desk.changed:
            assert desk.changed.wait_for(lambda: desk.begun.count(guess(1)) == 2, timeout=30)
        desk.end(guess(1))
        assert asking.outcomes() == [Score((0.0,))]
        assert desk.ask([guess(2)]).outcomes() == [Score((0.0,))]
    (said,) = desk.said
    assert "take over" in said
    assert said.endswith(": CUDA error: unspecified launch failure")


@pytest.mark.parametrize(("said", "told"), [("off the bus", "off the bus"), ("", "GoneError")])
def test_when_the_last_device_is_gone_the_error_names_them_and_the_mend(said: str, told: str) -> None:
    desk = Desk(2)
    with desk.threads:
        asking = desk.ask([guess(1)], [guess(2)])
        desk.see_begun(guess(1), guess(2))
        desk.end(guess(1), guess(2), error=GoneError(said))
        with pytest.raises(StockpotError, match="no device is left") as raised:
            asking.outcomes()
        assert sorted(raised.value.faults) == [f"device 0: {told}", f"device 1: {told}"]
        assert "same command again" in raised.value.mend
        with pytest.raises(StockpotError, match="no device is left"):
            desk.ask([guess(1)]).outcomes()


def test_control_c_reaches_the_caller_and_the_threads_end(press_control_c: Callable[[], None]) -> None:
    desk = Desk(2)

    def press_once_begun() -> None:
        desk.see_begun(guess(1), guess(2))
        press_control_c()

    pressing = Thread(target=press_once_begun)
    pressing.start()
    with desk.threads, pytest.raises(KeyboardInterrupt):
        desk.evaluator.evaluate([guess(1)], then=[guess(2), guess(3)])
    pressing.join()
    assert set(desk.interrupted) >= {guess(2)}
    assert not any(thread.is_alive() for thread in desk.threads._threads)


def test_devices_of_different_models_are_refused_with_what_differs() -> None:
    with DeviceThreads(names(2)) as threads, pytest.raises(BadRequest) as raised:
        SpeculatingEvaluator(
            [TableEvaluator(published, n=1), TableEvaluator(published, n=1, split="test")], threads
        )
    assert any("device 2: split: test here, validation there" in fault for fault in raised.value.faults)
    assert "STOCKPOT_DEVICE" in raised.value.mend


def test_two_splits_share_the_devices_one_at_a_time() -> None:
    """A live module holds one recipe: what one split left running ends before another's uses the device."""
    desk = Desk(1, stubborn=True)
    other = TableEvaluator(lambda _: (0.75,), n=1, split="test")
    with desk.threads:
        desk.end(guess(1))
        asking = desk.ask([guess(1)], [guess(2)])
        asking.outcomes()
        desk.see_begun(guess(2))
        blocked = Event()

        def ask_other() -> None:
            SpeculatingEvaluator([other], desk.threads).evaluate([guess(3)])
            blocked.set()

        thread = Thread(target=ask_other)
        thread.start()
        desk.see_needless()
        assert not other.trials
        desk.end(guess(2))
        assert blocked.wait(30)
        thread.join()
    assert other.trials == [guess(3)]
