"""Runs whose tokens or classes have other numbers than most of the sweep's: excluded before any download."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stockpot.entities import ExclusionReason, TensorSpec
from stockpot.workflow.gathering.ahead import ahead
from stockpot.workflow.gathering.exclusion_rules import Gathering
from stockpot.workflow.gathering.numberings import Numbering, Numberings

if TYPE_CHECKING:
    from stockpot.workflow.gathering.arrivals import Prospect

LOOKED_AT = 20
"""Runs, in the sweep's order: where so many logged no such folder, the others did not either."""
AT_ONCE = 8
MEND = "name the runs that have one tokenizer and one set of classes with --filter"


def alike(found: Sequence["Prospect"], gathering: Gathering, numberings: Numberings) -> list["Prospect"]:
    """Those of each layout that number their tokens and classes as most do; the others are excluded. Where no
    numbering is that of more than half, all are. Who logged none is not asked.
    """
    known = _look(found, numberings)
    groups: dict[tuple[TensorSpec, ...] | None, list[Prospect]] = defaultdict(list)
    for prospect in found:
        groups[prospect.layout].append(prospect)
    unknown = groups.pop(None, [])
    largest = max(groups.values(), key=len, default=[])
    for group in [*(group for group in groups.values() if group is not largest), largest + unknown]:
        for kind in ("token", "merge", "file", "class"):
            _exclude_odd(kind, [p for p in group if kind in known.get(p.run.run_id, {})], known, gathering)
    odd = {exclusion.run_id for exclusion in gathering.exclusions}
    return [prospect for prospect in found if prospect.run.run_id not in odd]


def _look(found: Sequence["Prospect"], numberings: Numberings) -> dict[str, Mapping[str, Numbering]]:
    """What is known of each run, by its id."""
    known: dict[str, Mapping[str, Numbering]] = {}

    def look(prospect: "Prospect") -> tuple[str, Mapping[str, Numbering]]:
        return prospect.run.run_id, numberings.of(prospect.source)

    for part in (found[:LOOKED_AT], found[LOOKED_AT:]):
        for batch in ahead(look, part, at_once=AT_ONCE):
            known.update(batch)
        if not any(known.values()):
            break
    return known


def _exclude_odd(
    kind: str,
    group: Sequence["Prospect"],
    known: Mapping[str, Mapping[str, Numbering]],
    gathering: Gathering,
) -> None:
    already = {exclusion.run_id for exclusion in gathering.exclusions}
    group = [prospect for prospect in group if prospect.run.run_id not in already]
    by_run = {p.run.run_id: known[p.run.run_id][kind] for p in group}
    counts = Counter(numbering.digest for numbering in by_run.values())
    if len(counts) < 2:
        return
    usual, count = counts.most_common(1)[0]
    first = next(p for p in group if by_run[p.run.run_id].digest == usual)
    most = count * 2 > len(group)
    for prospect in group:
        mine, theirs = by_run[prospect.run.run_id], by_run[first.run.run_id]
        if mine.digest != usual:
            told = theirs.differences(mine, kind, first.run.name, prospect.run.name)
        elif not most:
            told = f"the sweep has {len(counts)} {kind} tables, and none is that of most"
        else:
            continue
        what = "classes are not those" if kind == "class" else "tokenizer is not that"
        detail = f"its {what} of the others: {told}"
        gathering.exclude(prospect.run, ExclusionReason.INCOMPATIBLE, detail, MEND)
