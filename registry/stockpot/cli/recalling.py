"""The command that takes back what a soup was made of."""

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from stockpot import calls
from stockpot.cli.options import Json
from stockpot.cli.terminal import echo, out, plain
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.entities import Recall, RecallKind
from stockpot.errors import BadRequest
from stockpot.prose import counted, minute, one_line
from stockpot.wiring import Workplace
from stockpot.workflow.lineage.recall import Reached, Recalling, Replacement
from stockpot.workflow.publishing.alias import is_earned

commands = typer.Typer()
NOTHING_DONE = 2
"""The exit code where --yes would have been needed, and there is nobody to ask."""

Run = Annotated[str | None, typer.Option("--run", help="Run id of what is recalled.")]
Checkpoint = Annotated[str | None, typer.Option("--checkpoint", help="Or its digest: sha256:...")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Or every run that used it: its digest as MLflow shows it.")
]

Domain = Annotated[
    str | None,
    typer.Option("--domain", help="Or every run whose tag stockpot.domain names it, or * for all data."),
]


@commands.command(epilog="Example: stockpot recall --run 1f0c...e2 --reason 'mislabelled data'")
def recall(  # noqa: PLR0913 - one parameter per option
    *,
    run: Run = None,
    checkpoint: Checkpoint = None,
    dataset: Dataset = None,
    domain: Domain = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads it beside the versions.")] = "",
    by: Annotated[
        str | None, typer.Option(help="Who asks; by default as git or the system tells, with the host.")
    ] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take an earlier recall back.")] = False,
    no_search: Annotated[
        bool, typer.Option("--no-search", help="Mark alone: search for no soup in the place of others.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Only tell what was ever recalled.")] = False,
    really: Annotated[
        bool | None, typer.Option("--yes/--dry-run", help="Do it, or tell alone what would be done.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recall a run, a checkpoint or data: mark the versions that hold it, and search anew without it.

    Moves no alias. Without --yes the plan is shown, and a person at a terminal is asked; exit code 2 where
    there is none.
    """
    if listed:
        _show_words(as_json=as_json)
        return
    kind, name = _subject(
        {
            RecallKind.RUN: run,
            RecallKind.CHECKPOINT: checkpoint,
            RecallKind.DATASET: dataset,
            RecallKind.DOMAIN: domain,
        }
    )

    def look(*, really: bool) -> Recalling:
        return watched(
            lambda watch: calls.recall(
                kind,
                name,
                reason=reason,
                by=by,
                withdraw=withdraw,
                search=not no_search,
                really=really,
                watch=watch,
            )
        )

    if really is not True:
        _show(plan := look(really=False), as_json=as_json)
        if really is False:
            return
        if as_json or not sys.stdin.isatty():
            if not as_json:
                out.print("Nothing was changed: --yes does it.")
            raise typer.Exit(NOTHING_DONE)
        typer.confirm(f"{'Withdraw the recall of' if withdraw else 'Recall'} {plan.word.told}?", abort=True)
    done = look(really=True)
    _show(done, as_json=as_json)
    _end(done)


def _subject(given: Mapping[RecallKind, str | None]) -> tuple[RecallKind, str]:
    """What is recalled. Raises BadRequest unless it is one thing."""
    named = [(kind, name) for kind, name in given.items() if name is not None]
    if len(named) != 1:
        mend = "give one of --run, --checkpoint, --dataset and --domain"
        raise BadRequest("name one thing to recall", mend=mend)
    return named[0]


def _show(found: Recalling, *, as_json: bool) -> None:
    if as_json:
        echo(to_document(found))
        return
    did = ("withdrawn" if found.word.withdrawn else "recalled") if found.done else "to be recalled"
    if found.word.withdrawn and not found.done:
        did = "to be withdrawn"
    _print(f"{found.word.told} is {did}, by {found.word.by}: {found.word.reason}")
    for one in found.versions:
        _print(_told(one, found))
    for search in found.replacements:
        _print(_searched(search, found))
    for note in found.notes:
        _print(f"- {note}")


def _told(one: Reached, found: Recalling) -> str:
    if not one.is_there:
        return f"  {one.uri} holds it, and is {one.standing}"
    mark = "its tag says so" if one.done else "its tag will say so"
    if one.fault:
        mark = f"its tag cannot say so: {one.fault}"
    copy = f", a copy of {one.copy_of}" if one.copy_of else ""
    text = f"  {one.uri} holds it{copy}: {mark}"
    instead = next((s.found[-1] for s in found.replacements if one.uri in s.replaces and s.found), None)
    for alias in one.aliases:
        how = f"to {instead or 'another version'}, or away, on the model's page in MLflow"
        if not is_earned(alias):  # which no policy guards
            command = f"stockpot promote {instead or 'URI'} --to {alias} --reason TEXT"
            how += f"; where a policy guards it, {command}"
        text += f". The alias {alias} points at it, and stays until somebody moves it: {how}"
    return text


def _searched(search: Replacement, found: Recalling) -> str:
    of = ", ".join(search.replaces)
    if search.fault:
        mend = f". To mend it: {search.mend}" if search.mend else ""
        return f"  no soup was found in the place of {of}: {search.fault}{mend}"
    if not search.done:
        return f"  the request that found {of} {'is' if found.done else 'will be'} searched anew without it"
    ended = ", ".join(search.found) or "no version"
    return f"  the request that found {of} ends in {ended} now; {search.passes:.1f} forward passes"


def _print(line: str) -> None:
    out.print(plain(one_line(line)), soft_wrap=True)


def _end(done: Recalling) -> None:
    """Exit with the code of the first thing that failed."""
    codes = [one.exit_code for one in done.versions] + [one.exit_code for one in done.replacements]
    if failed := next(filter(None, codes), 0):
        raise typer.Exit(failed)


def _show_words(*, as_json: bool) -> None:
    with Workplace() as place:
        words = place.store.recalls()
    if as_json:
        echo([to_document(word) for word in words])
        return
    for word in words:
        _print(_line(word))
    out.print(f"{counted(len(words), 'word')} about runs, checkpoints and data.", highlight=False)


def _line(word: Recall) -> str:
    did = "withdrawn" if word.withdrawn else "recalled"
    return f"{minute(word.at)}, {word.told} {did} by {word.by}: {word.reason}"
