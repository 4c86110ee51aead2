"""Runs of all data, where a sweep holds such: what training on everything reached, beside averages of runs
that were trained apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import Candidate, OverlayRule, Recipe
from stockpot.entities.domain import ALL, labels
from stockpot.selection.greedy import Greedy
from stockpot.workflow.selecting.overlaid import overlaid
from stockpot.workflow.selecting.search import search

if TYPE_CHECKING:
    from stockpot.entities import SoupRequest
    from stockpot.ports import Evaluator, Watcher
    from stockpot.workflow.selecting.domains import Domains
    from stockpot.workflow.selecting.ranking import Ranking
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

BEST_OF_ALL = "best run of all data"
SOUP_OF_ALL = "greedy soup of the runs of all data"


def of_all_data(candidates: Sequence[Candidate], domains: "Domains") -> list[Candidate]:
    """Those that were trained on all domains; none where that is no difference among them."""
    found = [one for one in candidates if ALL in labels(domains.told(one.run))]
    return found if len(found) < len(candidates) else []


def search_all_data(
    request: "SoupRequest",
    ranking: "Ranking",
    domains: "Domains",
    held_out: "SharedEvaluator",
    rule: OverlayRule | None,
    stop: Callable[[], bool],
    watch: "Watcher",
    plain: "Evaluator | None" = None,
) -> dict[str, Recipe]:
    """The best of them by the mixture's score, and the soup that greedy finds among them, if it finds one; by
    label. Empty where no run of all data stands beside runs of some domains.

    `rule`: what is laid over averages. Raises what `search` raises.
    """
    own = of_all_data(ranking.candidates, domains) if domains else []
    if not own:
        return {}
    found = {BEST_OF_ALL: Recipe.mean([own[0].checkpoint.digest])}
    if len(own) > 1:
        mine, searched = replace(ranking, candidates=tuple(own)), overlaid({SOUP_OF_ALL: Greedy}, rule)
        (selection,) = search(request, mine, searched, held_out, stop, watch, plain)
        if isinstance(selection.recipe, Recipe) and selection.recipe.is_soup:
            found[SOUP_OF_ALL] = selection.recipe
    return found
