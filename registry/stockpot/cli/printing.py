"""What the commands print."""

import os
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.table import Table

from stockpot.cli.protocol import protocol_lines
from stockpot.cli.terminal import add_row, echo, err, new_table, out, plain, print_heading
from stockpot.documents import to_document
from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    Digest,
    EnsembleRow,
    EvaluationProtocol,
    Exclusion,
    FiledReport,
    ModelVersion,
    ReferenceRow,
    ReportRow,
    Selection,
    Snapshot,
    SoupOutcome,
    SoupReport,
    short,
)
from stockpot.errors import TRACEBACK, BadTask, StockpotError, Unexpected
from stockpot.logs import LOG, writes_json
from stockpot.ports import Tracker
from stockpot.prose import counted, one_line
from stockpot.secrets import without_secrets
from stockpot.soup import CONVERSION, RUN_IDS
from stockpot.workflow.gathering.enough import NAMED, alike, found_of
from stockpot.workflow.plan import Plan
from stockpot.workflow.publishing.collisions_told import COSTS_ARE, collision_tables
from stockpot.workflow.publishing.domains_told import (
    NOT_DOMINATED,
    NOT_DOMINATED_IS,
    domain_cells,
    domain_columns,
    domain_rows,
    domain_sentences,
)
from stockpot.workflow.publishing.publication import told
from stockpot.workflow.publishing.verdict import (
    BESIDE_SCORES,
    cells,
    columns,
    ends,
    reasons,
    row_that_is,
    score_of,
    sentence,
    signed,
)
from stockpot.workflow.selecting.rows import label as row_label
from stockpot.workflow.selecting.rows import score

if TYPE_CHECKING:
    from stockpot.evaluation.task_contract import Finding

DETAIL = 240
"""Characters shown of why a run was excluded; of several for one reason, those of the first few."""


@contextmanager
def errors_told(*, as_json: bool) -> Iterator[None]:
    """Errors become a message on stderr and an exit code; the traceback is shown where it is asked for."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever nobody foresaw is told without secrets
        if os.environ.get(TRACEBACK) and not writes_json():
            shown = without_secrets("".join(traceback.format_exception(error)))
            err.print(plain(shown), soft_wrap=True, highlight=False)
        told = error if isinstance(error, StockpotError) else Unexpected.of(error)
        show_error(told, as_json=as_json)
        raise SystemExit(told.exit_code) from None


def show_error(error: StockpotError, *, as_json: bool) -> None:
    """What is wrong, where, and what mends it."""
    document = {
        "error": type(error).__name__,
        "what": error.what,
        "faults": error.faults,
        "mend": error.mend,
    }
    if writes_json():
        LOG.error(error.what, extra=document, exc_info=bool(os.environ.get(TRACEBACK)))
    elif as_json:
        echo(document, err=True)
    else:
        err.print(plain(f"error: {error}"), style="red", soft_wrap=True)


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Candidates, exclusions, bytes and passes."""
    if as_json:
        echo(to_document(plan))
        return
    print_heading(counted(len(plan.candidates), "candidate"))
    table = new_table("run", "weights", "MB", "checkpoint")
    for found in plan.candidates:
        read = found.checkpoint
        size = read.size if read else found.source.size
        name = short(read.digest) if read else "not read yet"
        add_row(table, found.run.name, found.source.path, f"{(size or 0) / 1e6:.1f}", name)
    out.print(table)
    show_exclusions(plan.exclusions)
    for note in plan.notes:
        out.print(plain(f"- {note}"), soft_wrap=True)
    out.print(
        f"{plan.weight_bytes / 1e6:.1f} MB of weights. Forward passes to expect: {plan.ranking_passes} to "
        f"rank, at most {plan.selection_passes} to select, at most {plan.report_passes} to report"
        + (f", at most {plan.base_passes} for the base" if plan.base_passes else "")
        + (f", at most {plan.statistics_passes} for statistics." if plan.statistics_passes else "."),
        highlight=False,
    )
    _show_protocol([plan.protocol] if plan.protocol else [], {})


def show_outcome(outcome: SoupOutcome, *, as_json: bool) -> None:
    """The table, the verdict, the exclusions and where the versions are."""
    if as_json:
        echo(to_document(outcome))
        return
    report = outcome.report
    show_exclusions(report.exclusions)
    _show_report(report)
    for soup in outcome.soups:
        label = row_label(soup.methods) if soup.methods else "best single"
        if not soup.uri:
            out.print(plain(f"{label} is {soup.state}: {soup.why}"), soft_wrap=True)
            continue
        did = "was registered before as" if soup.adopted else "is registered as"
        alias = f", alias {', '.join(soup.aliases)}" if soup.aliases else ""
        where = f"  {soup.link}" if soup.link else ""
        why = f". {soup.why}" if soup.why else ""
        out.print(plain(f"{label} {did} {soup.uri}{alias}{where}{why}"), soft_wrap=True)
    if not outcome.soups:
        out.print("Every method ended in one candidate: there is nothing to register.")
    work = f"the work of {outcome.passes:.1f} forward passes"
    done = counted(outcome.evaluations, "evaluation")
    out.print(f"{done} over a split by this process, {work}.", highlight=False)


def show_snapshot(
    version: ModelVersion,
    snapshot: Snapshot,
    tracker: Tracker,
    reports: Sequence[FiledReport] = (),
    *,
    as_json: bool,
) -> None:
    """All that is known of a registered soup, with links that a browser opens. `reports`: of this version."""
    link = tracker.link(version)
    if as_json:
        echo(
            {
                "version": to_document(version),
                "link": link,
                **to_document(snapshot),
                "reports": [{"version": version.uri, **to_document(one)} for one in reports],
            }
        )
        return
    aliases = " ".join(f"@{alias}" for alias in version.aliases)
    out.print(plain(f"{version.uri} {aliases} {link or ''}"), style="bold")
    out.print(plain(f"recipe      {snapshot.recipe.digest}\ncheckpoint  {snapshot.checkpoint}"))
    out.print(plain("made with   " + ", ".join(f"{k} {v}" for k, v in snapshot.versions.items())))
    _show_report(snapshot.report)
    _show_protocol(snapshot.report.protocols[:1], snapshot.report.request.task_args)
    _show_ingredients(snapshot, tracker)
    row = row_that_is(snapshot.report, snapshot.recipe.digest)
    names = {c.checkpoint: c.run_name for c in snapshot.report.candidates}
    for selection in snapshot.report.selections:
        if selection.method in row.methods:
            _show_steps(selection, names, snapshot.report.unit)
    others = [one for one in reports if one.report != snapshot.report]
    if others:
        print_heading("Other requests", " that ended in this soup, oldest first")
    for one in others:
        out.print(plain(f"- {version.uri}: {told(one, snapshot.recipe)}"), soft_wrap=True)


def show_findings(task: str, findings: "Sequence[Finding]", *, as_json: bool) -> None:
    """What was seen of each promise of a task. Raises BadTask where any is broken, with every mend."""
    if as_json:
        echo([to_document(finding) for finding in findings])
    else:
        table = new_table("a task", "seconds", "", "seen")
        table.columns[-1].justify = table.columns[-2].justify = "left"
        for one in findings:
            kept = "broken" if one.fault else "kept"
            add_row(table, f"{one.promise}, {one.split}", f"{one.seconds:.2f}", kept, one.told)
        out.print(table)
    faults = [f"{one.fault}. To mend it: {one.mend}" for one in findings if one.fault]
    if faults:
        raise BadTask(f"{task} breaks its contract", faults=faults, mend="see what each fault says")


def show_exclusions(exclusions: Sequence[Exclusion]) -> None:
    """Each reason once, with its runs and its mend."""
    if not exclusions:
        return
    print_heading(counted(len(exclusions), "excluded run"))
    table = new_table("", "")
    table.show_header = False
    for group in alike(exclusions):
        room = DETAIL * min(len(group), NAMED)
        found = shorten(one_line(found_of(group)), room, placeholder=" ... (--json tells all)")
        shown = "see below" if group[0].mend == CONVERSION else group[0].mend
        mend = f". To mend it: {shown}" if shown else ""
        add_row(table, counted(len(group), "run"), f"{group[0].reason}: {found}{mend}")
    out.print(table)
    if pickled := [exclusion.run_id for exclusion in exclusions if exclusion.mend == CONVERSION]:
        lines = CONVERSION.replace(
            RUN_IDS, ", ".join(f'"{run}"' for run in pickled)
        )  # lines that people copy
        out.print(plain(f"Pickled weights: {lines}\n"), soft_wrap=True)


def _show_report(report: SoupReport) -> None:
    request = report.request
    unit = "points" if report.unit is None else report.unit
    print_heading(
        f"Scores, in {unit}" if unit else "Scores",
        f": {request.select_on} is held-out, the others are untouched",
    )
    splits = columns(request)
    table = new_table("", *BESIDE_SCORES, *splits)
    for row in report.table:
        add_row(table, *cells(row, splits, report.unit))
    out.print(table)
    gains = new_table(
        "gain over the best single", "on", unit or "difference", "95 % interval", "n", "McNemar p"
    )
    for row in report.table:
        _add_gains(gains, row, (request.report_on, MEAN_OF_SHIFTS), report.unit)
    if gains.row_count:
        out.print(gains)
    _show_curve(report)
    if by_domain := domain_columns(report):
        table = new_table(f"{request.report_on}, by domain", *by_domain)
        for row in domain_rows(report):
            add_row(table, *domain_cells(row, report))
        out.print(table)
        out.print(plain(f"{NOT_DOMINATED} {NOT_DOMINATED_IS}"), highlight=False, soft_wrap=True)
    for one in collision_tables(report):
        table = new_table(*one.head)
        for domain, costs in one.lines:
            add_row(table, domain, *costs)
        out.print(table)
        out.print(plain(COSTS_ARE), highlight=False, soft_wrap=True)
    verdicts = (sentence(row, request.report_on, report.unit) for row in report.rows[1:])
    for line in (*verdicts, *domain_sentences(report), *reasons(report), *report.notes):
        out.print(plain(f"- {line}"), soft_wrap=True)
    out.print()


def _show_curve(report: SoupReport) -> None:
    if report.curve is None:
        return
    print_heading(f"From the base to the {report.curve.label}", ": a picture, which chose nothing")
    splits = [split for split in columns(report.request) if split != report.request.report_on]
    table = new_table("share of the soup", *splits)
    for point in report.curve.points:
        add_row(table, f"{point.share:.1f}", *(score(point.scores[split], report.unit) for split in splits))
    out.print(table)


def _show_protocol(protocols: Sequence[EvaluationProtocol], given: Mapping[str, str]) -> None:
    for protocol in protocols:
        print_heading("Measured under", ": a score is remembered as long as all of this is the same")
        for line in protocol_lines(protocol, given):
            out.print(plain(line), soft_wrap=True)
        out.print()


def _add_gains(
    table: Table, row: ReportRow | EnsembleRow | ReferenceRow, splits: Iterable[str], unit: str | None
) -> None:
    for split in splits:
        if split not in row.versus_best:
            continue
        gain = row.versus_best[split]
        p = "" if gain.mcnemar_p is None else f"{gain.mcnemar_p:.2g}"
        add_row(table, row.label, split, signed(gain.difference, unit), ends(gain, unit), str(gain.n), p)


def _show_ingredients(snapshot: Snapshot, tracker: Tracker) -> None:
    varying = _varying_params(snapshot.ingredients)
    print_heading("Ingredients", ", in recipe order, with the hyperparameters in which they differ")
    table = new_table("run", "run id or link", "coefficient", "checkpoint", "hyperparameters")
    table.columns[-1].justify = "left"
    for candidate, ingredient in zip(snapshot.ingredients, snapshot.recipe.ingredients, strict=True):
        params = ", ".join(f"{name}={_brief(candidate.run.params.get(name, ''))}" for name in varying)
        coefficient = "by tensor" if snapshot.recipe.coefficients else f"{ingredient.factor:.4g}"
        checkpoint = short(ingredient.checkpoint)
        of_run = tracker.run_link(candidate.run) or candidate.run.run_id
        link = of_run if candidate.run.experiment_id else candidate.source.uri
        add_row(table, candidate.run.name, link, coefficient, checkpoint, params)
    out.print(table)


def _varying_params(candidates: Iterable[Candidate]) -> list[str]:
    seen: dict[str, set[str]] = {}
    for candidate in candidates:
        for name, value in candidate.run.params.items():
            seen.setdefault(name, set()).add(value)
    return sorted(name for name, values in seen.items() if len(values) > 1)


def _brief(value: str) -> str:
    """Four digits of a fraction, all of anything else."""
    try:
        return f"{float(value):.4g}" if "." in value or "e" in value else value
    except ValueError:
        return value


def _show_steps(selection: Selection, names: Mapping[Digest, str], unit: str | None) -> None:
    rule = f", accept={selection.rule}" if selection.rule else ""
    print_heading("Steps", f" of {selection.method}{rule}")
    table = new_table("tried", "held-out", "kept")
    for step in selection.steps:
        added = names.get(step.tried[-1], short(step.tried[-1]))
        tried = added if len(step.tried) == 1 else f"{len(step.tried) - 1} kept + {added}"
        add_row(table, tried, score_of(step, unit), "yes" if step.kept else "")
    out.print(table)
