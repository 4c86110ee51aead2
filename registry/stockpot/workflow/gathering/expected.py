"""The sweep as far as listings and headers tell, for a dry run, which downloads nothing."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stockpot.entities import Candidate, Checkpoint, Digest, Sweep, TensorSpec
from stockpot.prose import counted
from stockpot.soup.compatibility import must_agree
from stockpot.workflow.gathering.enough import require_two
from stockpot.workflow.gathering.exclusion_rules import Gathering

if TYPE_CHECKING:
    from stockpot.workflow.gathering.arrivals import Prospect, Prospects
    from stockpot.workflow.gathering.supply import Supply

_UNREAD = "unread:"
Layout = tuple[TensorSpec, ...]


def expected_sweep(prospects: "Prospects", supply: "Supply") -> Sweep:
    """The sweep that `Arrivals` ends in, where no file's content says otherwise. Raises NothingToSoup."""
    return require_two(sorted_out(prospects, supply))


def sorted_out(prospects: "Prospects", supply: "Supply") -> Sweep:
    """The same with however few candidates.

    A candidate whose weights were never read has a checkpoint that stands for them: see `is_read`.
    """
    read = {p.run.run_id: checkpoint for p in prospects.found if (checkpoint := supply.known(p.source))}
    layouts = Counter(p.layout for p in prospects.found if p.layout is not None)
    usual = layouts.most_common(1)[0][0] if layouts else ()
    integers = _usual_integers(read.values())
    gathering = Gathering(prospects.exclusions)
    candidates = [
        Candidate(p.run, p.source, "", read.get(p.run.run_id) or _stand_in(p, usual, integers))
        for p in prospects.found
    ]
    group = gathering.largest_group(candidates, prospects.request, supply.differing_values)
    kept = gathering.unique(group)
    exclusions = sorted(gathering.exclusions, key=lambda exclusion: prospects.order[exclusion.run_id])
    return Sweep(prospects.request.selector, tuple(kept), tuple(exclusions))


def is_read(candidate: Candidate) -> bool:
    """Whether its weights were read, now or before."""
    return not candidate.checkpoint.digest.startswith(_UNREAD)


def doubts(prospects: "Prospects", sweep: Sweep) -> tuple[str, ...]:
    """What only the bytes of the weights can tell of these candidates."""
    unread = {candidate.run.run_id for candidate in sweep.candidates if not is_read(candidate)}
    if not unread:
        return ()
    found = [prospect for prospect in prospects.found if prospect.run.run_id in unread]
    integers = sorted({spec.name for p in found for spec in must_agree(p.layout or ())})
    questions = ["all values are finite", "tied tensors are equal", "no two have the same weights"]
    if integers:
        questions.append(f"these integer or boolean tensors agree: {', '.join(integers)}")
    checks = ", that ".join(questions)
    told = [f"{counted(len(found), 'candidate')} not downloaded; a run will check that {checks}"]
    if headless := sum(prospect.layout is None for prospect in found):
        told.append(f"not even a header could be read of {headless} of them, which may not fit the others")
    return tuple(told)


def _usual_integers(read: Iterable[Checkpoint]) -> dict[Layout, Digest]:
    """For each layout, the integer and boolean values that most have."""
    values: dict[Layout, Counter[Digest]] = defaultdict(Counter)
    for checkpoint in read:
        values[checkpoint.tensors][checkpoint.exact] += 1
    return {layout: counts.most_common(1)[0][0] for layout, counts in values.items()}


def _stand_in(prospect: "Prospect", usual: Layout, integers: dict[Layout, Digest]) -> Checkpoint:
    """What its weights are taken for: like most others, and like none of them in particular."""
    layout = usual if prospect.layout is None else prospect.layout
    digest = Digest(f"{_UNREAD}{prospect.run.run_id}")
    return Checkpoint(digest, prospect.source.size or 0, layout, integers.get(layout, Digest(_UNREAD)))
