"""Specialists: of each domain its own runs' greedy soup, chosen on its own examples.

What candidates score on a part of the held-out split is told by what they scored on the whole of it, example
by example, as long as an example's score does not depend on its batch. One pass over each part shows that.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stockpot.entities import (
    Candidate,
    EvaluationProtocol,
    OverlayRule,
    Recipe,
    Score,
    Selection,
    SoupRequest,
)
from stockpot.entities.domain import labels
from stockpot.prose import counted
from stockpot.selection.greedy import Greedy
from stockpot.workflow.selecting.overlaid import overlaid
from stockpot.workflow.selecting.rows import SPECIALIST
from stockpot.workflow.selecting.search import search
from stockpot.workflow.selecting.watched import score_in_full

if TYPE_CHECKING:
    from stockpot.ports import Bench, Watcher
    from stockpot.workflow.selecting.domains import Domains
    from stockpot.workflow.selecting.ranking import Ranking
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator


def own_candidates(domain: str, candidates: Sequence[Candidate], runs: Mapping[str, str]) -> list[Candidate]:
    """The candidates whose runs name the domain, alone or among others. Those of all data do not."""
    return [c for c in candidates if domain in labels(runs.get(c.run.run_id, ""))]


@dataclass(frozen=True)
class Specialist:
    """What was found for one domain."""

    domain: str
    selection: Selection
    protocol: EvaluationProtocol
    """Of the part of the held-out split that it was chosen on."""

    @property
    def recipe(self) -> Recipe:
        """What was found: a soup, or the best run alone."""
        recipe = self.selection.recipe
        assert isinstance(recipe, Recipe)  # noqa: S101 - Greedy averages
        return recipe

    @property
    def best_run(self) -> Recipe:
        """Of the domain's own runs, by the domain's own examples: a greedy soup begins with it."""
        return Recipe.mean([self.recipe.checkpoints[0]])


def search_specialists(
    request: SoupRequest,
    ranking: "Ranking",
    domains: "Domains",
    bench: "Bench",
    held_out: "SharedEvaluator",
    rule: OverlayRule | None,
    stop: Callable[[], bool],
    watch: "Watcher",
) -> tuple[tuple[Specialist, ...], tuple[str, ...]]:
    """One for each domain that has examples to be chosen on and candidates of its own; and what is missing.

    `rule`: what is laid over averages. With the request's `verify_exact` each search is compared with the
    plain one. Raises what `search` raises.
    """
    aim = domains.aims.get(request.select_on)
    if aim is None or not domains.runs:
        return (), ()
    found, notes = [], []
    for domain in aim.counting:
        own = own_candidates(domain, ranking.candidates, domains.runs)
        if not own:
            notes.append(f"no specialist of {domain}: no candidate is a run of it")
            continue
        part = _Part(domain, aim.places(domain), held_out, bench, watch)
        mine = replace(ranking, candidates=tuple(own))
        plain = (
            bench.evaluator(request.select_on, compared=False, plain=True, domain=domain)
            if request.verify_exact
            else None
        )
        name = f"{SPECIALIST}{domain}"
        searched = overlaid({name: Greedy}, rule)
        (selection,) = search(request, mine, searched, part.evaluator(own), stop, watch, plain)
        found.append(Specialist(domain, replace(selection, method=name), part.protocol))
    return tuple(found), tuple(notes)


class _Part:
    """A domain's examples in the held-out split."""

    def __init__(
        self, domain: str, places: Sequence[int], whole: "SharedEvaluator", bench: "Bench", watch: "Watcher"
    ) -> None:
        self._domain = domain
        self._places = places
        self._whole = whole
        self._watch = watch
        self._alike = False
        inner = bench.evaluator(whole.protocol.split, compared=False, domain=domain)
        self.protocol = inner.protocol
        self._shared = whole.of_part(inner, self._derived)

    def evaluator(self, candidates: Sequence[Candidate]) -> "SharedEvaluator":
        """Of these examples; what candidates score there is read off the whole split's scores once a pass has
        shown that it may be.
        """
        if len(candidates) > 1:
            first = Recipe.mean([candidates[0].checkpoint.digest])
            measured, read = score_in_full(first, self._shared), self._read(first)
            self._alike = read is not None and _bits(read) == _bits(measured)
            if read is not None and not self._alike:
                self._watch.say(
                    f"an example's score depends on its batch: {counted(len(candidates), 'candidate')} are "
                    f"scored anew on the examples of {self._domain}"
                )
        return self._shared

    def _derived(self, recipe: Recipe) -> Score | None:
        """What one pass has shown, another may refute: the trials of either evaluator."""
        alike = self._alike and not (self._whole.order_dependent or self._shared.order_dependent)
        return self._read(recipe) if alike and not recipe.is_soup else None

    def _read(self, recipe: Recipe) -> Score | None:
        whole = self._whole.committed(recipe, lambda: None)
        return None if whole is None else whole.of_domain(self._domain, self._places)


def _bits(score: Score) -> bytes:
    return array("d", score.examples).tobytes()
