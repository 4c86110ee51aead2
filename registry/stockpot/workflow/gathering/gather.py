"""From a sweep's runs to its prospects: listed, and told apart by their headers before any download."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import ExclusionReason, Run, SoupRequest, TensorSpec, WeightsFormat, WeightsSource
from stockpot.errors import BadCheckpoint
from stockpot.soup import CODES, Head, canonical_tensors, cast_tensors, require_archive, require_true
from stockpot.soup.torch_file import BEGINNING
from stockpot.workflow.gathering.ahead import ahead
from stockpot.workflow.gathering.arrivals import Prospect, Prospects
from stockpot.workflow.gathering.checkpoint_choice import choice_of
from stockpot.workflow.gathering.exclusion_rules import MENDS, REASONS, Gathering
from stockpot.workflow.gathering.expected import expected_sweep
from stockpot.workflow.gathering.odd_numberings import alike
from stockpot.workflow.gathering.shortlist import Shortlist

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Watcher
    from stockpot.workflow.gathering.supply import Supply

LOOKS = 8
"""Runs whose weights are looked for at once: several small requests each, which wait on the server."""
FIRST = 1 << 16
"""Bytes asked for at first: most headers are shorter."""
MOST = 1 << 24
"""A header that is longer is refused."""


def gather(
    request: SoupRequest,
    tracker: "Tracker",
    supply: "Supply",
    fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
    watch: "Watcher",
) -> Prospects:
    """List the sweep, find each run's weights, and leave out what its header shows to be incompatible.

    `fits` tells how tensors differ from the task's model. Raises UnknownSweep for a sweep that does
    not exist, BadRequest for one that still runs and for a metric that was not logged, NothingToSoup when
    fewer than two runs can be candidates.
    """
    prospects = find_prospects(request, tracker, supply, fits, watch)
    if len(prospects.found) < 2:
        expected_sweep(prospects, supply)  # raises
    return prospects


def find_prospects(
    request: SoupRequest,
    tracker: "Tracker",
    supply: "Supply",
    fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
    watch: "Watcher",
    seen: Callable[[Run, Sequence[WeightsSource]], object] = lambda *_: None,
) -> Prospects:
    """The same, with however few prospects.

    `seen` is told every weights file of each run, by several threads at once.
    """
    shortlist = _list(request, tracker, watch)
    runs = shortlist.chosen()
    gathering = Gathering(shortlist.exclusions)
    layouts: dict[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = {}  # each once: thousands have the same

    def look(run: Run) -> Prospect | None:
        why = []

        def choose(sources: Sequence[WeightsSource]) -> WeightsSource:
            source, told = choice_of(sources, request, tracker)
            why.append(told)
            return source

        try:
            found = tracker.weights(run)
            seen(run, found)
            below = shortlist.below[run.run_id]
            source = gathering.choose_weights(run, found, request.pattern, choose, below)
        except BadCheckpoint as error:
            reason = REASONS.get(type(error), ExclusionReason.NO_WEIGHTS)
            gathering.exclude(run, reason, error.what, error.mend)
            return None
        if source is None:
            return None
        source = replace(source, run_ended=run.ended)
        try:
            layout = supply.layout(source) or _layout(source, tracker)
            if request.dtype is not None:
                source, layout = _cast(source, layout, CODES[request.dtype], supply)
        except BadCheckpoint as fault:  # told as where the file is downloaded
            reason = REASONS.get(type(fault), ExclusionReason.UNREADABLE)
            detail = "; ".join([fault.what, *fault.faults])
            gathering.exclude(run, reason, detail, MENDS.get(reason, fault.mend))
            return None
        return Prospect(run, source, layout and layouts.setdefault(layout, layout), "".join(why))

    found = []
    stage = "find weights"
    watch.start(stage, len(runs))
    for batch in ahead(look, runs, at_once=LOOKS):
        for prospect in batch:
            if prospect and (
                prospect.layout is None or gathering.can_be_averaged(prospect.run, prospect.layout, fits)
            ):
                found.append(prospect)
            watch.advance(stage)
    found = alike(found, gathering, supply.numberings)
    return Prospects(
        request,
        tuple(found),
        tuple(gathering.exclusions),
        shortlist.order,
        shortlist.notes(),
        len(shortlist.unfinished),
    )


def _list(request: SoupRequest, tracker: "Tracker", watch: "Watcher") -> Shortlist:
    shortlist = Shortlist(request)
    stage = "list runs"
    watch.start(stage, 0)  # nobody knows how many
    for run in tracker.runs(request.selector):
        shortlist.add(run)
        watch.advance(stage)
    shortlist.require_finished()
    shortlist.require_metric()
    for note in shortlist.notes(tracker.parent(request.selector)):
        watch.say(note)
    return shortlist


def _cast(
    source: WeightsSource, layout: tuple[TensorSpec, ...] | None, code: str, supply: "Supply"
) -> tuple[WeightsSource, tuple[TensorSpec, ...] | None]:
    """The source, to be cast to this dtype unless its tensors are known to have it, and its layout then."""
    if layout is not None and cast_tensors(layout, code) == layout:
        return source, layout
    source = replace(source, cast=code)
    return source, cast_tensors(layout, code) if layout is not None else supply.layout(source)


def _layout(source: WeightsSource, tracker: "Tracker") -> tuple[TensorSpec, ...] | None:
    """The tensors under canonical names, from the headers alone.

    None where those cannot be had. Raises BadCheckpoint for a file that its header or its size shows to be
    bad, and for an index that does not tell what its files hold: they are not downloaded.
    """
    found = _cut_tensors(source, tracker) if source.parts else _tensors(source, tracker)
    return None if found is None else canonical_tensors(found)


def _cut_tensors(source: WeightsSource, tracker: "Tracker") -> tuple[TensorSpec, ...] | None:
    """Those of all files together, once the index was read."""
    parts = {part.name: source.beside(part) for part in source.parts}
    index = parts.pop(source.path.rpartition("/")[2], None)
    content = b"" if index is None else tracker.head(index, MOST)
    held = {name: _tensors(part, tracker) for name, part in parts.items()}
    known = {name: tensors for name, tensors in held.items() if tensors is not None}
    if content is None or len(known) < len(held):
        return None
    require_true(Path(source.path), content, known)
    return tuple(tensor for tensors in known.values() for tensor in tensors)


def _tensors(source: WeightsSource, tracker: "Tracker") -> tuple[TensorSpec, ...] | None:
    if source.format is WeightsFormat.TORCH and (beginning := tracker.head(source, BEGINNING)) is not None:
        require_archive(Path(source.path), beginning)
    if source.format is not WeightsFormat.SAFETENSORS or source.size is None:
        return None
    head = _head(source, source.size, FIRST, tracker)
    if head is not None and FIRST < head.header_end <= min(MOST, source.size):
        head = _head(source, source.size, head.header_end, tracker)
    if head is None or len(head.content) < head.header_end <= source.size:
        return None
    return head.tensors()


def _head(source: WeightsSource, size: int, length: int, tracker: "Tracker") -> Head | None:
    content = tracker.head(source, length)
    return None if content is None else Head(Path(source.path), size, content)
