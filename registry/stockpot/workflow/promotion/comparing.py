"""A version beside the champion: not worse, and not shown to be on any shifted split or domain."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from stockpot.entities import Check, CheckOutcome, Comparison, Score, SoupRequest
from stockpot.prose import counted, listed
from stockpot.statistics import compare, compare_domains, pairs_by_domain
from stockpot.statistics.holm import holm
from stockpot.workflow.publishing import verdict
from stockpot.workflow.selecting.rows import score

NOBODY = "no other version has the alias, so there is nothing to compare with"


class Groups(Protocol):
    """Tells which examples share an origin."""

    def __call__(self, split: str, /) -> Sequence[Hashable] | None:
        """The origin of each example of the split; None where each is one."""
        ...


class Labels(Protocol):
    """Tells the domain of each example."""

    def __call__(self, split: str, /) -> Sequence[str] | None:
        """Of the split; None where the task tells of none."""
        ...


@dataclass
class Match:
    """The comparison of a version's scores with the champion's. `champion`: its URI, and None for nobody."""

    request: SoupRequest
    """With the primary split, the shifted ones and the margin."""
    unit: str | None
    groups: Groups
    mine: Mapping[str, Score]
    its: Mapping[str, Score]
    champion: str | None
    domains: Labels | None = None
    """Where the policy asks for each domain of the primary split."""
    comparisons: dict[str, Comparison] = field(default_factory=dict)

    def checks(self) -> Iterator[Check]:
        """Of the primary split, of its domains, then of each shifted one."""
        yield self._primary()
        if self.champion is not None and self.domains is not None:
            yield self._by_domain(self.domains)
        if self.champion is not None and self.request.shifts:
            yield from self._shifted()

    def _primary(self) -> Check:
        split = self.request.report_on
        if broken := self._broken(split):
            return Check("score", CheckOutcome.FAILED, broken)
        if self.champion is None:
            told = score(self.mine[split].value, self.unit)
            return Check("score", CheckOutcome.NOT_APPLICABLE, f"{told} on {self._whole}; {NOBODY}")
        found = self.comparisons[split] = self._compare(split, 0.95)
        told = f"{verdict.gain(found, self.unit)} on {self._whole} compared with {self.champion}"
        margin = verdict.margin_told(
            self.request, self.unit, self.its[split].value, f"the score of {self.champion}"
        )
        if found.low > self._margin(split):
            return Check("score", CheckOutcome.PASSED, f"{told}, and the interval lies above {margin}")
        return Check("score", CheckOutcome.FAILED, f"{told}, and the interval must lie above {margin}")

    @property
    def _whole(self) -> str:
        """A report's score may be one of a mixture of domains: this is none."""
        split = self.request.report_on
        if self.domains is None:
            return f"split {split}"
        how = "each example alike" if self.mine[split].metric is None else "all of it"
        return f"split {split}, {how} whatever its domain,"

    def _by_domain(self, domains: Labels) -> Check:
        """Of several domains one may seem worse by chance: levels are Holm's, as of shifted splits. One of
        few origins has no verdict.
        """
        split = self.request.report_on
        labels, mine, its = domains(split), self.mine[split], self.its[split]
        broken = self._broken(split)
        if labels is None:
            broken = f"the task tells no domains of split {split}, which the policy asks for"
        elif any(whole.metric is not None and whole.parts is None for whole in (mine, its)):
            broken = (
                f"what was measured by a pyfunc has a metric of split {split}, and of no domain of it: leave "
                "domains out of the policy"
            )
        if broken or labels is None:
            return Check("domains", CheckOutcome.FAILED, broken)
        pairs = pairs_by_domain(its, mine, labels, self.groups(split))
        found, _ = compare_domains(pairs)
        told = [replace(one, split=f"{split} of {domain}") for domain, one in found.items()]
        self.comparisons |= {one.split: one for one in told}
        lost = [
            f"its score on split {split} of {domain} is {after.value}, that of {self.champion} is "
            f"{score(before.value, self.unit)}"
            for domain, (before, after, _) in pairs.items()
            if math.isfinite(before.value) and not math.isfinite(after.value)
        ]
        if lost:  # a metric may have a value of the split, and none of a domain
            return Check("domains", CheckOutcome.FAILED, "; ".join(lost))
        least = min(0.0, self._margin(split))
        worse = [one for one in told if one.high < least]  # at the levels that decide
        if not worse:
            opened = [domain for domain, one in found.items() if verdict.is_open(one)]
            few = [domain for domain in opened if verdict.is_of_too_few(found[domain])]
            unsaid = [domain for domain in opened if domain not in few]
            reasons = {"too few origins for a verdict": few, "no verdict by the metric": unsaid}
            nothing = "; ".join(f"{why} on {listed(of)}" for why, of in reasons.items() if of)
            if len(opened) == len(found):
                return Check("domains", CheckOutcome.NOT_APPLICABLE, nothing)
            judged = counted(len(found) - len(opened), "domain")
            clause = f"on none of {judged} of split {split} is it shown to be worse than {self.champion}"
            if least:
                clause += f" by more than {verdict.difference(-least, self.unit).removeprefix('+')}"
            return Check("domains", CheckOutcome.PASSED, f"{clause}; {nothing}" if opened else clause)
        where = listed([f"{verdict.gain(one, self.unit)} on split {one.split}" for one in worse])
        clause = f"it is shown to be worse: {where}, compared with {self.champion}"
        return Check("domains", CheckOutcome.FAILED, clause)

    def _shifted(self) -> Iterator[Check]:
        """Of several splits one may seem worse by chance: levels are Holm's. A margin above zero asks for a
        gain on the primary split alone.
        """

        def is_worse(found: Comparison) -> bool:
            return found.high < min(0.0, self._margin(found.split))

        found, worse = holm(self.request.shifts, self._compare, is_worse)
        self.comparisons |= found
        for split, comparison in found.items():
            told = f"{verdict.gain(comparison, self.unit)} on split {split} compared with {self.champion}"
            if broken := self._broken(split):
                yield Check(f"shift {split}", CheckOutcome.FAILED, broken)
            elif split in worse:
                yield Check(f"shift {split}", CheckOutcome.FAILED, f"it is shown to be worse: {told}")
            else:
                yield Check(f"shift {split}", CheckOutcome.PASSED, f"it is not shown to be worse: {told}")

    def _broken(self, split: str) -> str:
        value = self.mine[split].value
        return "" if math.isfinite(value) else f"its score on split {split} is {value}"

    def _margin(self, split: str) -> float:
        return verdict.margin_as_difference(self.request, self.unit, self.its[split].value)

    def _compare(self, split: str, level: float) -> Comparison:
        return compare(split, self.its[split], self.mine[split], groups=self.groups(split), level=level)
