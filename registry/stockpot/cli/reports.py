"""What the commands of `stockpot.cli.operations` print."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from textwrap import shorten

import typer

from stockpot.cli.terminal import add_row, echo, new_table, out, plain
from stockpot.diagnosis import Diagnosis, Health
from stockpot.documents import to_document
from stockpot.entities import Discrepancy, JobState, Pruned, short
from stockpot.prose import counted, one_line, size
from stockpot.workflow.status import JobStatus, Status

FAULT = 240
"""Characters of a fault. --json tells all."""
_COLOURS = {Health.OK: "green", Health.WARNING: "yellow", Health.FAULT: "red"}


def show_diagnoses(found: Iterable[Diagnosis], *, as_json: bool) -> None:
    """Each as soon as it is known. Exits with the code of the first fault."""
    shown = []
    for one in found:
        shown.append(one)
        if not as_json:
            _show_diagnosis(one)
    if as_json:
        echo([to_document(one) for one in shown])
    if fault := next((one for one in shown if one.health is Health.FAULT), None):
        raise typer.Exit(fault.exit_code)


def show_status(found: Status, *, as_json: bool) -> None:
    """The jobs by their state, and what the machine holds."""
    if as_json:
        echo(to_document(found))
        return
    out.print(", ".join(f"{number:,} {state}" for state, number in found.counts.items()), highlight=False)
    if found.jobs:
        table = new_table("job", "state", "since (UTC)", "model", "sweep", "what")
        for job in found.jobs:
            add_row(table, short(job.name), job.state, _when(job.since), job.model, job.sweep, _what(job))
        for column in table.columns:
            column.justify = "left"
        out.print(table)
    for job in found.jobs:
        if job.next:
            out.print(plain(f"{short(job.name)}: {one_line(job.next)}"), soft_wrap=True)
    for ask in found.asks:
        out.print(plain(f"not answered: {one_line(ask.told)}"), soft_wrap=True)
    last = _when(found.last_sign_of_life) if found.last_sign_of_life else "none yet"
    outputs = "" if found.outputs_bytes is None else f", outputs {size(found.outputs_bytes)}"
    out.print(
        f"{counted(found.evaluations, 'evaluation')} in the store. Cache: "
        f"{counted(found.cache_files, 'checkpoint')}, {size(found.cache_bytes)}{outputs}. "
        f"Last sign of life: {last}.",
        highlight=False,
        soft_wrap=True,
    )


def _what(job: JobStatus) -> str:
    attempts = f" ({counted(job.attempts, 'attempt')} lost or failed)" if job.attempts else ""
    if job.state is JobState.RUNNING:
        done = "" if job.evaluations is None else f", {counted(job.evaluations, 'evaluation')} so far"
        return f"{job.where.partition(', since ')[0]}{done}{attempts}"
    if job.state is JobState.FAILED:
        return f"{shorten(one_line(job.fault), FAULT, placeholder=' ...')}{attempts}"
    if job.state is JobState.DONE:
        return ", ".join(job.versions) or "nothing was registered"
    others = {
        JobState.WAITING: "a trigger asked for it",
        JobState.REPLACED: "its rule wants another job by now",
    }
    return f"{others.get(job.state, 'ended early')}{attempts}"


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def show_pruned(found: Sequence[Pruned], *, really: bool, as_json: bool) -> None:
    """How many of each kind, and their bytes."""
    if as_json:
        echo({"removed": really, "found": [to_document(one) for one in found]})
        return
    table = new_table("removed" if really else "would go", "number", "size")
    for one in found:
        add_row(table, one.kind, f"{one.number:,}", size(one.bytes))
    out.print(table)
    if not really:
        some = any(one.number for one in found)
        out.print("Nothing was removed: --yes removes it." if some else "There is nothing to remove.")


def show_discrepancies(found: Sequence[Discrepancy], *, as_json: bool) -> None:
    """Each with what became of it. Exits with the code of the first remedy that failed."""
    if as_json:
        echo([to_document(one) for one in found])
    else:
        for one in found:
            _show_discrepancy(one)
        left = sum(bool(one.remedy) and not one.done for one in found)
        end = f" {counted(left, 'thing')} can be settled: --yes does it." if left else ""
        out.print(f"{counted(len(found), 'discrepancy', 'discrepancies')}.{end}", highlight=False)
    if failed := next((one for one in found if one.fault), None):
        raise typer.Exit(failed.exit_code)


def _show_discrepancy(one: Discrepancy) -> None:
    lines = [f"{one.kind}: {one.what}", f"  {one.told}"]
    if one.remedy:
        lines.append(f"  {'done' if one.done else 'with --yes'}: {one.remedy}")
    if one.fault:
        lines.append(f"  it failed: {one.fault}")
    if one.mend and not one.done:
        lines.append(f"  To mend it: {one.mend}")
    out.print(plain("\n".join(map(one_line, lines))), soft_wrap=True)


def _show_diagnosis(one: Diagnosis) -> None:
    line = plain(f"{one.health.value:<8} {one.part:<8} {one.told}")
    line.stylize(_COLOURS[one.health], 0, len(one.health.value))
    out.print(line, soft_wrap=True)
    if one.mend:
        out.print(plain(f"{'':<17} To mend it: {one.mend}"), soft_wrap=True)
