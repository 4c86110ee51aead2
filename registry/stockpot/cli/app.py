"""The commands."""

import signal
import sys
import threading
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from stockpot import calls
from stockpot.cli import (
    attesting,
    automations,
    checking,
    discovering,
    ensembling,
    lineage,
    operations,
    options,
    printing,
    promoting,
    recalling,
    reporting,
    scanning,
    serving,
    terminal,
    trails,
)
from stockpot.cli.options import Json
from stockpot.cli.watching import watched
from stockpot.entities import Accept, Register, SoupRequest, tags
from stockpot.errors import BadRequest
from stockpot.ports import Watcher
from stockpot.prose import counted
from stockpot.settings import begin_log
from stockpot.watching import Sayings
from stockpot.wiring import Workplace, make_folder
from stockpot.workflow.check import SweepCheck


def _tell_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        typer.echo(f"stockpot {metadata.version('stockpot')}")
        raise typer.Exit


app = typer.Typer(
    name="stockpot",
    epilog="Exit codes: 0 done, better or not; 2 usage; 3 bad request; 4 nothing to soup; 5 bad weights; "
    "6 bad task; 7 store; 8 MLflow; 9 another process works on the request; 10 Prefect; "
    "11 the gate; 1 anything else.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


automations.add_to(app)
serving.add_to(app)


@app.callback()
def program(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a finished hyperparameter sweep in MLflow into a registered model soup."""


database = typer.Typer(help="Stockpot's own database.", no_args_is_help=True)
app.add_typer(database, name="db")

tasks = typer.Typer(help="What says how a model is scored.", no_args_is_help=True)
app.add_typer(tasks, name="task")

scanning.add_commands(app)
app.add_typer(discovering.commands)
app.add_typer(operations.commands)
app.add_typer(promoting.commands)
app.add_typer(lineage.commands)
app.add_typer(recalling.commands)
app.add_typer(reporting.commands)
app.add_typer(trails.commands)
app.add_typer(attesting.commands)
app.add_typer(ensembling.commands)

Version = Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS", metavar="URI")]


@app.command(
    epilog="Example: stockpot soup --sweep 1f0c...e2 --task arrays --task-arg data=birds.npz "
    "--task-arg model=birds.net:make --model birds --shift fog --shift night"
)
def soup(  # noqa: PLR0913 - one parameter per option
    *,
    model: options.Model,
    task: options.Task,
    sweep: options.Sweep = None,
    experiment: options.Experiment = None,
    filter_: options.Filter = None,
    weights: options.Weights = None,
    checkpoint_metric: options.CheckpointMetric = None,
    dtype: options.CastTo = None,
    top: options.Top = None,
    by: options.By = None,
    direction: options.BetterWhen = None,
    partial: options.Partial = False,
    any_base: options.AnyBase = False,
    base: options.Base = None,
    task_arg: options.TaskArg = None,
    select_on: options.SelectOn = "validation",
    report_on: options.ReportOn = "test",
    shift: options.Shift = None,
    statistics_on: options.StatisticsOn = None,
    method: options.Method = None,
    accept: options.Keep = Accept.NOT_WORSE,
    max_seconds: options.MaxSeconds = None,
    points: options.Points = "5",
    verify_exact: options.VerifyExact = False,
    domain_from: options.DomainFrom = None,
    mix: options.Mix = None,
    objective: options.SelectBy = None,
    target: options.Target = None,
    compare_all: options.CompareAll = False,
    margin: options.Margin = "-0.5",
    register: options.Which = Register.NOT_WORSE,
    adapter: options.KeepAdapter = None,
    or_best_single: options.OrBestSingle = False,
    again: options.Again = False,
    no_wait: options.NoWait = False,
    dry_run: options.DryRun = False,
    flow: options.Flow = None,
    submit: options.Submit = False,
    submit_to: options.SubmitTo = None,
    helpers: options.AskFor = None,
    as_json: Json = False,
) -> None:
    """Average the best fine-tuned models of a sweep, and register the result."""
    request = SoupRequest(
        model=model,
        task=task,
        task_args=options.pairs(task_arg or ()),
        sweep=sweep,
        experiment=experiment,
        filter=filter_,
        methods=tuple(method or ("greedy", "uniform")),
        accept=accept,
        select_on=select_on,
        report_on=report_on,
        shifts=tuple(shift or ()),
        statistics_on=statistics_on,
        weights=weights,
        checkpoint_metric=checkpoint_metric,
        dtype=dtype,
        top=top,
        by=by,
        direction=direction,
        partial=partial,
        max_seconds=max_seconds,
        points=_number(points),  # type: ignore[arg-type]  # the request tells
        margin=margin,
        register=register,
        adapter=adapter,
        or_best_single=or_best_single,
        again=again,
        any_base=any_base,
        base=base,
        verify_exact=verify_exact,
        domain_from=domain_from,
        mix=options.weights(mix),
        objective=objective,
        target=target,
        compare_all=compare_all,
        wait=not no_wait,
    )
    if dry_run:
        plan = watched(lambda watch: calls.plan(request, watch=watch))
        printing.show_plan(plan, as_json=as_json)
        return
    if submit or submit_to:
        if flow is not None:
            raise BadRequest("--submit runs it elsewhere, as a flow", mend="leave out --flow and --no-flow")
        outcome = watched(
            lambda watch: calls.submit(request, deployment=submit_to, helpers=helpers, watch=watch)
        )
    elif helpers is not None:
        raise BadRequest("--helpers is for a run on workers", mend="add --submit")
    else:
        outcome = watched(lambda watch: calls.soup(request, flow=flow, watch=watch))
    printing.show_outcome(outcome, as_json=as_json)


@app.command(epilog="Example: stockpot check --experiment reviews")
def check(  # noqa: PLR0913 - one parameter per option
    *,
    sweep: options.Sweep = None,
    experiment: options.Experiment = None,
    filter_: options.Filter = None,
    weights: options.Weights = None,
    checkpoint_metric: options.CheckpointMetric = None,
    direction: options.BetterWhen = None,
    dtype: options.CastTo = None,
    base: options.Base = None,
    as_json: Json = False,
) -> None:
    """Look a sweep up: its weights, what can be averaged, and the command to go on with."""

    def checked(watch: Watcher) -> SweepCheck:
        return calls.check(
            experiment=experiment,
            sweep=sweep,
            filter=filter_,
            weights=weights,
            checkpoint_metric=checkpoint_metric,
            direction=direction,
            dtype=dtype,
            base=base,
            watch=watch,
        )

    checking.show_check(watched(checked), as_json=as_json)


@app.command("help", epilog="Example: stockpot help --model birds --wait 600")
def help_out(
    *,
    model: options.HelpedModel = None,
    job: options.HelpedJob = None,
    task_arg: options.TaskArg = None,
    wait: options.WaitForWork = 0.0,
    quiet: options.Quiet = False,
    as_json: Json = False,
) -> None:
    """Take part in the evaluations of requests that other processes work on."""

    def helped(watch: Watcher) -> int:
        told = Sayings(watch) if quiet else watch
        return calls.help_out(
            model=model, job=job, task_args=options.pairs(task_arg or ()), wait=wait, watch=told
        )

    done = watched(helped)
    terminal.tell({"evaluations": done}, f"helped with {counted(done, 'evaluation')}", as_json=as_json)


@app.command(epilog="Example: stockpot show models:/birds@challenger")
def show(uri: Version, as_json: Json = False) -> None:
    """Tell what a registered soup is made of, and how it was found and measured."""
    from stockpot.workflow.publishing.publication import reports_on
    from stockpot.workflow.trace import snapshot_of

    place = Workplace()
    version, snapshot = snapshot_of(uri, place.tracker)
    # A version that was renamed or copied keeps the name that it was registered under.
    names = {version.name, version.tags.get(tags.MODEL, version.name)}
    reports = reports_on(names, snapshot.recipe.digest, place.store)
    printing.show_snapshot(version, snapshot, place.tracker, reports, as_json=as_json)


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
    terminal.tell(
        {"out": str(out), "digest": checkpoint.digest, "bytes": checkpoint.size},
        f"{out}: {checkpoint.size:,} bytes, {checkpoint.digest}: the same bytes as {uri}",
        as_json=as_json,
    )


@tasks.command("list", epilog="Example: stockpot task list")
def list_tasks(as_json: Json = False) -> None:
    """Name the tasks that are installed."""
    from stockpot.tasks.identity import TASKS, installed

    found = installed(TASKS)
    terminal.tell(found, "\n".join(f"{name}  {target}" for name, target in found.items()), as_json=as_json)


@tasks.command("new", epilog="Example: stockpot task new birds.py")
def new_task(
    path: Annotated[Path, typer.Argument(help="The file to write: a module's name, with .py.")],
    as_json: Json = False,
) -> None:
    """Write a task to begin with: commented, small, and whole."""
    from stockpot.tasks.loading import write_skeleton

    reference = write_skeleton(path)
    text = f"wrote {path}. Put your data and model into it, and try it: stockpot task check {reference}"
    terminal.tell({"path": str(path), "task": reference}, text, as_json=as_json)


@tasks.command("check", epilog="Example: stockpot task check birds:MyTask --task-arg n=50 --split test")
def check_task(
    task: Annotated[str, typer.Argument(help="A task's name, or module:Class.")],
    *,
    task_arg: options.TaskArg = None,
    split: Annotated[list[str] | None, typer.Option(help="Split to look at; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Try whether a task keeps its contract, on two batches of a split."""
    splits = tuple(split or ("validation",))
    printing.show_findings(
        task, calls.check_task(task, options.pairs(task_arg or ()), splits), as_json=as_json
    )


@database.command(epilog="Example: stockpot db upgrade")
def upgrade(as_json: Json = False) -> None:
    """Bring the database to this program's schema."""
    from stockpot import store

    settings = Workplace().settings
    make_folder(settings.home)
    revision = store.upgrade(settings.database)
    terminal.tell({"revision": revision}, f"the store is at schema {revision}", as_json=as_json)


@database.command(epilog="Example: stockpot db current")
def current(as_json: Json = False) -> None:
    """Tell the database's schema and this program's."""
    from stockpot import store

    settings = Workplace().settings
    make_folder(settings.home)
    found, head = store.current(settings.database), store.head()
    text = f"the store is at schema {found or 'none'}; this program's is {head}"
    terminal.tell({"current": found, "head": head}, text, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors become a message on stderr and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    with printing.errors_told(as_json="--json" in arguments):
        begin_log()
        app(args=list(arguments))


def _terminated(*_: object) -> NoReturn:
    """Gives back what is leased, and ends the helpers; once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def _number(text: str) -> int | str:
    """The text itself where it is no whole number."""
    try:
        return int(text)
    except ValueError:
        return text
