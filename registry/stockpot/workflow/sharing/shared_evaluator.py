"""Nothing is evaluated twice, by however many processes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

from stockpot.entities import (
    Aim,
    Bound,
    Composition,
    Digest,
    EvaluationProtocol,
    Lease,
    Outcome,
    Recipe,
    Score,
    Trial,
    short,
)
from stockpot.errors import BadCheckpoint, BadTask, OutOfDeviceMemory
from stockpot.ports import Evaluator, Interrupted, OrderDependent, Store, Wanted, always
from stockpot.selection import FORESEEN
from stockpot.workflow.leases import Hold, holder, pauses

POLL_SECONDS = 0.05, 2.0
"""Between two looks at what another process evaluates: the first of these at first, the second in the end."""
LOOK_SECONDS = 1.0
"""Between two looks, in the middle of an evaluation, at whether it is still wanted."""
TELL_SECONDS = 15.0
"""Of waiting for another process, after which that is said."""
HANGS = 180
"""Renewals of a lease, an hour's, without a batch: whoever needs that long for one hangs."""


class SharedEvaluator:
    """Answers from what was committed, and leases the rest, one trial at a time, for another evaluator.

    A committed score answers every trial of its recipe; a committed bound answers those whose threshold
    it puts out of reach. Each outcome is committed as it arrives, so that whatever ends the process loses
    at most the one evaluation under way. Where another process committed first, its score is the answer.

    Whoever has to wait for what another process evaluates goes on with what may be asked for next, if the
    outcomes until then are rejections. A guess is given up once it is seen to be needless; its error is
    raised when it is asked for, else never.

    Raises StoreError besides the inner one's errors. Once the inner one, or another process, knows that
    outputs depend on the batch, mixed bounds under the protocol are withdrawn, everybody's. Where one of them
    was an answer here, that raises OrderDependent: the search starts again.
    """

    def __init__(
        self,
        inner: Evaluator,
        store: Store,
        before: Callable[[Recipe], object] = lambda _: None,
        heed: Callable[[Recipe, Digest, Score], object] = lambda _recipe, _protocol, _score: None,
        wanted: Wanted = always,
        say: Callable[[str], object] = lambda _: None,
        aim: Aim | None = None,
        derived: Callable[[Recipe], Score | None] = lambda _: None,
    ) -> None:
        """`before`: called with each recipe that the inner evaluator is about to be asked for. `heed`: with
        each recipe's score that the store answers, and its protocol. `wanted`: whether anything is wanted any
        more; once it is not, every method raises Interrupted. `say`: told whom this process waits for. `aim`:
        how one number is made of examples of several domains. Scores of examples serve every aim, bounds
        only their own. `derived`: a recipe's score without a pass, where another split's scores tell it.
        """
        self.aim = aim
        self._bounds_under = inner.protocol if aim is None else inner.protocol.aimed(aim.name)
        self.started = 0
        """Evaluations that the inner evaluator was asked for, and those of parts."""
        self._whole: SharedEvaluator | None = None
        self._heeds = False
        """Whether it was asked what others have found, as it is before its own first evaluation."""
        self._inner = inner
        self._store = store
        self._before = before
        self._heed = heed
        self._wanted = wanted
        self._say = say
        self._derived = derived
        self._elsewhere: tuple[str, Lease] | None = None
        """What another process was last found to evaluate, in words, and its lease."""
        self._failed: set[Trial] = set()
        """Guesses that raised an error."""
        self._known: set[Trial] = set()
        """Those that were seen to have an answer: nobody needs to look again before they are asked for."""
        self._doubtful = False
        """Whether an answer was a mixed bound."""
        self._news = False
        """Whether the last trial had no answer: the next one is leased before it is looked up, once."""

    @property
    def protocol(self) -> EvaluationProtocol:
        """The inner evaluator's."""
        return self._inner.protocol

    def of_part(self, inner: Evaluator, derived: Callable[[Recipe], Score | None]) -> "SharedEvaluator":
        """Of a part of the split, by an evaluator of that, for the same job. Its passes count here."""
        part = SharedEvaluator(
            inner, self._store, self._before, self._heed, self._wanted, self._say, derived=derived
        )
        part._whole = self
        return part

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch."""
        return self._inner.order_dependent

    def keep_batches(self) -> None:
        """Let the inner one re-order no examples any more."""
        self._inner.keep_batches()

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order. Of what may come next, the inner one hears only
        what nothing committed answers, and nobody else evaluates.
        """
        coming = [*trials, *then]
        return [
            self._awaited(trial, coming[place : place + FORESEEN], wanted)
            for place, trial in enumerate(trials, start=1)
        ]

    def attempt(self, trial: Trial, *, then: Sequence[Trial] = (), wanted: Wanted = always) -> Outcome | None:
        """The outcome; None where another process is about to have it."""
        outcome = self._tried(trial, then, wanted)
        self._doubtful |= isinstance(outcome, Bound) and outcome.mixed
        return outcome

    def committed(self, recipe: Composition, scored: Callable[[], Score | None]) -> Score | None:
        """The committed score, else this one, which is committed then and takes no forward pass: nobody is
        kept from doing the same. None where there is neither.
        """
        self.require_wanted()
        score = self._store.score(recipe.digest, self.protocol.digest)
        if score is None and (found := scored()) is not None:
            score = self._store.commit_score(recipe, self.protocol, found)
        return None if score is None else self._aimed(score)

    def _aimed(self, score: Score) -> Score:
        return score if self.aim is None else replace(score, aim=self.aim)

    def confirm(self) -> None:
        """Make sure that no answer was a bound that somebody has withdrawn since. Raises OrderDependent."""
        self._heed_others()

    def pauses(self) -> Iterator[None]:
        """Between two attempts, where others evaluate all that is left. What takes long is said, once."""
        begun, told = monotonic(), False
        for _ in pauses(self._store, *POLL_SECONDS):
            if self._elsewhere and not told and monotonic() - begun >= TELL_SECONDS:
                told = True
                work, lease = self._elsewhere
                self._say(f"waiting for {work} by {holder(lease)}")
            yield

    def _awaited(self, trial: Trial, then: Sequence[Trial], wanted: Wanted) -> Outcome:
        waiting = self.pauses()
        while (outcome := self.attempt(trial, then=then, wanted=wanted)) is None:
            if not self._guessed(trial, then):
                next(waiting)
        return outcome

    def _guessed(self, asked: Trial, then: Sequence[Trial]) -> bool:
        """Evaluate the first that may come next and nobody evaluates; whether there was one."""
        for place, guess in enumerate(then, start=1):
            if guess in self._failed or not self._is_free(guess):
                continue
            try:
                outcome = self._tried(guess, then[place:], self._while_undecided(asked))
            except Interrupted:
                self.require_wanted()
                return True
            except OutOfDeviceMemory:
                raise
            except (BadTask, BadCheckpoint):
                self._failed.add(guess)
                return True
            if outcome is not None:
                return True
        return False

    def _while_undecided(self, asked: Trial) -> Wanted:
        """Whether what follows a rejection is wanted: until the asked trial turns out to be accepted."""
        looked = monotonic()

        def wanted() -> bool:
            nonlocal looked
            if monotonic() - looked < LOOK_SECONDS:
                return True
            looked = monotonic()
            score = self._remembered(Trial(asked.recipe))
            return not isinstance(score, Score) or not _is_accepted(asked, score)

        return wanted

    def _tried(self, trial: Trial, then: Sequence[Trial], wanted: Wanted) -> Outcome | None:
        self.require_wanted()
        outcome = None if self._news else self._remembered(trial)
        if outcome is not None:
            return outcome
        work = f"the evaluation of {short(trial.recipe.digest)} on split {self.protocol.split}"
        hold = Hold(self._store, self._lease(trial), work, most_renewals=HANGS)
        if (held := hold.attempt()) is not None:
            self._elsewhere = work, held
            return self._remembered(trial) if self._news else None
        with hold.kept_alive():
            outcome = self._remembered(trial)
            self._news = outcome is None
            return outcome or self._evaluated(trial, then, wanted, hold)

    def _remembered(self, trial: Trial) -> Outcome | None:
        key = (trial.recipe.digest, self.protocol.digest)
        score = self._store.score(*key)
        if score is None and isinstance(trial.recipe, Recipe):
            score = self._derived(trial.recipe)  # not committed: a later pass may refute that it may be told
        if score is not None:
            if isinstance(trial.recipe, Recipe):
                self._heed(trial.recipe, key[1], score)
            return self._aimed(score)
        if trial.must_reach is None:
            return None
        bound = self._store.bound(key[0], self._bounds_under.digest)
        return None if bound is None or trial.must_reach.met_by(bound.upper) else bound

    def _evaluated(self, trial: Trial, then: Sequence[Trial], wanted: Wanted, hold: Hold) -> Outcome:
        following = [next(filter(self._is_free, then), None)]
        if not self._heeds:  # not `started`: that of a part tells nothing about the whole
            self._heed_others()
            self._heeds = True
        if isinstance(trial.recipe, Recipe):
            self._before(trial.recipe)
        self.started += 1
        if self._whole is not None:
            self._whole.started += 1

        def goes_on() -> bool:
            hold.moved()
            return wanted() and self._wanted()

        aimed = trial
        if self.aim is not None and trial.must_reach is not None:
            aimed = replace(trial, must_reach=replace(trial.must_reach, aim=self.aim))
        with self._withdrawing():
            (outcome,) = self._inner.evaluate(
                [aimed],
                then=[later for later in following if later is not None],
                wanted=goes_on,
            )
        lease = hold.lease
        if isinstance(outcome, Bound):
            known: Outcome = self._store.commit_bound(trial.recipe, self._bounds_under, outcome, lease=lease)
        else:
            known = self._aimed(self._store.commit_score(trial.recipe, self.protocol, outcome, lease=lease))
        hold.lease = None  # it was given up with that
        return known

    def _is_free(self, trial: Trial) -> bool:
        """Whether nothing committed answers it, and nobody evaluates it."""
        if trial in self._known:
            return False
        if self._remembered(trial) is not None:
            self._known.add(trial)
            return False
        return self._store.holder(self._lease(trial)) is None

    def _lease(self, trial: Trial) -> str:
        return f"evaluate {trial.recipe.digest} under {self.protocol.digest}"

    def require_wanted(self) -> None:
        """Raises Interrupted where nothing is wanted any more."""
        if not self._wanted():
            raise Interrupted

    @contextmanager
    def _withdrawing(self) -> Iterator[None]:
        """Withdraw mixed bounds where the inner evaluator learns meanwhile that they may be false."""
        known = self.order_dependent
        try:
            yield
        except OrderDependent:
            self._withdraw_mixed_bounds()
            self._doubtful = False
            raise
        except BaseException:
            if self.order_dependent and not known:  # found before it ended otherwise
                self._withdraw_mixed_bounds()
            raise
        if self.order_dependent and not known:
            self._withdraw_mixed_bounds()
            self._require_no_doubt()

    def _heed_others(self) -> None:
        if not self.order_dependent and self._store.mixed_bounds_withdrawn(self.protocol.digest):
            self.keep_batches()
            if self.aim is not None:  # whoever found it may have had another one
                self._store.withdraw_mixed_bounds(self._bounds_under)
        self._require_no_doubt()

    def _withdraw_mixed_bounds(self) -> None:
        """Of this aim, and those without: by these, who has another aim learns of it."""
        for protocol in dict.fromkeys([self.protocol, self._bounds_under]):
            self._store.withdraw_mixed_bounds(protocol)

    def _require_no_doubt(self) -> None:
        """Once: what is answered from then on does not rest on withdrawn bounds."""
        if self._doubtful and self.order_dependent:
            self._doubtful = False
            raise OrderDependent(
                "an example's outputs depend on its batch, as was found after bounds were given"
            )


def _is_accepted(trial: Trial, score: Score) -> bool:
    return trial.must_reach is not None and trial.must_reach.met_by(score.value)
