"""The commands."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stockpot.cli import printing
from stockpot.entities import Accept, Direction, SoupOutcome, SoupRequest
from stockpot.errors import BadRequest, StockpotError
from stockpot.wiring import Workplace, make_folder

app = typer.Typer(
    name="stockpot",
    help="Turn a finished hyperparameter sweep in MLflow into a registered model soup.",
    epilog="Exit codes: 0 done, better or not; 2 usage; 3 bad request; 4 nothing to soup; 5 bad weights; "
    "6 bad task; 7 store; 8 MLflow; 1 anything else.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)
database = typer.Typer(help="Stockpot's own database.", no_args_is_help=True)
app.add_typer(database, name="db")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Version = Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS", metavar="URI")]


@app.command(
    epilog="Example: stockpot soup --sweep 1f0c...e2 --task arrays --task-arg data=birds.npz "
    "--task-arg model=birds.net:make --model birds --shift fog --shift night"
)
def soup(  # noqa: PLR0913 - one parameter per option
    *,
    model: Annotated[str, typer.Option(help="Registered model that the soups become versions of.")],
    task: Annotated[str, typer.Option(help="A task's name, or module:Class.")],
    sweep: Annotated[str | None, typer.Option(help="Run id of the sweep's parent run.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Experiment that is the sweep.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="MLflow filter over the runs.")] = None,
    task_arg: Annotated[list[str] | None, typer.Option(help="key=value for the task; repeatable.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="greedy, uniform, ...; repeatable.")] = None,
    accept: Annotated[Accept, typer.Option(help="When greedy keeps an ingredient.")] = Accept.NOT_WORSE,
    select_on: Annotated[str, typer.Option(help="Held-out split that selection looks at.")] = "validation",
    report_on: Annotated[str, typer.Option(help="Untouched split of the primary comparison.")] = "test",
    shift: Annotated[
        list[str] | None, typer.Option(help="Split under distribution shift; repeatable.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Glob for each run's weights file.")] = None,
    top: Annotated[int | None, typer.Option(help="Keep the best K >= 2 runs by a logged metric.")] = None,
    by: Annotated[str | None, typer.Option(help="That metric.")] = None,
    direction: Annotated[Direction, typer.Option(help="Better when larger or smaller.")] = Direction.MAX,
    max_seconds: Annotated[
        float | None,
        typer.Option(help="Stop searching after this long; a repeated request goes on from there."),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Points the interval's lower end must exceed for the alias challenger.")
    ] = -0.5,
    any_base: Annotated[bool, typer.Option("--any-base", help="Allow different starting points.")] = False,
    verify_exact: Annotated[
        bool, typer.Option("--verify-exact", help="Run the plain search as well, and compare everything.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done; evaluate nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Average the best fine-tuned models of a sweep, and register the result."""
    request = _request(
        model=model,
        task=task,
        task_args=_pairs(task_arg or ()),
        sweep=sweep,
        experiment=experiment,
        filter=filter_,
        methods=tuple(method or ("greedy", "uniform")),
        accept=accept,
        select_on=select_on,
        report_on=report_on,
        shifts=tuple(shift or ()),
        weights=weights,
        top=top,
        by=by,
        direction=direction,
        max_seconds=max_seconds,
        margin=margin,
        any_base=any_base,
        verify_exact=verify_exact,
    )
    if dry_run:
        printing.show_plan(
            printing.with_bars(lambda watch: Workplace().plan(request, watch)), as_json=as_json
        )
    else:
        printing.show_outcome(printing.with_bars(lambda _: run_flow(request)), as_json=as_json)


@app.command(epilog="Example: stockpot show models:/birds@challenger")
def show(uri: Version, as_json: Json = False) -> None:
    """Tell what a registered soup is made of, and how it was found and measured."""
    from stockpot.workflow.trace import snapshot_of

    tracker = Workplace().tracker
    version, snapshot = snapshot_of(uri, tracker)
    printing.show_snapshot(version, snapshot, tracker, as_json=as_json)


@app.command(epilog="Example: stockpot rebuild models:/birds/3 --out birds-3.safetensors")
def rebuild(
    uri: Version,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Make a registered soup's weights again from its ingredients, and compare the digest."""
    from stockpot.workflow.trace import rebuild as rebuild_version

    place = Workplace()
    checkpoint = rebuild_version(uri, place.tracker, place.supply, out)
    printing.tell(
        {"out": str(out), "digest": checkpoint.digest, "bytes": checkpoint.size},
        f"{out}: {checkpoint.size:,} bytes, {checkpoint.digest}: the same bytes as {uri}",
        as_json=as_json,
    )


@database.command(epilog="Example: stockpot db upgrade")
def upgrade(as_json: Json = False) -> None:
    """Bring the database to this program's schema."""
    from stockpot import store

    settings = Workplace().settings
    make_folder(settings.home)
    revision = store.upgrade(settings.database)
    printing.tell({"revision": revision}, f"the store is at schema {revision}", as_json=as_json)


@database.command(epilog="Example: stockpot db current")
def current(as_json: Json = False) -> None:
    """Tell the database's schema and this program's."""
    from stockpot import store

    settings = Workplace().settings
    make_folder(settings.home)
    found, head = store.current(settings.database), store.head()
    text = f"the store is at schema {found or 'none'}; this program's is {head}"
    printing.tell({"current": found, "head": head}, text, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors made on purpose become a message on stderr and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=list(arguments))
    except StockpotError as error:
        printing.show_error(error, as_json="--json" in arguments)
        raise SystemExit(error.exit_code) from None


def run_flow(request: SoupRequest) -> SoupOutcome:
    """Run the flow: in this process, unless Prefect is configured."""
    from stockpot_flows.embedded import configure

    home = Workplace().settings.home
    make_folder(home)
    configure(home)
    from stockpot_flows.soup_sweep import soup_sweep

    return soup_sweep(request)


def _request(**fields: object) -> SoupRequest:
    try:
        return SoupRequest(**fields)  # type: ignore[arg-type] # each option has its field's type
    except ValueError as error:
        raise BadRequest(str(error), mend="stockpot soup --help") from error


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise BadRequest(
            f"--task-arg takes key=value, got {', '.join(wrong)}", mend="--task-arg data=file.npz"
        )
    return dict(text.split("=", 1) for text in texts)
