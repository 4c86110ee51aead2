"""Weights on their way: downloads run ahead, and each candidate can be scored as soon as it is here."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stockpot.entities import (
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
from stockpot.errors import BadCheckpoint
from stockpot.workflow.gathering.ahead import ahead
from stockpot.workflow.gathering.alike import require_alike
from stockpot.workflow.gathering.enough import require_two
from stockpot.workflow.gathering.exclusion_rules import MENDS, Gathering
from stockpot.workflow.gathering.recalled import Recalled
from stockpot.workflow.gathering.shortlist import rank_by_metric

if TYPE_CHECKING:
    from stockpot.ports import Watcher
    from stockpot.workflow.gathering.supply import Supply

DOWNLOADS = 4
"""At once, or waiting to be scored: enough to keep a link busy, and bounded."""
STAGE = "read weights"


@dataclass(frozen=True)
class Prospect:
    """A run with one weights file, of which at most the header was read."""

    run: Run
    source: WeightsSource
    layout: tuple[TensorSpec, ...] | None = None
    """Its tensors under canonical names, where they are known before its weights are read."""
    why: str = ""
    """A clause: why this of several checkpoints."""
    base: str = ""
    """Of an adapter: what its configuration calls its base."""


@dataclass(frozen=True)
class Prospects:
    """A sweep before its weights are read."""

    request: SoupRequest
    found: tuple[Prospect, ...]
    """In the sweep's order."""
    exclusions: tuple[Exclusion, ...]
    order: Mapping[str, tuple[int, str]]
    """What every run's place in the sweep is told by, by its id."""
    notes: tuple[str, ...] = ()
    """What was taken for granted, for people to contradict."""
    unfinished: int = 0
    """Runs that still run, and are left out."""
    recalled: Recalled = field(default_factory=Recalled)
    """What no soup may hold."""
    told_bases: tuple[str, ...] = ()
    """Paths of this machine that adapters without a base tell as theirs, the most usual first."""
    datasets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By run, what it was trained on, as MLflow's inputs tell: where the request asks for that."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those found."""
        return tuple(prospect.run for prospect in self.found)


@dataclass
class _Group:
    """Candidates that can be averaged with each other, as far as they have arrived."""

    met: dict[Digest, tuple[bool, float]] = field(default_factory=dict)
    """Its different weights, each with the best metric of those runs, as `rank_by_metric` tells."""
    waiting: list[Candidate] = field(default_factory=list)

    @property
    def best(self) -> tuple[bool, float]:
        """Of its members' metrics."""
        return min(self.met.values(), default=(True, 0.0))

    @property
    def rank(self) -> tuple[tuple[bool, float], int]:
        """As `Gathering.largest_group` ranks: the best metric, then the number of different weights."""
        return self.best, -len(self.met)


_Read = tuple[Prospect, IngestedSource | BadCheckpoint | None]
"""What reading a prospect's file found; None where another process reads it."""


class Arrivals:
    """The candidates among the prospects, in their order, each as soon as its weights are here.

    `fits` tells how tensors differ from the task's model. `base`: where the sweep started.
    """

    def __init__(
        self,
        prospects: Prospects,
        supply: "Supply",
        fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
        watch: "Watcher",
        base: Candidate | None = None,
    ) -> None:
        self.total = len(prospects.found)
        self._prospects = prospects
        self._supply = supply
        self._fits = fits
        self._watch = watch
        self._base = base
        self._gathering = Gathering(prospects.exclusions)
        self._arrived: list[Candidate] = []
        self._looked_at: set[str] = set()
        self._groups: dict[tuple[tuple[TensorSpec, ...], Digest], _Group] = {}
        self._layouts: dict[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = {}
        """Each layout once: thousands of candidates have the same."""
        self._unread: list[Prospect] = []
        """Those whose layout cannot be that of the group that is used, whatever their files hold."""

    def due(self) -> Generator[list[Candidate], None, None]:
        """Read the weights; each time a few have arrived, those of them that are worth a score now.

        These are no twins, and can be averaged with at least one other, in what is so far the group that
        will be used, and with the base: so nothing is scored where there is nothing to average. Some that
        are candidates in the end may never be due. What another process reads is waited for last, where
        nothing else is left.
        """
        self._watch.start(STAGE, self.total)
        for round_ in self._rounds():
            prospects, waiting = round_, self._supply.pauses()
            while prospects:
                elsewhere: list[Prospect] = []
                with closing(ahead(self._read, prospects, at_once=DOWNLOADS)) as batches:
                    for batch in batches:
                        elsewhere += [prospect for prospect, found in batch if found is None]
                        self._admit_all(batch)
                        yield self._worth_a_score()
                if len(elsewhere) == len(prospects):
                    next(waiting)
                prospects = elsewhere
        for _ in self._unread:
            self._watch.advance(STAGE)

    def is_here(self, candidate: Candidate) -> bool:
        """Whether its weights are in this machine's cache."""
        return self._supply.is_here(candidate.checkpoint.digest)

    def sweep(self) -> Sweep:
        """The sweep, when the weights were read. Raises NothingToSoup for fewer than two candidates,
        Incompatible for a base that cannot be averaged with them.
        """
        request, order = self._prospects.request, self._prospects.order
        self._arrived.sort(key=lambda candidate: order[candidate.run.run_id])
        gathering = Gathering(self._gathering.exclusions)  # not for good: more may be refused
        group = gathering.largest_group(self._arrived, request, self._supply.differing_values)
        for prospect in self._unread:
            gathering.exclude_stranger(prospect.run, prospect.layout or (), group)
        kept = gathering.unique(group)
        exclusions = sorted(gathering.exclusions, key=lambda exclusion: order[exclusion.run_id])
        self._supply.offer(kept)
        sweep = require_two(Sweep(request.selector, tuple(kept), tuple(exclusions)))
        if self._base is not None:
            require_alike(self._base, kept[0], self._supply)
        return sweep

    def unread(self) -> list[Run]:
        """The runs whose weights were not looked at."""
        return [p.run for p in self._prospects.found if p.run.run_id not in self._looked_at]

    def _rounds(self) -> Iterator[list[Prospect]]:
        """The prospects by layout, as long as one may still turn out to be that of the group that is used.

        So a layout of few is never downloaded. Those of unknown layout, which may join any, come first.
        """
        left: dict[tuple[TensorSpec, ...], list[Prospect]] = {}
        unknown: list[Prospect] = []
        for prospect in self._prospects.found:
            (unknown if prospect.layout is None else left.setdefault(prospect.layout, [])).append(prospect)
        yield unknown
        while left:
            layout = min(left, key=lambda layout: self._best_rank(layout, left[layout]))
            if self._best_rank(layout, left[layout]) > self._leading().rank:
                self._unread = [prospect for prospects in left.values() for prospect in prospects]
                return
            yield left.pop(layout)

    def _best_rank(
        self, layout: tuple[TensorSpec, ...], unread: Sequence[Prospect]
    ) -> tuple[tuple[bool, float], int]:
        """That a group of this layout can still reach, with all that have arrived and all unread ones."""
        arrived = [group for (other, _), group in self._groups.items() if other == layout]
        metrics = [rank_by_metric(prospect.run, self._prospects.request) for prospect in unread]
        best = min(metrics + [group.best for group in arrived])
        return best, -len(unread) - sum(len(group.met) for group in arrived)

    def refuse(self, digest: Digest, fault: BadCheckpoint) -> None:
        """Exclude the candidates with these weights, of which only their first use told what is wrong."""
        refused = [candidate for candidate in self._arrived if candidate.checkpoint.digest == digest]
        self._arrived = [candidate for candidate in self._arrived if candidate not in refused]
        for candidate in refused:
            self._gathering.exclude_faulty(candidate.run, candidate.source, fault)
            self._groups[candidate.checkpoint.tensors, candidate.checkpoint.exact].met.pop(digest, None)

    def _read(self, prospect: Prospect) -> _Read:
        try:
            return prospect, self._supply.ingest(prospect.source)
        except BadCheckpoint as error:
            return prospect, error

    def _admit_all(self, batch: Sequence[_Read]) -> None:
        for prospect, found in batch:
            if found is not None:
                self._admit(prospect, found)
                self._watch.advance(STAGE)

    def _admit(self, prospect: Prospect, found: IngestedSource | BadCheckpoint) -> None:
        run, source = prospect.run, prospect.source
        self._looked_at.add(run.run_id)
        if isinstance(found, BadCheckpoint):
            self._gathering.exclude_faulty(run, source, found)
            return
        if found.checkpoint is None:
            reason = found.fault or ExclusionReason.UNREADABLE
            self._gathering.exclude(run, reason, f"{source.path}: {found.detail}", MENDS[reason])
            return
        word = self._prospects.recalled.of(run.run_id, found.checkpoint.digest)
        if word is not None:
            self._gathering.exclude_recalled(run, word)
            return
        layout = found.checkpoint.tensors
        checkpoint = replace(found.checkpoint, tensors=self._layouts.setdefault(layout, layout))
        if not self._gathering.can_be_averaged(
            run, checkpoint.tensors, self._fits, merged=source.base is not None
        ):
            return
        if not found.cast_from:
            source = replace(source, cast=None)
        candidate = Candidate(run, source, found.sha256, checkpoint, found.cast_from)
        self._arrived.append(candidate)
        group = self._groups.setdefault((checkpoint.tensors, checkpoint.exact), _Group())
        first = checkpoint.digest not in group.met
        metric = rank_by_metric(run, self._prospects.request)
        known = group.met.setdefault(checkpoint.digest, metric)
        group.met[checkpoint.digest] = min(known, metric)
        if first:
            group.waiting.append(candidate)
            self._supply.offer([candidate])

    def _worth_a_score(self) -> list[Candidate]:
        leading = self._leading()
        if len(leading.met) < 2 or not self._is_of_base(leading):
            return []
        due, leading.waiting = leading.waiting, []
        return due

    def _is_of_base(self, group: _Group) -> bool:
        """Whether it can be averaged with the base, if there is one."""
        if self._base is None:
            return True
        start = self._base.checkpoint
        return group is self._groups.get((start.tensors, start.exact))

    def _leading(self) -> _Group:
        return min(self._groups.values(), key=lambda group: group.rank, default=_Group())


def read_all(arrivals: Arrivals) -> Sweep:
    """The sweep, with nothing scored on the way."""
    for _ in arrivals.due():
        pass
    return arrivals.sweep()
