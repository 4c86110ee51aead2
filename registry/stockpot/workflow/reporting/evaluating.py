"""What the page lacks is evaluated as everything else is: leased, remembered, by however many processes."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from stockpot.entities import Digest, EvaluationProtocol, Recipe, SoupRequest
from stockpot.errors import BadCheckpoint, CannotHelp, NotArrived
from stockpot.ports import Records
from stockpot.prose import counted
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.reporting.neighbours import midpoints, remembered, why_not_by_domain, without_each
from stockpot.workflow.reporting.version_page import VersionPage
from stockpot.workflow.selecting.overlaid import overlay_rule
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator
from stockpot.workflow.sharing.units import Unit, settled

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Watcher

STAGE = "compare ingredients"


class Range(Records, Protocol):
    """The adapters that evaluating needs."""

    @property
    def supply(self) -> Supply:
        """Weights by digest."""
        ...

    def bench(self, request: SoupRequest) -> "Bench":
        """The request's task on a device."""
        ...


def evaluate_neighbours(
    page: VersionPage,
    place: Range,
    watch: "Watcher",
    *,
    barriers: bool = False,
    influence: bool = False,
) -> int:
    """Evaluate the recipes near a soup that nobody has evaluated yet. Returns how many this process began.

    Says first how many passes that takes, and which ingredients' weights are gone: recipes of those stay
    unknown. Raises CannotHelp where this process would not give scores that can be compared with those of the
    report, and what evaluating raises. Safe to kill: what is done stays.
    """
    soup, report = page.recipe, page.report
    if (barriers or influence) and (why := why_not_by_domain(report)):
        watch.say(f"nothing is evaluated: {why}")
        return 0
    pairs = midpoints(soup).values() if barriers else ()
    rests = without_each(soup).values() if influence else ()
    asked = list({recipe.digest: recipe for recipe in (*pairs, *rests)}.values())
    known = remembered(asked, report, place.store)
    missing = [recipe for recipe in asked if recipe.digest not in known]
    if missing:
        place.supply.offer(page.candidates)
        gone = _gone({digest for recipe in missing for digest in recipe.checkpoints}, page, place, watch)
        missing = [recipe for recipe in missing if gone.isdisjoint(recipe.checkpoints)]
    if not missing:
        return 0
    protocol = next(one for one in report.protocols if one.split == report.request.select_on)
    watch.say(
        f"{counted(len(missing), 'recipe')} near the soup to evaluate: "
        f"{counted(len(missing), 'forward pass', 'forward passes')} over split {protocol.split} "
        f"(n={protocol.n:,}); {len(asked) - len(missing)} of {len(asked)} are remembered"
    )
    bench = place.bench(report.request)
    shared = SharedEvaluator(
        _opened(soup, report.request, protocol, bench), place.store, heed=bench.heed, say=watch.say
    )
    watch.start(STAGE, len(missing))
    for _ in settled([Unit(recipe, shared) for recipe in missing]):
        watch.advance(STAGE)
    return shared.started


def _gone(wanted: Collection[Digest], page: VersionPage, place: Range, watch: "Watcher") -> set[Digest]:
    """Those of the ingredients whose weights cannot be had any more."""
    gone = set()
    for candidate in page.candidates:
        digest = candidate.checkpoint.digest
        if digest not in wanted:
            continue
        try:
            with place.supply.open(digest):
                pass
        except NotArrived:  # the next time, perhaps
            raise
        except BadCheckpoint as error:
            gone.add(digest)
            watch.say(f"nothing is evaluated with {candidate.run.name}, whose weights are gone: {error.what}")
    return gone


def _opened(soup: Recipe, request: SoupRequest, protocol: EvaluationProtocol, bench: "Bench") -> "Evaluator":
    """The report's held-out split, under its very protocol."""
    while bench.batch_size > max(1, protocol.conditions.batch_size):
        bench.halve_batch()
    evaluator = bench.evaluator(protocol.split, compared=False)
    faults = list(evaluator.protocol.differences(protocol))
    if soup.overlay is not None and (rule := overlay_rule(request, bench)) != soup.overlay:
        faults.append(f"a soup's statistics: {rule or 'none'} here, {soup.overlay} there")
    if faults or evaluator.protocol.digest != protocol.digest:
        raise CannotHelp(
            "this process would not give scores that can be compared with those of the version's report",
            faults=faults,
            mend="do it with the same Stockpot, torch, task, data and kind of device; or run the version's "
            "request again here, whose report is then of these conditions",
        )
    return evaluator
