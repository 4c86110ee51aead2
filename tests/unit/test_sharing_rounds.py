"""A search that many share: the plain loop's answer, in fewer rounds, whoever does what."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, get_ident

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.entities import (
    Accept,
    Composition,
    Contender,
    EvaluationProtocol,
    Lease,
    Outcome,
    Recipe,
    Score,
    Selection,
    Trial,
    digest_of_bytes,
)
from stockpot.ports import Interrupted, Store, Wanted, always
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow.sharing import shared_evaluator
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

Scores = Callable[[Composition], Sequence[float]]
DIGESTS = [digest_of_bytes(b"weights %d" % place) for place in range(80)]
CONTENDERS = [Contender(digest, f"run-{place:03}", place) for place, digest in enumerate(DIGESTS)]
ACCEPTED = (1, 10, 16, 17)
N = 4


def published(recipe: Composition) -> tuple[float, ...]:
    """The published trace: the singles in their order, then a gain from each accepted rank, else a loss."""
    last = DIGESTS.index(recipe.checkpoints[-1])
    if not recipe.is_soup:
        return (0.5 - last / 1000,)
    gained = sum(DIGESTS.index(digest) in ACCEPTED for digest in recipe.checkpoints)
    return (0.5 + gained / 1000 - (0 if last in ACCEPTED else 0.1),)


class Rounds:
    """A clock for processes that each need one round per evaluation, however fast their threads are.

    A round ends when everybody evaluates, or has nothing to evaluate, as things stand since the last lease
    was given back. What an evaluation is told of within its round costs nothing: to be given up, for example.
    """

    def __init__(self, processes: int) -> None:
        self.rounds = self.evaluations = 0
        self._there = processes
        self.news = 0
        self._resting: dict[int, int] = {}
        """Who waits, and which news each knows."""
        self._evaluating = 0
        self._changed = Condition()

    def evaluate(self, wanted: Wanted) -> None:
        with self._changed:
            self._evaluating += 1
            begun = self.rounds
            resting = True
            while resting:
                if not wanted():  # asked before the first batch, too, as real evaluators do
                    self._evaluating -= 1
                    raise Interrupted
                resting = self._rest()
            assert self.rounds == begun + 1
            self.evaluations += 1

    def pause(self, known: int) -> int:
        """By somebody who found nothing to do when so much was known. Returns what is now."""
        with self._changed:
            if self.news == known:
                self._rest()
            return self.news

    def stir(self, *, leaves: bool = False) -> None:
        """There may be something to do for those who found nothing."""
        with self._changed:
            self.news += 1
            self._there -= leaves
            self._changed.notify_all()

    def _rest(self) -> bool:
        """Until something is new. Whether that came before the round was over."""
        now, known = self.rounds, self.news
        self._resting[get_ident()] = known
        if self._evaluating and [*self._resting.values()] == [self.news] * self._there:
            self.rounds += 1
            self._evaluating, self._resting = 0, {}
            self._changed.notify_all()
        self._changed.wait_for(lambda: (self.rounds, self.news) != (now, known))
        self._resting.pop(get_ident(), None)
        return self.rounds == now


class Ticking(TableEvaluator):
    def __init__(self, clock: Rounds) -> None:
        super().__init__(published, n=1)
        self._clock = clock

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        self._clock.evaluate(wanted)
        return super().evaluate(trials, then=then, wanted=wanted)


class Stirring(MemoryStore):
    def __init__(self, clock: Rounds) -> None:
        super().__init__()
        self._clock = clock

    def release_lease(self, name: str, *, owner: str) -> None:
        super().release_lease(name, owner=owner)
        self._clock.stir()

    def commit_score(
        self, recipe: Composition, protocol: EvaluationProtocol, score: Score, *, lease: Lease | None = None
    ) -> Score:
        committed = super().commit_score(recipe, protocol, score, lease=lease)
        self._clock.stir()
        return committed


class InRounds(SharedEvaluator):
    def __init__(self, clock: Rounds, store: Store) -> None:
        super().__init__(Ticking(clock), store)
        self._clock = clock

    def pauses(self) -> Iterator[None]:
        known = -1
        while True:
            known = self._clock.pause(known)
            yield


def ranked(count: int, scores: Scores) -> Greedy:
    method = Greedy(CONTENDERS[:count], accept=Accept.BETTER)
    for trial in method.ask():
        method.tell(trial, Score(tuple(scores(trial.recipe))))
    return method


def shared_search(processes: int) -> tuple[Rounds, list[Selection]]:
    """The published trace, searched by so many processes at once."""
    clock = Rounds(processes)
    store = Stirring(clock)

    def search(_: int) -> Selection:
        try:
            return run_selection(ranked(72, published), InRounds(clock, store))
        finally:
            clock.stir(leaves=True)

    with ThreadPoolExecutor(processes) as pool:
        return clock, list(pool.map(search, range(processes)))


@pytest.mark.parametrize(("processes", "most"), [(1, 71), (2, 37), (4, 21), (8, 12), (16, 8)])
def test_the_published_trace_takes_few_rounds(
    processes: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_evaluator, "LOOK_SECONDS", 0.0)
    clock, found = shared_search(processes)
    plain = run_selection(ranked(72, published), TableEvaluator(published, n=1))
    assert found == [plain] * processes
    kept = [step.tried[-1] for step in plain.steps[72:] if step.kept]
    assert [DIGESTS.index(digest) for digest in kept] == list(ACCEPTED)
    print(f"{processes} processes: {clock.rounds} rounds, {clock.evaluations - 71} wasted")  # noqa: T201 - seen with -s
    assert clock.rounds <= most
    assert clock.evaluations - 71 <= processes * len(ACCEPTED)


# The plain loop's answer


def random_table(seed: int) -> tuple[list[Contender], Scores]:
    """Contenders with ties, and scores with ties and, now and then, NaN."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    contenders = CONTENDERS[: dice.randint(1, 9)]
    levels, nan_rate = dice.choice([2, 3, 11]), dice.choice([0.0, 0.0, 0.1])

    def scores(recipe: Composition) -> tuple[float, ...]:
        own = random.Random(f"{seed} {recipe.digest}")  # noqa: S311 - no secret
        drawn = [own.randrange(levels) / (levels - 1) for _ in range(N)]
        return (math.nan, *drawn[1:]) if own.random() < nan_rate else tuple(drawn)

    return contenders, scores


def searched_by(
    processes: int, contenders: Sequence[Contender], scores: Scores, accept: Accept, greatest: float | None
) -> tuple[list[Selection], int]:
    """What each of them found, and how many evaluations all of them began."""
    store, n = MemoryStore(), len(scores(Recipe.mean([contenders[0].checkpoint])))
    shared = [
        SharedEvaluator(TableEvaluator(scores, n=n, greatest=greatest), store) for _ in range(processes)
    ]
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(lambda e: run_selection(Greedy(contenders, accept=accept), e), shared))
    return found, sum(evaluator.started for evaluator in shared)


@pytest.mark.parametrize("greatest", [None, 1.0], ids=["full passes", "early rejection"])
@pytest.mark.parametrize("accept", list(Accept))
@pytest.mark.parametrize("processes", [1, 3, pytest.param(8, marks=pytest.mark.slow)])
def test_the_search_is_the_plain_one_on_hundreds_of_instances(
    processes: int, accept: Accept, greatest: float | None
) -> None:
    for seed in range(60):
        contenders, scores = random_table(seed)
        found, _ = searched_by(processes, contenders, scores, accept, greatest)
        table = TableEvaluator(scores, n=N, greatest=greatest)
        plain = run_selection(Greedy(contenders, accept=accept), table)
        decided = [(s.tried, s.kept) for s in plain.steps]
        for selection in found:
            assert repr((selection.recipe, selection.score)) == repr((plain.recipe, plain.score)), seed
            assert [(s.tried, s.kept) for s in selection.steps] == decided, seed


@given(
    table=st.lists(st.floats(allow_infinity=False), min_size=32, max_size=32),
    processes=st.integers(1, 4),
    accept=st.sampled_from(Accept),
)
@settings(max_examples=40, deadline=None)
def test_the_search_is_the_plain_one_for_any_table_of_scores(
    table: Sequence[float], processes: int, accept: Accept
) -> None:
    def scores(recipe: Composition) -> tuple[float, ...]:
        return (table[sum(1 << DIGESTS.index(digest) for digest in recipe.checkpoints)],)

    found, started = searched_by(processes, CONTENDERS[:5], scores, accept, None)
    plain = run_selection(Greedy(CONTENDERS[:5], accept=accept), TableEvaluator(scores, n=1))
    assert [repr(selection) for selection in found] == [repr(plain)] * processes
    if processes == 1:
        assert started == len(plain.steps)
