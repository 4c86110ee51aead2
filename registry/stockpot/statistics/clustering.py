"""Groups of runs that are good at different examples, from scores that are there anyway.

Of each example's scores the mean over the runs is taken off; what is left of two runs is compared by its
correlation. Average linkage on one minus that makes a tree, and the mean silhouette picks where it is cut.

That alone would call two learning rates domains: whatever moves all examples by their difficulty, in some
runs more than in others, leaves correlations of plus and minus one behind, as two domains do. What tells them
apart is where the groups are *good*: of two domains each is better than the other on a part of the examples,
while of two learning rates one is better wherever they differ. So a cut counts only where each two of its
groups cross (`CROSSING`). And runs without domains may lean this way and that in a few directions, by their
seeds as well: the fewer runs, the more do they look like groups by chance (`least_silhouette`).

Hyperparameters whose groups do cross, one good on easy examples and another on hard ones, are found like
domains, and nothing in scores tells them apart: whoever shows groups shows which of the runs' parameters
divides them likewise.

The thresholds were chosen on planted sweeps (`stockpot.testing.planted_scores`), on seeds that no test uses:
``tests/benchmarks/discovery.py`` makes the table, which is in ``tests/benchmarks/RESULTS.md``.

Sources: Sokal and Michener, "A statistical method for evaluating systematic relationships", University of
Kansas Science Bulletin 38 (1958), for average linkage; Rousseeuw, "Silhouettes", Journal of Computational and
Applied Mathematics 20 (1987).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Labels = NDArray[np.intp]

CROSSING = 0.01
"""Of the squared difference between two groups' means, noise taken off: the least share that is in favour of
the one that is better less often.
"""
MOST = 8
"""Groups."""
FEWEST_EXAMPLES = 100
"""With fewer, noise alone makes correlations."""
FEWEST_RUNS = 4
"""Two groups of two: one run alone is no group, since nothing shows that another would be like it."""
ALONE = -1
"""The label of a run that is in no group."""
TYPICAL = 10
"""Examples that are told of each group."""


def least_silhouette(runs: int) -> float:
    """Of a cut of so many runs: the mean that it must have. At most one in twenty planted sweeps without
    domains reaches it whose runs lean in two directions alone, of those of three or more one in forty.
    """
    return 0.6 + 1 / runs


@dataclass(frozen=True)
class Partition:
    """Groups of runs; none where there are none to be found."""

    labels: tuple[int, ...]
    """Of each run, from 0 in the order of first runs; `ALONE` for one in no group, which is all where nothing
    was found.
    """
    why: str = ""
    """A clause: why nothing was found. Empty where groups were."""
    silhouettes: tuple[float, ...] = ()
    """Of each run, from -1 to 1; 0 for one in no group. Empty where nothing was found."""
    by_number: Mapping[int, float] = field(default_factory=dict)
    """The greatest mean silhouette of a cut into so many groups, crossing or not: over the runs among which
    groups were looked for last, each of other scores.
    """
    typical: tuple[tuple[int, ...], ...] = ()
    """Of each group, the places of the examples on which it is ahead of every other group by most, `TYPICAL`
    at most, first the clearest.
    """

    @property
    def chosen(self) -> int | None:
        """The number of groups."""
        return max(self.labels) + 1 if not self.why else None

    @property
    def silhouette(self) -> float:
        """The mean over all runs; 0 where nothing was found."""
        return sum(self.silhouettes) / len(self.silhouettes) if self.silhouettes else 0.0


def partition(scores: Iterable[Sequence[float]]) -> Partition:
    """Look for groups among runs by their scores of the same examples, a row for each run.

    A run with a score that is no finite number, or whose scores are the mean's on every example, is in no
    group. So is one that stands alone, such as a run that diverged, or the one run of its domain: the others
    are looked at again without it, as long as they are four of five runs. Runs with the same scores count
    once, since twins show nothing of a third. Deterministic; ties are broken by the order of runs. Raises
    ValueError for rows of several lengths.
    """
    import numpy as np

    rows = [np.asarray(row, dtype=np.float64) for row in scores]
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"runs have scores of {sorted({len(row) for row in rows})} examples")
    twins: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        if np.isfinite(row).all():
            twins.setdefault(sha256(row.tobytes()).digest(), []).append(place)
    places = list(twins.values())
    nobody = (ALONE,) * len(rows)
    if len(places) < FEWEST_RUNS:
        runs = f"{len(places)} of {len(rows)} runs have scores of their own, all finite"
        return Partition(nobody, f"groups of two runs or more need {FEWEST_RUNS} runs, and {runs}")
    if (n := len(rows[0])) < FEWEST_EXAMPLES:
        return Partition(nobody, f"{n} examples are too few to tell groups from chance: {FEWEST_EXAMPLES} do")
    found, kept = _without_loners(np.stack([rows[place] for place, *_ in places]))
    if found.why:
        return replace(found, labels=nobody)
    labels, silhouettes = list(nobody), [0.0] * len(rows)
    for one, label, silhouette in zip(kept, found.labels, found.silhouettes, strict=True):
        for place in places[one]:
            labels[place], silhouettes[place] = label, silhouette
    return replace(found, labels=tuple(labels), silhouettes=tuple(silhouettes))


def _without_loners(scores: "Floats") -> tuple[Partition, "Labels"]:
    """The groups, and the places of the runs that they were looked for among."""
    import numpy as np

    kept = np.arange(len(scores))
    spare = len(scores) // 5
    while True:
        found, alone = _look(scores[kept], spare)
        if not len(alone) or len(alone) > spare or len(kept) - len(alone) < FEWEST_RUNS:
            return found, kept
        spare -= len(alone)
        kept = np.delete(kept, alone)


def _look(scores: "Floats", spare: int) -> tuple[Partition, "Labels"]:
    """One look: the groups, and the places of runs to look again without. `spare`: how many may be alone."""
    import numpy as np
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    rest = scores - scores.mean(axis=0)
    rest -= rest.mean(axis=1, keepdims=True)
    lengths = np.sqrt(np.einsum("re,re->r", rest, rest))
    still = lengths <= 1e-9 * max(1.0, float(np.abs(scores).max())) * np.sqrt(scores.shape[1])
    if still.any():
        if (~still).sum() < FEWEST_RUNS:
            return Partition((), "the runs score all examples alike"), np.empty(0, np.intp)
        return Partition((), "runs score all examples as the mean does"), np.flatnonzero(still)
    rest /= lengths[:, None]
    distances = 1 - rest @ rest.T
    rest *= lengths[:, None]
    np.clip(distances, 0, 2, out=distances)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    cuts = list(_cuts(tree, distances, spare))
    by_number: dict[int, float] = {}
    for cut in cuts:
        by_number[cut.number] = max(cut.silhouette, by_number.get(cut.number, -1.0))
    least = least_silhouette(len(scores))
    good = sorted((cut for cut in cuts if cut.silhouette >= least), key=lambda cut: -cut.silhouette)
    for cut in good:
        if _crossing(scores, rest, cut.labels) >= CROSSING:
            return _made(scores, cut, by_number), np.flatnonzero(cut.labels == ALONE)
    return Partition((), _why(by_number, good, least), by_number=by_number), _split_off(tree, spare)


def _why(by_number: Mapping[int, float], good: Sequence["_Cut"], least: float) -> str:
    if good:
        return (
            f"runs fall into {good[0].number} groups (mean silhouette {good[0].silhouette:.2f}), but of two "
            "of them one is the better wherever they differ: a matter of hyperparameters, not of domains"
        )
    if not by_number:
        return "most runs are like no other"
    best = max(by_number, key=lambda number: by_number[number])
    told = f"{by_number[best]:.2f}; chance brings so few runs up to {least:.2f}"
    return f"the best cut, into {best} groups, has a mean silhouette of {told}"


@dataclass(frozen=True)
class _Cut:
    """The tree, cut somewhere."""

    labels: "Labels"
    number: int
    """Groups of two runs or more: others are `ALONE`."""
    silhouettes: "Floats"

    @property
    def silhouette(self) -> float:
        """The mean over all runs, those that are alone included, which have 0."""
        return float(self.silhouettes.mean())


def _cuts(tree: "Floats", distances: "Floats", spare: int) -> Iterator[_Cut]:
    """Those with 2 to `MOST` groups, and no more than `spare` runs alone."""
    import numpy as np
    from scipy.cluster.hierarchy import fcluster

    runs = len(distances)
    for count in range(2, MOST + spare + 1):
        parts = fcluster(tree, count, "maxclust").astype(np.intp) - 1
        sizes = np.bincount(parts)
        together = sizes[parts] > 1
        if runs - together.sum() > spare:
            return  # cutting further leaves more of them
        labels = np.full(runs, ALONE)
        labels[together] = _in_order(parts[together])
        if 2 <= (number := int(labels.max()) + 1) <= MOST:
            yield _Cut(labels, number, _silhouettes(distances, labels, number))


def _in_order(parts: "Labels") -> "Labels":
    """Numbered from 0, in the order of their first members."""
    import numpy as np

    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    place: Labels = np.argsort(np.argsort(first))[inverse]
    return place


def _silhouettes(distances: "Floats", labels: "Labels", number: int) -> "Floats":
    """Rousseeuw's, among runs that are in a group; 0 for the others."""
    import numpy as np

    members = (labels[:, None] == np.arange(number)).astype(np.float64)
    sizes = members.sum(axis=0)
    sums = distances @ members
    rows = np.flatnonzero(labels != ALONE)
    own = labels[rows]
    within = sums[rows, own] / (sizes[own] - 1)
    means = sums / sizes
    means[rows, own] = np.inf
    nearest = means[rows].min(axis=1)
    greater = np.maximum(within, nearest)
    found = np.zeros(len(labels))
    found[rows] = np.divide(nearest - within, greater, out=np.zeros(len(rows)), where=greater > 0)
    return found


def _crossing(scores: "Floats", rest: "Floats", labels: "Labels") -> float:
    """The least `CROSSING` of any two groups.

    The difference of two groups' means is the truth plus noise of a variance that the spread within groups
    tells. Noise around nothing adds half its variance to the squares of either sign. `rest`: the scores
    without means of examples and of runs: a run's own level is no noise.
    """
    import numpy as np

    number = int(labels.max()) + 1
    means = _means(scores, labels, number)
    grouped = labels != ALONE
    sizes = np.bincount(labels[grouped])
    centres = _means(rest, labels, number)
    squares = np.einsum("re,re->", rest[grouped], rest[grouped]) - sizes @ np.einsum(
        "ge,ge->g", centres, centres
    )
    noise = max(0.0, float(squares)) / (int(sizes.sum()) - number) / scores.shape[1]
    least = 1.0
    for one in range(number):
        for two in range(one):
            difference = means[one] - means[two]
            by_chance = noise * (1 / sizes[one] + 1 / sizes[two]) / 2
            ahead = float((np.maximum(difference, 0) ** 2).mean()) - by_chance
            behind = float((np.maximum(-difference, 0) ** 2).mean()) - by_chance
            whole = ahead + behind
            least = min(least, min(ahead, behind) / whole if whole > 0 else -1.0)
    return least


def _means(scores: "Floats", labels: "Labels", number: int) -> "Floats":
    """Of each group, over its runs, by example."""
    import numpy as np

    members = (labels == np.arange(number)[:, None]).astype(np.float64)
    found: Floats = (members @ scores) / members.sum(axis=1, keepdims=True)
    return found


def _split_off(tree: "Floats", spare: int) -> "Labels":
    """The runs that the tree splits off one by one at its top, before it parts the others."""
    import numpy as np
    from scipy.cluster.hierarchy import fcluster

    alone: Labels = np.empty(0, np.intp)
    for count in range(2, spare + 2):
        parts = fcluster(tree, count, "maxclust") - 1
        sizes = np.bincount(parts)
        if (sizes > 1).sum() != 1:
            break
        alone = np.flatnonzero(sizes[parts] == 1)
    return alone


def _made(scores: "Floats", cut: _Cut, by_number: Mapping[int, float]) -> Partition:
    import numpy as np

    means = _means(scores, cut.labels, cut.number)
    typical = []
    for group in range(cut.number):
        lead = means[group] - np.delete(means, group, axis=0).max(axis=0)
        order = np.argsort(-lead, kind="stable")[:TYPICAL]
        typical.append(tuple(int(place) for place in order if lead[place] > 0))
    return Partition(
        tuple(int(label) for label in cut.labels),
        "",
        tuple(float(one) for one in cut.silhouettes),
        by_number,
        tuple(typical),
    )
