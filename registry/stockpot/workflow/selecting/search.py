"""Search for recipes on the held-out split."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from stockpot.entities import (
    Candidate,
    Contender,
    Digest,
    Outcome,
    Selection,
    SoupRequest,
    Trial,
    tags,
)
from stockpot.entities.domain import is_own
from stockpot.errors import BadRequest, NothingToSoup
from stockpot.ports import OrderDependent
from stockpot.prose import counted, listed
from stockpot.selection import FORESEEN, is_around_base, is_by_group, run_selection
from stockpot.workflow.selecting.domains import SEVERAL
from stockpot.workflow.selecting.verification import Verification
from stockpot.workflow.selecting.watched import Heard

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, MakeMethod, SelectionMethod, Watcher
    from stockpot.workflow.gathering.supply import Supply
    from stockpot.workflow.selecting.domains import Domains
    from stockpot.workflow.selecting.ranking import Ranking
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator


def contenders_of(candidates: Sequence[Candidate]) -> tuple[Contender, ...]:
    """The candidates as selection sees them."""
    return tuple(Contender(c.checkpoint.digest, c.run.run_id, c.run.started) for c in candidates)


def require_base(methods: Mapping[str, "MakeMethod"], base: Candidate | None) -> None:
    """Raises BadRequest where a method asks for a base, and there is none."""
    if base is None and (needing := [name for name, make in methods.items() if is_around_base(make)]):
        raise BadRequest(
            f"{', '.join(needing)} needs a base of the candidates' architecture", mend="leave that method out"
        )


def around_base(
    methods: Mapping[str, "MakeMethod"], ranking: "Ranking", supply: "Supply"
) -> tuple[Mapping[str, "MakeMethod"], tuple[str, ...]]:
    """The methods, those told the base and the coefficients that ask for them: these are computed from the
    candidates' weights, which are fetched where they are not here. And which are left out, since fewer than
    two candidates are others than the base: a sentence. Raises NothingToSoup where these are all methods, and
    what `require_base` raises.
    """
    require_base(methods, ranking.base)
    around = [name for name, make in methods.items() if is_around_base(make)]
    if ranking.base is None or not around:
        return methods, ()
    base = ranking.base.checkpoint.digest
    models = sorted({c.checkpoint.digest for c in ranking.candidates} - {base})
    if len(models) > 1:
        return with_base(methods, base, supply.model_stock(models, base)), ()
    others = {name: make for name, make in methods.items() if name not in around}
    why = f"all candidates but {len(models)} are the base {ranking.base.run.name} itself"
    if not others:
        raise NothingToSoup(why, mend="name the model that the sweep started from: --base")
    return others, (f"nothing by {', '.join(around)}: {why}",)


def with_base(
    methods: Mapping[str, "MakeMethod"], base: Digest, coefficients: Digest
) -> Mapping[str, "MakeMethod"]:
    """The methods, those told both that ask for them."""
    told = partial(partial, base=base, coefficients=coefficients)
    return {name: told(make) if is_around_base(make) else make for name, make in methods.items()}


def require_groups(methods: Mapping[str, "MakeMethod"], domains: "Domains") -> None:
    """Raises NothingToSoup where all methods average across domains, and there are not several: known before
    anything is ranked.
    """
    if len(domains.counting) < 2 and all(map(is_by_group, methods.values())):
        raise NothingToSoup(
            f"{', '.join(methods)} averages across domains: there are not several",
            mend=f"{SEVERAL}, and have runs tell theirs: {tags.DOMAIN}, or --domain-from",
        )


def by_group(
    methods: Mapping[str, "MakeMethod"], ranking: "Ranking", domains: "Domains"
) -> tuple[Mapping[str, "MakeMethod"], tuple[str, ...]]:
    """The methods, those told the candidates of each domain that ask for them. And which are left out, since
    there are not two domains with candidates of their own: a sentence. Raises NothingToSoup where these are
    all methods.
    """
    grouped = [name for name, make in methods.items() if is_by_group(make)]
    if not grouped:
        return methods, ()
    groups = {
        domain: [c.checkpoint.digest for c in ranking.candidates if is_own(domains.told(c.run), domain)]
        for domain in domains.counting
    }
    if len(groups) > 1 and all(groups.values()):
        told = partial(partial, groups=groups)
        return {name: told(make) if name in grouped else make for name, make in methods.items()}, ()
    others = {name: make for name, make in methods.items() if name not in grouped}
    lacking = [domain for domain, own in groups.items() if not own]
    why = f"no candidate is of {listed(lacking)} alone" if lacking else "there are not several domains"
    if not others:
        mend = f"have runs of each tell that one alone: {tags.DOMAIN}, or --domain-from"
        raise NothingToSoup(f"{', '.join(grouped)} averages across domains: {why}", mend=mend)
    return others, (f"nothing by {', '.join(grouped)}: {why}",)


def search(
    request: SoupRequest,
    ranking: "Ranking",
    methods: Mapping[str, "MakeMethod"],
    evaluator: "SharedEvaluator",
    stop: Callable[[], bool],
    watch: "Watcher",
    plain: "Evaluator | None" = None,
) -> tuple[Selection, ...]:
    """Run the selection methods, in the request's order, each until it is done or `stop` is true.

    With `plain`, which the request's `verify_exact` asks for, each is run again there: one that remembers
    nothing and scores in full. Raises BadTask or NotExact where anything differs.
    """
    if request.verify_exact and plain is None:
        raise ValueError("verify_exact needs a plain evaluator")
    contenders = contenders_of(ranking.candidates)
    begin = {name: partial(make, contenders, accept=request.accept) for name, make in methods.items()}
    searches = _carried_out(begin, evaluator, stop, watch)
    for name, (selection, _) in searches.items():
        if not selection.complete:
            steps = counted(len(selection.steps), "step")
            watch.say(f"{name}: time is up after {steps}; the best until then is used")
    if plain is not None:
        verification = Verification(plain, evaluator, ranking, watch)
        for name, (selection, outcomes) in searches.items():
            verification.compare(name, selection, outcomes, begin[name]())
    return tuple(selection for selection, _ in searches.values())


_Search = tuple[Selection, Mapping[Trial, Outcome]]
"""What a method found, and all that it was told."""


def _carried_out(
    begin: Mapping[str, Callable[[], "SelectionMethod"]],
    evaluator: "SharedEvaluator",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> dict[str, _Search]:
    """Every method's search; all from the start again where bounds turn out to be doubtful.

    All, since nobody knows which method was told such a bound.
    """
    for attempt in count():
        searches: dict[str, _Search] = {}
        try:
            for name, make in begin.items():
                searches[name] = _search(name, make(), evaluator, stop, watch)
            evaluator.confirm()
        except OrderDependent as found:
            if attempt == FORESEEN:  # more often than processes could each find it once
                raise
            if attempt == 0:
                watch.say(f"{found}; every search starts again, completed scores are remembered")
        else:
            return searches
    raise AssertionError("count() does not end")


def _search(
    name: str,
    method: "SelectionMethod",
    evaluator: "SharedEvaluator",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> _Search:
    stage = f"select: {name}"
    watch.start(stage, method.most_soups)
    heard = Heard(partial(watch.advance, stage))
    return run_selection(method, evaluator, stop=stop, heard=heard), heard.outcomes
