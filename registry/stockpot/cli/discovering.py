"""The command that looks for domains of runs."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from stockpot import calls
from stockpot.cli import options
from stockpot.cli.options import Json
from stockpot.cli.printing import show_exclusions
from stockpot.cli.terminal import add_row, echo, new_table, out, plain, print_heading
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.entities import SoupRequest, tags
from stockpot.prose import counted, listed, one_line
from stockpot.workflow.discovering import Discovery, Member, RunGroup

commands = typer.Typer()
NAMED = 20
"""Runs of a group that are named; --json names all."""
NO_MODEL = "MODEL"
"""Nothing is registered."""


@commands.command(
    epilog="Example: stockpot domains --sweep 1f0c...e2 --task arrays --task-arg data=birds.npz "
    "--task-arg model=birds.net:make"
)
def domains(  # noqa: PLR0913 - one parameter per option
    *,
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
    domain_from: options.DomainFrom = None,
    rank: Annotated[
        bool, typer.Option("--rank", help="Evaluate the candidates that no request has scored yet.")
    ] = False,
    names: Annotated[
        str | None, typer.Option(help="Names of the groups, in their order, with commas between them.")
    ] = None,
    write_tags: Annotated[
        bool, typer.Option("--write-tags", help="Tag each run with its group, in stockpot.domain.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find groups of runs that are good at the same held-out examples, from remembered scores.

    Changes nothing, unless --write-tags. 'No domains found' is an answer, with exit code 0.
    """
    request = SoupRequest(
        model=NO_MODEL,
        task=task,
        task_args=options.pairs(task_arg or ()),
        sweep=sweep,
        experiment=experiment,
        filter=filter_,
        weights=weights,
        checkpoint_metric=checkpoint_metric,
        dtype=dtype,
        top=top,
        by=by,
        direction=direction,
        partial=partial,
        any_base=any_base,
        base=base,
        select_on=select_on,
        domain_from=domain_from,
    )
    found = watched(
        lambda watch: calls.domains(
            request,
            rank=rank,
            names=[] if names is None else [name.strip() for name in names.split(",")],
            write_tags=write_tags,
            watch=watch,
        )
    )
    show_discovery(found, write_tags=write_tags, as_json=as_json)


def show_discovery(found: Discovery, *, write_tags: bool, as_json: bool) -> None:
    """The groups, their runs and examples; or why there are none."""
    if as_json:
        echo(to_document(found))
        return
    runs = [*found.alone, *(run for group in found.groups for run in group.runs)]
    if not found.groups:
        print_heading("No domains found", f" among {counted(len(runs), 'run')}: {found.why}")
    else:
        _show_groups(found, len(runs))
    if found.silhouettes:
        cuts = ", ".join(
            f"{number} groups {value:.2f}" for number, value in sorted(found.silhouettes.items())
        )
        _print(f"Mean silhouettes over split {found.split} (n={found.n:,}): {cuts}.")
    if found.agreement is not None:
        _print(
            f"Agreement with what the runs tell of their domain (adjusted Rand index): {found.agreement:.2f}."
        )
    if found.likewise:
        alike = listed([one.name for one in found.likewise])
        _print(
            f"These divide the runs likewise: {alike}. Are they domains, or hyperparameters? Scores cannot "
            f"tell; where one names the domain, --domain-from {found.likewise[0].name} uses it."
        )
    show_exclusions(found.exclusions)
    for note in found.notes:
        _print(f"- {note}")
    if not found.groups:
        return
    if write_tags:
        already = len(runs) - len(found.alone) - len(found.tagged) - len(found.gone)
        _print(f"{tags.DOMAIN}: {counted(len(found.tagged), 'run')} tagged now, {already} as before.")
    else:
        _print(f"Nothing was changed: --write-tags writes these names into {tags.DOMAIN}, --names others.")


def _show_groups(found: Discovery, runs: int) -> None:
    print_heading(
        counted(len(found.groups), "group"), f" of {counted(runs, 'run')} that are good at the same examples"
    )
    table = new_table("group", "runs", "silhouette", "ahead on examples", "which are", "members")
    for group in found.groups:
        places = listed([str(example.place) for example in group.examples], 5)
        cells = str(len(group.runs)), f"{group.silhouette:.2f}", places, _domains(group), _members(group.runs)
        add_row(table, group.name, *cells)
    for column in table.columns[3:]:
        column.justify = "left"
    out.print(table)
    if found.alone:
        _print(f"In no group: {_members(found.alone)}.")


def _domains(group: RunGroup) -> str:
    """Of its typical examples, the most usual first."""
    times = Counter(example.domain for example in group.examples if example.domain)
    return listed([f"{count} {label}" for label, count in times.most_common()], 3)


def _members(runs: Sequence[Member]) -> str:
    return listed([f"{run.run_name} ({run.run_id})" for run in runs], NAMED)


def _print(line: str) -> None:
    out.print(plain(one_line(line)), soft_wrap=True, highlight=False)
