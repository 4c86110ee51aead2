"""What `stockpot check` prints."""

from stockpot.cli.printing import show_exclusions
from stockpot.cli.terminal import add_row, echo, new_table, out, plain, print_heading
from stockpot.documents import to_document
from stockpot.prose import counted, listed
from stockpot.workflow.check import FoundWeights, Group, SweepCheck

NAMED = 3
"""Runs that are named of each group."""


def show_check(check: SweepCheck, *, as_json: bool) -> None:
    """Weights, groups, exclusions, and the command to go on with.

    Raises NothingToSoup, once all is printed, where there is nothing to average.
    """
    if as_json:
        echo(to_document(check))
    else:
        _show(check)
    check.require_enough()


def _show(check: SweepCheck) -> None:
    print_heading(counted(check.runs, "run"), f": {len(check.weights)} logged weights or a model")
    if check.weights:
        table = new_table("run", "weights", "taken", "why")
        for found in check.weights:
            add_row(table, found.run_name, _held(found), found.taken, found.why)
        for column in table.columns:
            column.justify = "left"
        out.print(table)
    if check.groups:
        print_heading("Groups", " of runs whose headers have the same tensors")
        table = new_table("runs", "tensors", "numbers", "types", "used", "which")
        for group in check.groups:
            add_row(table, str(len(group.runs)), *_size(group), "yes" if group.used else "no", _names(group))
        for column in table.columns[3:]:
            column.justify = "left"
        out.print(table)
    show_exclusions(check.exclusions)
    for note in check.notes:
        out.print(plain(f"- {note}"), soft_wrap=True)
    if check.command:
        out.print(f"{counted(check.candidates, 'candidate')}. To go on:", highlight=False)
        out.print(plain(check.command), soft_wrap=True, style="bold")


def _held(found: FoundWeights) -> str:
    """The forms, with their numbers where there are several files."""
    if sum(found.held.values()) == 1:
        return next(iter(found.held))
    return ", ".join(f"{count} x {form}" for form, count in found.held.items())


def _size(group: Group) -> tuple[str, str, str]:
    if group.tensors is None or group.parameters is None:
        return "unknown", "unknown", "unknown"
    return f"{group.tensors:,}", f"{group.parameters:,}", ", ".join(group.dtypes)


def _names(group: Group) -> str:
    return listed(group.runs, NAMED)
