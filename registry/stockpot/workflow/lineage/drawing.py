"""A lineage as a tree for people, and as a mermaid chart."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from stockpot.entities import (
    Blend,
    Digest,
    Lineage,
    LineageNode,
    LineageRun,
    LineageVersion,
    Standing,
    short,
)

ABOVE = "is made of"
BELOW = "is in"
NOTHING_ABOVE = "is made of nothing that is known: a checkpoint of a run"
NOTHING_BELOW = "is in no version that is known"


def tree(lineage: Lineage) -> Iterator[str]:
    """A line for each checkpoint, below what it belongs to. What was told before is not told again."""
    nodes = {node.checkpoint: node for node in lineage.nodes}
    up = _grouped(lineage.up, lambda blend: blend.soup)
    down = _grouped(lineage.down, lambda blend: blend.ingredient)
    told_up: set[Digest] = set()
    told_down: set[Digest] = set()
    for checkpoint in lineage.start:
        yield _named(nodes[checkpoint])
        yield f"  {ABOVE}" if checkpoint in up else f"  {NOTHING_ABOVE}"
        yield from _branches(checkpoint, up, lambda blend: blend.ingredient, nodes, told_up, "  ")
        yield f"  {BELOW}" if checkpoint in down else f"  {NOTHING_BELOW}"
        yield from _branches(checkpoint, down, lambda blend: blend.soup, nodes, told_down, "  ")


def _grouped(blends: Iterable[Blend], by: Callable[[Blend], Digest]) -> Mapping[Digest, Sequence[Blend]]:
    found: dict[Digest, list[Blend]] = defaultdict(list)
    for blend in blends:
        found[by(blend)].append(blend)
    return found


def _branches(
    start: Digest,
    blends: Mapping[Digest, Sequence[Blend]],
    other: Callable[[Blend], Digest],
    nodes: Mapping[Digest, LineageNode],
    told: set[Digest],
    indent: str,
) -> Iterator[str]:
    """Depth first, without recursion: soups of soups may be deeper than Python's stack."""
    told.add(start)
    waiting = [(indent, iter(_last_marked(_once(blends.get(start, ()), other))))]
    while waiting:
        indent, rest = waiting[-1]
        blend, is_last = next(rest, (None, False))
        if blend is None:
            waiting.pop()
            continue
        checkpoint = other(blend)
        again = checkpoint in told and checkpoint in blends
        line = f"{blend.coefficient:.4g} of {_named(nodes[blend.ingredient])}"
        text = line if checkpoint == blend.ingredient else _named(nodes[checkpoint])
        yield f"{indent}{'└── ' if is_last else '├── '}{text}{' (told above)' if again else ''}"
        if not again:
            told.add(checkpoint)
            below = f"{indent}{'    ' if is_last else '│   '}"
            waiting.append((below, iter(_last_marked(_once(blends.get(checkpoint, ()), other)))))


def _once(blends: Sequence[Blend], other: Callable[[Blend], Digest]) -> list[Blend]:
    """One for each checkpoint: several recipes may make, or hold, the same."""
    return list({other(blend): blend for blend in reversed(blends)}.values())[::-1]


def _last_marked(blends: Sequence[Blend]) -> Iterator[tuple[Blend, bool]]:
    return ((blend, blend is blends[-1]) for blend in blends)


def _named(node: LineageNode) -> str:
    known = [*map(_version, node.versions), *_runs(node.runs)]
    return ", ".join([*known, short(node.checkpoint)])


def _version(version: LineageVersion) -> str:
    copy = f", a copy of {version.copy_of}" if version.copy_of else ""
    aliases = "".join(f" @{alias}" for alias in version.aliases)
    recalled = f", recalled: {version.recalled}" if version.recalled else ""
    return f"{version.uri}{aliases}{_standing(version.standing)}{copy}{recalled}"


def _runs(runs: Sequence[LineageRun]) -> Iterator[str]:
    """Each once, with all sweeps that it was found in."""
    sweeps: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        sweeps[run.run_id] += [run.sweep] if run.sweep else []
    for run_id, found in sweeps.items():
        run = next(run for run in runs if run.run_id == run_id)
        name = f"run {run.name} ({run_id})" if run.name else f"run {run_id}"
        of = f" of sweep {' and '.join(dict.fromkeys(found))}" if found else ""
        yield f"{name}{_standing(run.standing)}{of}"


def _standing(standing: Standing) -> str:
    return "" if standing is Standing.THERE else f" ({standing})"


def mermaid(lineage: Lineage) -> Iterator[str]:
    """The lines of a flowchart, from ingredients to soups."""
    names = {node.checkpoint: f"n{number}" for number, node in enumerate(lineage.nodes)}
    yield "flowchart TD"
    for node in lineage.nodes:
        text = "<br/>".join(map(_quoted, _named(node).split(", ")))
        yield f'  {names[node.checkpoint]}["{text}"]'
    for blend in sorted({*lineage.up, *lineage.down}, key=lambda one: (one.soup, one.recipe, one.position)):
        yield f"  {names[blend.ingredient]} -->|{blend.coefficient:.4g}| {names[blend.soup]}"
    for checkpoint in lineage.start:
        yield f"  style {names[checkpoint]} stroke-width:3px"


def _quoted(text: str) -> str:
    """Names are strangers' texts: all but plain characters go by their numbers."""
    return re.sub(r"[^\w ./:@()-]", lambda found: f"#{ord(found[0])};", text)
