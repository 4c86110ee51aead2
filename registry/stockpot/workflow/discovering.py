"""Domains of runs that nobody told, from scores that are remembered anyway: it takes no forward pass."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Protocol

from stockpot.entities import (
    Candidate,
    Digest,
    EvaluationProtocol,
    Exclusion,
    Recipe,
    Run,
    SoupRequest,
    SweepSelector,
    tags,
)
from stockpot.entities.domain import label_faults
from stockpot.errors import BadRequest, NoRoomForWeights, OutOfDeviceMemory, StockpotError
from stockpot.ports import Records
from stockpot.prose import counted, listed
from stockpot.statistics.agreement import adjusted_rand
from stockpot.statistics.clustering import ALONE, Partition, partition
from stockpot.workflow.gathering.arrivals import Arrivals, Prospects
from stockpot.workflow.gathering.expected import expected_sweep
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.run_domains import told_by
from stockpot.workflow.gathering.starting_point import find_base
from stockpot.workflow.selecting.ranking import rank
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import Bench, Store, Tracker, Watcher
    from stockpot.workflow.gathering.supply import Supply

LIKEWISE = 0.95
"""The least adjusted Rand index of a parameter that is said to divide the runs as the groups do."""


class Place(Records, Protocol):
    """The adapters that looking for domains needs."""

    @property
    def supply(self) -> "Supply":
        """Weights by digest."""
        ...

    def bench(self, request: SoupRequest) -> "Bench":
        """The request's task."""
        ...


@dataclass(frozen=True)
class Member:
    """A run that was looked at."""

    run_id: str
    run_name: str
    told: str
    """What it tells of its domain itself; empty where it tells nothing."""
    silhouette: float
    """From -1 to 1, where 1 is like no run of another group; 0 for a run in no group."""


@dataclass(frozen=True)
class TypicalExample:
    """One on which a group is ahead of the others."""

    place: int
    """In the split, from 0."""
    domain: str = ""
    """Its label; empty where the task tells none."""


@dataclass(frozen=True)
class RunGroup:
    """Runs that are good at the same examples."""

    name: str
    """The label that its runs tell alike, if no other group's do; else ``group-1`` and so on, by its place,
    or the next number that no group has.
    """
    runs: tuple[Member, ...]
    """In the sweep's order."""
    examples: tuple[TypicalExample, ...]
    """The clearest first."""

    @property
    def silhouette(self) -> float:
        """The mean of its runs."""
        return sum(run.silhouette for run in self.runs) / len(self.runs)


@dataclass(frozen=True)
class Likewise:
    """A parameter, or a tag, whose values divide the runs as the groups do."""

    name: str
    """As ``--domain-from`` takes it: params.NAME or tags.NAME."""
    agreement: float
    """By the adjusted Rand index."""


@dataclass(frozen=True)
class Discovery:
    """The groups of a sweep's runs."""

    selector: SweepSelector
    split: str
    n: int
    """Examples of the split."""
    protocol: Digest
    """Under which the scores were measured."""
    groups: tuple[RunGroup, ...]
    """Empty where no domains were found."""
    alone: tuple[Member, ...]
    """Runs in no group: all, where none was found."""
    why: str
    """A clause: why none were found. Empty where some were."""
    silhouettes: Mapping[int, float]
    """The mean silhouette of the best cut into so many groups, over the runs that did not stand alone."""
    agreement: float | None
    """With what the runs in groups tell themselves, by the adjusted Rand index; None where fewer than two
    tell, or no groups were found.
    """
    likewise: tuple[Likewise, ...]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    tagged: tuple[str, ...] = ()
    """Ids of the runs whose tag was written, which had none."""
    gone: tuple[str, ...] = ()
    """Ids of runs of groups that were deleted before a tag could be written."""


@dataclass(frozen=True)
class _Scored:
    """Candidates with a remembered score each."""

    candidates: tuple[Candidate, ...]
    protocol: EvaluationProtocol
    exclusions: tuple[Exclusion, ...]


def discover(
    request: SoupRequest, place: Place, watch: "Watcher", *, ranks: bool = False, names: Sequence[str] = ()
) -> Discovery:
    """Group the candidates of a sweep by the examples of the held-out split that they are good at.

    `ranks`: score the candidates that have no score, as the request itself would, which finds them
    remembered. `names`: of the groups, in their order. Raises BadRequest where scores are missing that nobody
    is to measure, and for names that cannot be labels or are not as many as groups; what gathering, opening
    the split and ranking raise.
    """
    faults = [
        *label_faults(names),
        *(f"{name} is named twice" for name, n in Counter(names).items() if n > 1),
    ]
    if faults:
        raise BadRequest("these cannot be the groups' names", faults=faults, mend="--names python,prose")
    bench = place.bench(request)
    prospects = gather(request, place.tracker, place.supply, bench.fits, watch)
    scored = (_ranked if ranks else _remembered)(prospects, bench, place, watch)
    order = prospects.order
    candidates = sorted(scored.candidates, key=lambda candidate: order[candidate.run.run_id])
    found = partition(_rows(candidates, scored.protocol, place.store))
    labels = bench.domains(request.select_on) if found.chosen else None
    return _made(prospects, replace(scored, candidates=tuple(candidates)), found, labels, names)


def _remembered(prospects: Prospects, bench: "Bench", place: Place, watch: "Watcher") -> _Scored:
    """What an earlier request left. Its batches may have been halved, where they did not fit the device."""
    sweep = expected_sweep(prospects, place.supply)
    split = prospects.request.select_on
    digests = [_single(candidate) for candidate in sweep.candidates]
    protocols = list(_in_smaller_batches(bench.evaluator(split, compared=False).protocol))
    known = {protocol: place.store.scored(digests, protocol.digest) for protocol in protocols}
    best = max(protocols, key=lambda protocol: len(known[protocol]))
    lacking = [c for c, digest in zip(sweep.candidates, digests, strict=True) if digest not in known[best]]
    if lacking:
        names = listed([candidate.run.name for candidate in lacking], 3)
        passes = counted(len(lacking), "forward pass", "forward passes")
        raise BadRequest(
            f"{len(lacking)} of {counted(len(digests), 'candidate')} have no remembered score on split "
            f"{split}: {names}",
            mend=f"the same command with --rank evaluates them ({passes} over {split}, n={best.n:,}); "
            "stockpot soup, which does the same first, finds their scores remembered then",
        )
    watch.say(
        f"{counted(len(digests), 'score')} on split {split} (n={best.n:,}) are remembered: no forward pass"
    )
    return _Scored(sweep.candidates, best, sweep.exclusions)


def _ranked(prospects: Prospects, bench: "Bench", place: Place, watch: "Watcher") -> _Scored:
    """Scored as `walk` scores them: leased, remembered, in smaller batches where they do not fit the
    device.
    """
    base = find_base(prospects, place.tracker, place.supply, bench.fits, watch.say)
    while True:
        inner = bench.evaluator(prospects.request.select_on, compared=False)
        evaluator = SharedEvaluator(inner, place.store, heed=bench.heed, say=watch.say)
        arrivals = Arrivals(prospects, place.supply, bench.fits, watch, base)
        try:
            ranking = rank(arrivals, evaluator, watch)
        except NoRoomForWeights:
            raise
        except OutOfDeviceMemory:
            if bench.batch_size == 1:
                raise
            bench.halve_batch()
            watch.say(
                f"all is evaluated in batches of {bench.batch_size} examples: more do not fit the device"
            )
            continue
        return _Scored(ranking.candidates, inner.protocol, ranking.sweep.exclusions)


def _in_smaller_batches(protocol: EvaluationProtocol) -> Iterator[EvaluationProtocol]:
    """The protocol, and those that halving its batches leads to."""
    size = protocol.conditions.batch_size
    while True:
        yield replace(protocol, conditions=replace(protocol.conditions, batch_size=size))
        if size <= 1:
            return
        size //= 2


def _single(candidate: Candidate) -> Digest:
    return Recipe.mean([candidate.checkpoint.digest]).digest


def _rows(
    candidates: Sequence[Candidate], protocol: EvaluationProtocol, store: "Store"
) -> Iterator[Sequence[float]]:
    for candidate in candidates:
        score = store.score(_single(candidate), protocol.digest)
        if score is None:
            raise StockpotError(
                f"the score of {candidate.run.name} was removed meanwhile", mend="run this command again"
            )
        yield score.examples


def _made(
    prospects: Prospects,
    scored: _Scored,
    found: Partition,
    labels: Sequence[str] | None,
    names: Sequence[str],
) -> Discovery:
    request, runs = prospects.request, [candidate.run for candidate in scored.candidates]
    members = [
        Member(run.run_id, run.name, told_by(run, request, prospects.datasets), silhouette)
        for run, silhouette in zip(runs, found.silhouettes or [0.0] * len(runs), strict=True)
    ]
    number = found.chosen or 0
    names = names if number else ()
    if names and len(names) != number:
        raise BadRequest(
            f"there are {number} groups, and {counted(len(names), 'name')} for them",
            mend="leave out --names to see the groups, then name each, in their order",
        )
    parts = [[m for m, label in zip(members, found.labels, strict=True) if label == k] for k in range(number)]
    examples = [
        tuple(TypicalExample(place, labels[place] if labels else "") for place in places)
        for places in found.typical
    ]
    groups = tuple(
        RunGroup(name, tuple(part), typical)
        for name, part, typical in zip(names or _named(parts), parts, examples, strict=True)
    )
    return Discovery(
        selector=request.selector,
        split=request.select_on,
        n=scored.protocol.n,
        protocol=scored.protocol.digest,
        groups=groups,
        alone=tuple(m for m, label in zip(members, found.labels, strict=True) if label == ALONE),
        why=found.why,
        silhouettes=found.by_number,
        agreement=_agreement(groups),
        likewise=tuple(_likewise(runs, found)),
        exclusions=scored.exclusions,
        notes=prospects.notes,
    )


def _named(parts: Sequence[Sequence[Member]]) -> list[str]:
    """Of groups in the sweep's order: as their own runs tell, where they agree, and no other group's do."""
    told = [{run.told for run in part if run.told} for part in parts]
    usual = [next(iter(one)) if len(one) == 1 else "" for one in told]
    times = Counter(usual)
    names = [name if times[name] == 1 and not [*label_faults([name])] else "" for name in usual]
    for place, name in enumerate(names):
        if not name:  # and no group gets a number that another's runs tell since an earlier --write-tags
            names[place] = next(one for one in map("group-{}".format, count(place + 1)) if one not in names)
    return names


def _agreement(groups: Sequence[RunGroup]) -> float | None:
    told = [(place, run.told) for place, group in enumerate(groups) for run in group.runs if run.told]
    if len(told) < 2:
        return None
    places, labels = zip(*told, strict=True)
    return adjusted_rand(places, labels)


def _likewise(runs: Sequence[Run], found: Partition) -> Iterator[Likewise]:
    """Of runs in groups. What a tool, or Stockpot, writes as a tag is told elsewhere, or is of no use."""
    grouped = [(run, label) for run, label in zip(runs, found.labels, strict=True) if label != ALONE]
    labels = [label for _, label in grouped]
    kinds: list[tuple[str, Callable[[Run], Mapping[str, str]]]] = [
        ("params", lambda run: run.params),
        ("tags", lambda run: run.tags),
    ]
    for kind, of in kinds:
        for name in sorted({name for run, _ in grouped for name in of(run)}):
            if kind == "tags" and name.startswith(("mlflow.", "stockpot.")):
                continue
            agreement = adjusted_rand([of(run).get(name) for run, _ in grouped], labels)
            if agreement >= LIKEWISE:
                yield Likewise(f"{kind}.{name}", agreement)


def write_tags_of(found: Discovery, tracker: "Tracker") -> Discovery:
    """Tag each run of a group with the group's name, in ``stockpot.domain``. A second time writes nothing.

    All runs are looked at again before any is tagged. Raises BadRequest where one has another value by now,
    which stays; NotPermitted. A run that was deleted meanwhile is left out, and told.
    """
    names = {run.run_id: group.name for group in found.groups for run in group.runs}
    there = {run.run_id: run for run, deleted in tracker.runs_named(names) if not deleted}
    has = {run_id: run.tags.get(tags.DOMAIN, "").strip() for run_id, run in there.items()}
    others = [
        f"run {run.name} ({run_id}) has {has[run_id]!r}, and would get {names[run_id]!r}"
        for run_id, run in there.items()
        if has[run_id] not in {"", names[run_id]}
    ]
    if others:
        raise BadRequest(
            f"the tag {tags.DOMAIN} of {counted(len(others), 'run')} has another value: nothing was written",
            faults=sorted(others),
            mend="name the groups as the tags do (--names), or remove those tags in MLflow",
        )
    written = tuple(run_id for run_id in names if run_id in there and not has[run_id])
    for run_id in written:
        tracker.tag_run(run_id, tags.DOMAIN, names[run_id])
    gone = tuple(run_id for run_id in names if run_id not in there)
    notes = (f"deleted meanwhile, and not tagged: {listed(gone, 3)}",) if gone else ()
    return replace(found, tagged=written, gone=gone, notes=(*found.notes, *notes))
