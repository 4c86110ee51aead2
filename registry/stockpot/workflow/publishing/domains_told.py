"""A report's domains in words: the table by domain, and what each average gave."""

from collections.abc import Iterator, Mapping, Sequence

from stockpot.entities import BestRun, DomainScore, EnsembleRow, ReferenceRow, ReportRow, SoupReport
from stockpot.entities.domain import ALL, is_own, labels
from stockpot.prose import listed
from stockpot.workflow.publishing.collisions_told import collision_sentences
from stockpot.workflow.publishing.verdict import gain, is_of_too_few, row_of, score_of
from stockpot.workflow.selecting.by_features import ROUTED_BY_FEATURES
from stockpot.workflow.selecting.by_posterior import BY_POSTERIOR
from stockpot.workflow.selecting.rows import GENERALIST, score

WORST = "worst of the mixture"
UNSEEN = "mean of unseen"
NOT_DOMINATED = "*"
"""Behind the label of a row that no row with as few forward passes equals or beats on each domain."""
NOT_DOMINATED_IS = (
    "no row as cheap is as good on each domain of the mixture, and better on one; rows whose models are each "
    "asked about its domain are rivals of such rows only"
)
GAVE = {
    "hyperparameters": "Averaging across hyperparameters, within each domain",
    "domains": "Averaging across domains, of each its best run",
    "both": "Averaging across both",
    "all data": "Averaging across both, in place of one run that is trained on all data",
    "own": "Each domain's greedy soup by its own score, then the mean across",
    "extrapolation": "Going on from the base, beyond the greedy soup",
    "ties": "TIES, in place of the mean",
}
FEW = "too few origins for a verdict on"
Row = ReportRow | EnsembleRow | ReferenceRow


def domain_columns(report: SoupReport) -> tuple[str, ...]:
    """Of the table by domain: the domains that count, those that do not, and what is made of them. Empty
    where there are not several.
    """
    if report.mixture is None:
        return ()
    counting = [*report.mixture.shares]
    others = [domain for domain in report.mixture.examples if domain not in report.mixture.shares]
    unseen = [UNSEEN] if _unseen(report) else []
    return (*counting, *others, WORST, *unseen)


def domain_cells(row: Row, report: SoupReport) -> list[str]:
    """A line of that table: the label, behind its forward passes where it takes several, and scores on the
    report split; empty where unknown.
    """
    values = domain_values(row, report)
    mark = f" {NOT_DOMINATED}" if not _is_dominated(row, report) else ""
    told = (score(values[name], report.unit) if name in values else "" for name in domain_columns(report))
    cost = "" if row.inference_cost == 1 else f"{row.inference_cost} x: "
    return [f"{cost}{row.label}{mark}", *told]


def domain_rows(report: SoupReport) -> list[Row]:
    """The lines of that table: those that have scores by domain."""
    return [row for row in report.table if row.domains]


def domain_sentences(report: SoupReport) -> Iterator[str]:
    """What is selected by, and the answers: what each kind of average gave, and on which domain it cost."""
    mixture = report.mixture
    if mixture is None:
        return
    split, unit = report.request.report_on, report.unit
    shares = ", ".join(f"{domain} {share:.3g}" for domain, share in mixture.shares.items())
    by = "the worst of these domains" if mixture.worst else "their mean"
    yield f"the mixture is {shares}; selected by {by}, reported by their mean"
    if report.request.shifts:
        yield f"on {listed(report.request.shifts)} each example counts alike, whatever its domain"
    if mixture.unseen:
        of_all = any(ALL in labels(told) for told in mixture.runs.values())
        but = f", unless runs of all data ({ALL}) were trained on them" if of_all else ""
        yield f"no run names {listed(mixture.unseen)}: scores there are of unseen domains{but}"
    for contrast in report.contrasts or ():
        told = f"{gain(contrast.comparison, unit)} on split {split}"
        one = _only_domain(contrast.after, report) if contrast.what in {"both", "all data"} else ""
        after = f"{contrast.after}, all of whose runs are of {one}" if one else contrast.after
        yield f"{GAVE[contrast.what]}: {told} ({after}, compared with: {contrast.before})"
    generalist = row_of(report, GENERALIST)
    if generalist is not None and not generalist.recipe.is_soup:
        yield f"{GAVE['both']}: nothing, greedy found no soup that is as good as the best single candidate"
    if generalist is not None:
        yield from _verdicts(generalist, report)
    for row in report.rows:
        if row.versus_specialists:
            worst = min(row.versus_specialists.values(), key=lambda found: found.difference)
            domain = next(d for d, found in row.versus_specialists.items() if found is worst)
            yield (
                f"beside each domain's specialist, the {row.label} does least well on {domain}: "
                f"{gain(worst, unit)}; the intervals of all domains hold at once"
            )
    yield from filter(None, (_left_out(best, report) for best in report.best_runs or ()))
    yield from collision_sentences(report)
    if report.base is None:
        named = report.request.base is not None
        why = (
            "the base is not of the models' architecture"
            if named
            else "base unknown, since --base names none"
        )
        yield f"{why}: this may be worse than no fine-tuning"


def _verdicts(row: ReportRow, report: SoupReport) -> Iterator[str]:
    """What is shown of each domain, among all of them; nothing for the best single candidate itself."""
    found: dict[str, list[str]] = {"better on": [], "worse on": [], "not told apart on": [], FEW: []}
    for domain in domain_columns(report):
        cell = (row.domains or {}).get(domain)
        versus = cell.versus_best if cell else None
        if versus is None:
            continue
        shown = "better on" if versus.low > 0 else "worse on" if versus.high < 0 else "not told apart on"
        kind = FEW if is_of_too_few(versus) else shown
        found[kind].append(f"{domain}: {gain(versus, report.unit)}")
    if told := "; ".join(f"{kind} {', '.join(some)}" for kind, some in found.items() if some):
        yield f"the {row.label}, domain by domain beside the best single candidate, by Holm's levels: {told}"


def _left_out(best: BestRun, report: SoupReport) -> str:
    """That a domain's best run has no part in the generalist, and why: what the search lost by it, and on
    which domain that run itself loses most. Empty where it has one, or was not tried.
    """
    search = next((found for found in report.selections if found.method == GENERALIST), None)
    steps = () if search is None else search.steps
    tried = next((s for s in steps if s.tried[1:] and s.tried[-1] == best.checkpoint and not s.kept), None)
    if tried is None:
        return ""
    without = next((step for step in steps if step.tried == tried.tried[:-1]), None)
    names = {candidate.checkpoint: candidate.run_name for candidate in report.candidates}
    run = names.get(best.checkpoint, best.checkpoint)
    told = (
        f"{GENERALIST} left out {run}, the best run of {best.domain}: "
        f"with it the held-out score is {score_of(tried, report.unit)}"
    )
    if without is not None:
        told += f", without it {score_of(without, report.unit)}"
    counting = report.mixture.shares if report.mixture else {}
    gains = {domain: cell.versus_best for domain, cell in best.domains.items() if domain in counting}
    losses = {domain: found for domain, found in gains.items() if found and found.difference < 0}
    if not losses:
        return told
    most = min(losses, key=lambda domain: losses[domain].difference)
    return (
        f"{told}; by itself, compared with the best single candidate, it does least well on {most}: "
        f"{gain(losses[most], report.unit)}"
    )


def domain_values(row: Row, report: SoupReport) -> dict[str, float]:
    """The numbers of that line, by column: those that are known."""
    found = {domain: cell.score for domain, cell in (row.domains or {}).items()}
    mixture = report.mixture
    if mixture is not None and found.keys() >= mixture.shares.keys():
        found[WORST] = min(found[domain] for domain in mixture.shares)
    unseen = [found[domain] for domain in _unseen(report) if domain in found]
    if unseen and len(unseen) == len(_unseen(report)):
        found[UNSEEN] = sum(unseen) / len(unseen)
    return found


def _only_domain(label: str, report: SoupReport) -> str:
    """The one domain that all runs of this row name, or that they are of all data; empty where there are
    several, or no run of the sweep tells any.
    """
    row = next(row for row in report.rows if row.label == label)
    runs = {candidate.checkpoint: candidate.run_id for candidate in report.candidates}
    named = report.mixture.runs if report.mixture else {}
    if not named:
        return ""
    told = {named.get(runs.get(checkpoint, ""), ALL) for checkpoint in row.recipe.checkpoints}
    first = next(iter(told))
    if len(told) > 1 or not is_own(first, first):
        return ""
    return "all data" if first == ALL else first


def _unseen(report: SoupReport) -> Sequence[str]:
    mixture = report.mixture
    return () if mixture is None else [domain for domain in mixture.unseen if domain in mixture.examples]


def _is_dominated(row: Row, report: SoupReport) -> bool:
    """Whether another row, with no more forward passes, is as good on each domain that counts, and better on
    one. One that must be told the domain is no rival of a row that need not: it would beat them all.
    """
    counting = [*report.mixture.shares] if report.mixture else []
    mine = _on(row.domains, counting)
    if mine is None:
        return True
    rivals = (
        other
        for other in domain_rows(report)
        if other.inference_cost <= row.inference_cost
        and (_is_asked_by_domain(row) or not _is_asked_by_domain(other))
    )
    others = (theirs for other in rivals if (theirs := _on(other.domains, counting)) is not None)
    return any(
        all(theirs >= ours for theirs, ours in zip(found, mine, strict=True)) and found != mine
        for found in others
    )


def _is_asked_by_domain(row: Row) -> bool:
    unasked = {BY_POSTERIOR, *ROUTED_BY_FEATURES}
    return isinstance(row, ReferenceRow) and len(row.recipes) > 1 and row.label not in unasked


def _on(cells: Mapping[str, DomainScore] | None, domains: Sequence[str]) -> list[float] | None:
    found = cells or {}
    return [found[domain].score for domain in domains] if found.keys() >= {*domains} else None
