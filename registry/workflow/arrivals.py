"""Weights on their way: downloads run ahead, and each candidate can be scored as soon as it is here."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from registry.entities import (
    Candidate,
    Digest,
    Exclusion,
    ExclusionReason,
    IngestedSource,
    Run,
    SoupRequest,
    Sweep,
    TensorSpec,
    WeightsSource,
)
from registry.workflow.ahead import ahead
from registry.workflow.exclusion_rules import Gathering, require_two
from registry.workflow.shortlist import rank_by_metric

if TYPE_CHECKING:
    from registry.ports import Progress
    from registry.workflow.supply import Supply

DOWNLOADS = 4
"""At once, or waiting to be scored: enough to keep a link busy, and bounded."""
STAGE = "read weights"


@dataclass(frozen=True)
class Prospect:
    """A run with one weights file, of which at most the header was read."""

    run: Run
    source: WeightsSource


@dataclass(frozen=True)
class Prospects:
    """A sweep before its weights are read."""

    request: SoupRequest
    found: tuple[Prospect, ...]
    """In the sweep's order."""
    exclusions: tuple[Exclusion, ...]
    order: Mapping[str, int]
    """Every run's place in the sweep, by its id."""


@dataclass
class _Group:
    """Candidates that can be averaged with each other, as far as they have arrived."""

    rank: tuple[tuple[bool, float], int] = ((True, 0.0), 0)
    """As `Gathering.largest_group` ranks: the best metric, then the number of members."""
    met: set[Digest] = field(default_factory=set)
    waiting: list[Candidate] = field(default_factory=list)


class Arrivals:
    """The candidates among the prospects, in their order, each as soon as its weights are here.

    `fits` tells how tensors differ from the task's model.
    """

    def __init__(
        self,
        prospects: Prospects,
        supply: "Supply",
        fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
        progress: "Progress",
    ) -> None:
        self.total = len(prospects.found)
        self._prospects = prospects
        self._supply = supply
        self._fits = fits
        self._progress = progress
        self._gathering = Gathering(prospects.exclusions)
        self._arrived: list[Candidate] = []
        self._groups: dict[tuple[tuple[TensorSpec, ...], Digest], _Group] = {}
        self._layouts: dict[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = {}
        """Each layout once: thousands of candidates have the same."""

    def due(self) -> Generator[list[Candidate], None, None]:
        """Read all weights; each time a few have arrived, those of them that are worth a score now.

        These are no twins, and can be averaged with at least one other, in what is so far the group that
        will be used: so nothing is scored where there is nothing to average. Some that are candidates in
        the end may never be due.
        """
        self._progress.start(STAGE, self.total)
        for batch in ahead(self._read, self._prospects.found, at_once=DOWNLOADS):
            for prospect, found in batch:
                self._admit(prospect, found)
                self._progress.advance(STAGE)
            yield self._worth_a_score()

    def sweep(self) -> Sweep:
        """The sweep, when all weights were read. Raises NothingToSoup for fewer than two candidates."""
        request, order = self._prospects.request, self._prospects.order
        kept = self._gathering.unique(self._gathering.largest_group(self._arrived, request))
        exclusions = sorted(self._gathering.exclusions, key=lambda exclusion: order[exclusion.run_id])
        self._supply.offer(kept)
        return require_two(Sweep(request.selector, tuple(kept), tuple(exclusions)))

    def _read(self, prospect: Prospect) -> tuple[Prospect, IngestedSource]:
        return prospect, self._supply.ingest(prospect.source)

    def _admit(self, prospect: Prospect, found: IngestedSource) -> None:
        run, source = prospect.run, prospect.source
        if found.checkpoint is None:
            reason = found.fault or ExclusionReason.UNREADABLE
            self._gathering.exclude(run, reason, f"{source.path}: {found.detail}")
            return
        layout = found.checkpoint.tensors
        checkpoint = replace(found.checkpoint, tensors=self._layouts.setdefault(layout, layout))
        if not self._gathering.can_be_averaged(run, checkpoint.tensors, self._fits):
            return
        candidate = Candidate(run, source, found.sha256, checkpoint)
        self._arrived.append(candidate)
        group = self._groups.setdefault((checkpoint.tensors, checkpoint.exact), _Group())
        best, members = group.rank
        group.rank = (min(best, rank_by_metric(run, self._prospects.request)), members - 1)
        if checkpoint.digest not in group.met:
            group.met.add(checkpoint.digest)
            group.waiting.append(candidate)
            self._supply.offer([candidate])

    def _worth_a_score(self) -> list[Candidate]:
        leading = min(self._groups.values(), key=lambda group: group.rank, default=_Group())
        if len(leading.met) < 2:
            return []
        due, leading.waiting = leading.waiting, []
        return due


def read_all(arrivals: Arrivals) -> Sweep:
    """The sweep, with nothing scored on the way."""
    for _ in arrivals.due():
        pass
    return arrivals.sweep()
