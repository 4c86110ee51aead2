"""The commands of those who run Stockpot for others: a look at everything, and tidying up."""

from typing import Annotated

import typer

from stockpot.cli import options, reports
from stockpot.cli.options import Json
from stockpot.cli.watching import watched
from stockpot.entities import Discrepancy, Pruned
from stockpot.person import person
from stockpot.ports import Watcher
from stockpot.wiring import Workplace

DAY = 24 * 3600.0
commands = typer.Typer()

Really = Annotated[
    bool, typer.Option("--yes/--dry-run", help="Do it; by default what would be done is told alone.")
]


@commands.command(epilog="Example: stockpot doctor --task birds:BirdTask --task-arg data=birds.npz")
def doctor(
    *,
    task: Annotated[str | None, typer.Option(help="A task to try as well: a name, or module:Class.")] = None,
    task_arg: options.TaskArg = None,
    as_json: Json = False,
) -> None:
    """Look at MLflow, store, Prefect, cache and device, and say what mends what is wrong. Changes nothing."""
    from stockpot.doctor import examine

    reports.show_diagnoses(examine(task, options.pairs(task_arg or ())), as_json=as_json)


@commands.command(epilog="Example: stockpot status --all")
def status(
    *,
    all_jobs: Annotated[
        bool, typer.Option("--all", help="Tell of all that are done or were replaced, too.")
    ] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="Print OpenMetrics for a monitor.")] = False,
    as_json: Json = False,
) -> None:
    """Tell which requests run, wait, failed or are done, and when anything last happened."""
    from stockpot.workflow.status import metrics_of
    from stockpot.workflow.status import status as look

    with Workplace() as place:
        settings = place.settings
        found = look(place.store, settings.cache_folder, settings.outputs_place, all_jobs=all_jobs)
    if metrics:
        typer.echo(metrics_of(found), nl=False)
    else:
        reports.show_status(found, as_json=as_json)


@commands.command(epilog="Example: stockpot prune --older-than 90 --yes")
def prune(
    *,
    older_than: Annotated[
        float, typer.Option(min=0, help="Days that a thing was not used, or that lie behind its making.")
    ] = 30.0,
    really: Really = False,
    as_json: Json = False,
) -> None:
    """Remove what nobody needs: old evaluations of what was never reported, hints, weights, outputs."""
    from stockpot.workflow.pruning import prune as prune_all

    def pruned(watch: Watcher) -> tuple[Pruned, ...]:
        with Workplace(watch=watch) as place:
            settings = place.settings
            return prune_all(
                place.store,
                settings.cache_folder,
                settings.outputs_place,
                [place.model_folders_at],
                older_than * DAY,
                really=really,
                say=watch.say,
            )

    reports.show_pruned(watched(pruned), really=really, as_json=as_json)


@commands.command(epilog="Example: stockpot reconcile --model birds --yes")
def reconcile(
    *,
    model: Annotated[str | None, typer.Option(help="Look at this registered model alone.")] = None,
    really: Really = False,
    as_json: Json = False,
) -> None:
    """Compare the store with MLflow: versions, rows, duplicates, orphaned runs and models of soups."""
    from stockpot.workflow.reconciling import reconcile as compare

    def compared(watch: Watcher) -> tuple[Discrepancy, ...]:
        with Workplace(watch=watch) as place:
            promised = place.settings.watch_every
            return compare(place, model=model, really=really, by=person(), promised=promised)

    reports.show_discrepancies(watched(compared), as_json=as_json)
