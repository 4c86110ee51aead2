"""A split whose domains are each measured as a whole: by a metric of its own examples, in passes of its own.

The metric of a split says nothing of its domains, and scores of examples nothing of a metric.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from stockpot.entities import Aim, Composition, Ensemble, Outcome, Recipe, Score, Trial
from stockpot.ports import Wanted, always
from stockpot.selection.telling import full_score
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Store
    from stockpot.workflow.leases import Hold


def shared_split(
    evaluator: "Evaluator",
    store: "Store",
    bench: "Bench",
    aim: Aim | None = None,
    *,
    compared: bool,
    before: Callable[[Recipe], object] = lambda _: None,
    wanted: Wanted = always,
    say: Callable[[str], object] = lambda _: None,
) -> SharedEvaluator:
    """What all processes know of a split, of whose domains one number is made by `aim`. The others: as in
    `Bench.evaluator` and `SharedEvaluator`.
    """
    if aim is None or not bench.measures_whole:
        return SharedEvaluator(evaluator, store, before, bench.heed, wanted, say, aim)
    return SharedInParts(
        evaluator, store, bench, aim, compared=compared, before=before, wanted=wanted, say=say
    )


def plain_split(split: str, bench: "Bench", aim: Aim | None) -> "Evaluator":
    """What a search on this split is verified by."""
    whole = bench.evaluator(split, compared=False, plain=True)
    if aim is None or not bench.measures_whole:
        return whole
    return InParts(whole, _parts(bench, split, aim, compared=False, plain=True), aim)


def _parts(
    bench: "Bench", split: str, aim: Aim, *, compared: bool, plain: bool = False
) -> dict[str, "Evaluator"]:
    """By domain, what measures its examples."""
    return {
        domain: bench.evaluator(split, compared=compared, plain=plain, domain=domain)
        for domain in aim.all_domains
    }


class InParts:
    """Measures each domain, always in full, and remembers nothing: what a search is verified by."""

    def __init__(self, whole: "Evaluator", parts: Mapping[str, "Evaluator"], aim: Aim) -> None:
        self.protocol = whole.protocol
        self._parts = parts
        self._aim = aim

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch."""
        return any(part.order_dependent for part in self._parts.values())

    def keep_batches(self) -> None:
        """They are kept anyway: nothing is bounded."""

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order. What may come next is not looked at."""
        del then
        return [self._scored(trial.recipe, wanted) for trial in trials]

    def _scored(self, recipe: Composition, wanted: Wanted) -> Score:
        found = {
            domain: full_score(*part.evaluate([Trial(recipe)], wanted=wanted))
            for domain, part in self._parts.items()
        }
        return Score.of_parts(found, self._aim)


class SharedInParts(SharedEvaluator):
    """As its base, of all domains of a split: what is committed are the scores of the parts, which other
    requests and a domain's specialist ask for, too. Every trial is scored in full.
    """

    def __init__(
        self,
        inner: "Evaluator",
        store: "Store",
        bench: "Bench",
        aim: Aim,
        *,
        compared: bool,
        before: Callable[[Recipe], object],
        wanted: Wanted,
        say: Callable[[str], object],
    ) -> None:
        super().__init__(inner, store, before, bench.heed, wanted, say, aim)
        self._mixture = aim
        self._bench = bench
        self._compared = compared
        parts = _parts(bench, inner.protocol.split, aim, compared=compared)
        self._parts = {domain: self.of_part(part, lambda _: None) for domain, part in parts.items()}

    def committed(self, recipe: Composition, scored: Callable[[], Score | None]) -> Score | None:
        """The score, where that of each part is committed, or is that of an ensemble whose members' outputs
        are remembered. What is `scored` of the whole says nothing.
        """
        del scored
        found = {
            domain: part.committed(recipe, partial(self._ensemble, recipe, domain))
            for domain, part in self._parts.items()
        }
        known = {domain: score for domain, score in found.items() if score is not None}
        return Score.of_parts(known, self._mixture) if len(known) == len(found) else None

    def _ensemble(self, recipe: Composition, domain: str) -> Score | None:
        if not isinstance(recipe, Ensemble):
            return None
        split = self.protocol.split
        return self._bench.ensemble(recipe, split, compared=self._compared, domain=domain)

    def _remembered(self, trial: Trial) -> Score | None:
        return self.committed(trial.recipe, lambda: None)

    def _evaluated(self, trial: Trial, then: Sequence[Trial], wanted: Wanted, hold: "Hold") -> Outcome:
        del then

        def goes_on() -> bool:
            hold.moved()
            return wanted() and self._wanted()

        parts = InParts(self._inner, self._parts, self._mixture)
        return parts.evaluate([trial], wanted=goes_on)[0]
