"""The data that a policy judges by: opened, and versions scored on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stockpot.entities import Digest, GateScore, Recipe, Score, Snapshot, SoupRequest, tags
from stockpot.errors import BadRequest, Incompatible
from stockpot.workflow.promotion.contents import Contents
from stockpot.workflow.promotion.policies import Policy
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator
from stockpot.workflow.trace import snapshot_of

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Store, Tracker, Watcher

OF_SWEEP = (
    *("sweep", "experiment", "filter", "weights", "checkpoint_metric", "direction"),
    *("dtype", "top", "by", "any_base", "base"),
)
"""Fields of a request that tell which runs it is about: a task may be made with a folder that they logged."""


@dataclass(frozen=True)
class Measured:
    """What a version scores."""

    scores: Mapping[str, Score]
    """By split."""
    told: tuple[GateScore, ...]
    """For a decision, each with what the store remembers it under; those of domains behind."""
    files: Digest | None = None
    """Of all the version's files, where it was measured by its pyfunc."""
    why: str = ""
    """Why it was not measured by its weights."""


@dataclass(frozen=True)
class Suite:
    """A policy's splits on a device."""

    bench: "Bench"
    evaluators: "Mapping[str, Evaluator]"
    """By split, the primary one first."""
    domains: "Mapping[str, Evaluator]"
    """By domain of the primary split, where the policy asks for domains, and no score of the split tells of
    them: the task measures each as a whole.
    """

    @classmethod
    def opened(cls, policy: Policy, bench: "Bench", chosen_by: Snapshot | None) -> "Suite":
        """Open the policy's splits. `chosen_by`: what is known of how the version was found.

        Raises BadRequest where two hold the same data, or one those that chose the version: its score there
        says nothing about new data. Raises what the task raises.
        """
        labels = bench.domains(policy.split) if policy.domains and bench.measures_whole else None
        domains = {
            domain: bench.evaluator(policy.split, domain=domain) for domain in sorted({*(labels or ())})
        }
        found = cls(bench, {split: bench.evaluator(split) for split in policy.splits}, domains)
        names: dict[Digest, str] = {}
        for split, evaluator in found.evaluators.items():
            twin = names.setdefault(evaluator.protocol.dataset, split)
            if twin != split:
                raise BadRequest(f"splits {twin} and {split} hold the same data")
        report = chosen_by and chosen_by.report
        held_out = [p for p in report.protocols if p.split == report.request.select_on] if report else []
        for protocol in held_out:
            if protocol.dataset in names:
                raise BadRequest(
                    f"split {names[protocol.dataset]} holds the data that chose this version: its score "
                    "there says nothing about new data"
                )
        return found

    def unfit(self, held: Contents) -> str:
        """Why the version cannot be measured by its weights; empty where it can."""
        if held.checkpoint is None:
            return f"its weights cannot be read: {held.fault}"
        faults = self.bench.fits(held.checkpoint.tensors)
        return "; ".join(["its weights do not fit the task's model", *faults]) if faults else ""

    def measured(self, held: Contents, store: "Store", watch: "Watcher") -> Measured:
        """The version's scores: as they are remembered, under the soup's name or that of its weights; else
        measured. Raises Incompatible for weights that cannot be read or do not fit, and what measuring
        raises.
        """
        unfit = self.unfit(held)
        if held.checkpoint is None or unfit:
            raise Incompatible(unfit)
        own, told = Recipe.mean([held.checkpoint.digest]), []

        def score(where: str, evaluator: "Evaluator") -> Score:
            protocol = evaluator.protocol.digest
            known = held.remembered(store, protocol)
            if known is None:
                watch.say(f"measuring {held.version.uri} on split {where}")
                known = own.digest, score_in_full(own, SharedEvaluator(evaluator, store, say=watch.say))
            told.append(GateScore(where, known[0], protocol, known[1].value))
            return known[1]

        scores = {split: score(split, evaluator) for split, evaluator in self.evaluators.items()}
        primary = next(iter(scores))
        parts = {domain: score(f"{primary} of {domain}", part) for domain, part in self.domains.items()}
        if parts:
            scores[primary] = replace(scores[primary], parts=parts)
        return Measured(scores, tuple(told))

    def halved(self) -> "Suite":
        """With half as many examples in a batch, which is under other protocols."""
        self.bench.halve_batch()
        return self._on(self.bench, tuple(self.evaluators), tuple(self.domains))

    @classmethod
    def _on(cls, bench: "Bench", splits: Sequence[str], domains: Sequence[str]) -> "Suite":
        """`domains`: of the first split."""
        return cls(
            bench,
            {split: bench.evaluator(split) for split in splits},
            {domain: bench.evaluator(splits[0], domain=domain) for domain in domains},
        )


def known_of(held: Contents | None, tracker: "Tracker") -> Snapshot | None:
    """What is kept beside a soup of ours; None of other versions. Raises RegistryConflict where it is
    damaged, and BadRequest where it is gone, since nobody could tell then which data chose the soup, and what
    MLflow raises.
    """
    if held is None or held.version.tags.get(tags.ROLE) != "soup":
        return None
    return snapshot_of(held.version.uri, tracker)[1]


def request_for(policy: Policy, model: str, known: Snapshot | None) -> SoupRequest:
    """How to measure. A task that is made with a folder of a sweep's runs gets that of the soup's."""
    request = policy.request(model)
    if known is None:
        return request
    asked = known.report.request
    return replace(request, **{name: getattr(asked, name) for name in OF_SWEEP})
