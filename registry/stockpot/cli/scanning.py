"""Commands about sweeps that finish: rules, scans, announcements."""

from pathlib import Path
from typing import Annotated

import typer

from stockpot import calls
from stockpot.cli.options import Json
from stockpot.cli.terminal import add_row, echo, new_table, out, plain, print_heading, tell
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.prose import counted
from stockpot.workflow.scanning.findings import Done, Scan
from stockpot.workflow.scanning.overview import RulesCheck, Stage

RulesFile = Annotated[
    Path | None,
    typer.Option("--rules", help="File of rules; STOCKPOT_RULES, else rules.toml in STOCKPOT_HOME."),
]

rules_app = typer.Typer(help="Which finished sweeps become soups.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Give the program these commands."""
    app.command("scan", epilog="Example: stockpot scan --dry-run")(scan)
    app.command("announce", epilog="Example: stockpot announce 1f0c...e2 --rule birds")(announce)
    app.add_typer(rules_app, name="rules")


def scan(
    *,
    rules: RulesFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Find the sweeps that finished since the last scan, and make their soups here, one after the other."""
    found, done = watched(lambda watch: calls.scan(rules, dry_run=dry_run, watch=watch))
    if as_json:
        echo({**to_document(found), "done": [to_document(one) for one in done], "dry_run": dry_run})
    else:
        _show_scan(found, done)
    if failed := [one.exit_code for one in done if one.exit_code]:
        raise typer.Exit(failed[0])


@rules_app.command("check", epilog="Example: stockpot rules check --rules rules.toml")
def check_rules(*, rules: RulesFile = None, as_json: Json = False) -> None:
    """Tell what each rule would match now. Changes nothing."""
    found = watched(lambda watch: calls.check_rules(rules, watch=watch))
    if as_json:
        echo(to_document(found))
    else:
        _show_rules(found)


def announce(
    run_id: Annotated[str, typer.Argument(help="Run id of the sweep's parent run.", metavar="RUN_ID")],
    *,
    rule: Annotated[str | None, typer.Option(help="The rule that the sweep falls under.")] = None,
    as_json: Json = False,
) -> None:
    """Tell that a sweep has finished: the next scan asks for its soup."""
    from stockpot.announcing import announced

    told = announced(run_id, rule=rule)
    text = f"the sweep {run_id} is announced: its tag stockpot.soup holds {told.tag}"
    tell(to_document(told), "\n".join([text, *(f"- {note}" for note in told.notes)]), as_json=as_json)


def _show_scan(found: Scan, done: tuple[Done, ...]) -> None:
    print_heading(counted(len(found.sightings), "sweep"), f" to look at, {len(found.asked)} asked for")
    if found.sightings:
        table = new_table("sweep", "run id", "experiment", "rule", "stands", "")
        for one in found.sightings:
            add_row(table, one.name, one.sweep, one.experiment, one.rule, one.standing, one.detail)
        for column in table.columns:
            column.justify = "left"
        out.print(table)
    for worked in done:
        told = worked.fault or f"answered, {', '.join(worked.versions) or 'no version'}"
        out.print(plain(f"{worked.sweep}: {told}"), soft_wrap=True)
    _show_notes(found.notes)


def _show_rules(found: RulesCheck) -> None:
    print_heading(found.file, f": {counted(len(found.rules), 'rule')}")
    table = new_table("rule", "model", *(f"{stage}" for stage in Stage), "experiments")
    for rule in found.rules:
        numbers = [f"{rule.count(stage):,}" for stage in Stage]
        add_row(table, rule.rule, rule.model, *numbers, f"{len(rule.experiments):,}")
    out.print(table)
    _show_notes(found.notes)


def _show_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        out.print(plain(f"- {note}"), soft_wrap=True)
