"""What the command does with sweeps, and what it asks of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.calls.watched import log_of
from stockpot.entities import (
    Direction,
    Dtype,
    Job,
    SoupOutcome,
    SoupRequest,
)
from stockpot.errors import BadRequest, Busy, StockpotError, Unexpected
from stockpot.logs import working_on
from stockpot.ports import Task, Watcher
from stockpot.settings import read_settings
from stockpot.wiring import Workplace, make_folder
from stockpot.workflow.check import SweepCheck, check_sweep
from stockpot.workflow.gathering.proposal import ANY_TASK
from stockpot.workflow.plan import Plan
from stockpot.workflow.scanning.findings import Asked, Done, Scan
from stockpot.workflow.scanning.overview import RulesCheck

if TYPE_CHECKING:
    from stockpot.evaluation.task_contract import Finding
    from stockpot.workflow.discovering import Discovery


def soup(request: SoupRequest, *, flow: bool | None = None, watch: Watcher | None = None) -> SoupOutcome:
    """Average the best fine-tuned models of a sweep, and register the result.

    The same request again finds everything done: it evaluates nothing and adopts the versions. Safe to
    kill, and to run twice at once.

    Args:
        request: What to do.
        flow: Whether to run it as a Prefect flow; by default where Prefect is configured.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    from stockpot_flows.address import configured

    _require_request(request)
    watch = log_of(watch)
    if flow if flow is not None else configured():
        return _flow(request, watch)
    from stockpot.workflow.jobs import answer
    from stockpot.workflow.walk import in_turn

    with Workplace(watch=watch) as place:
        return answer(request, place, in_turn, watch)


def submit(
    request: SoupRequest,
    *,
    deployment: str | None = None,
    helpers: int | None = None,
    watch: Watcher | None = None,
) -> SoupOutcome:
    """Hand the request to workers, as a run of a Prefect deployment, and follow it to its answer.

    That is read from the store, which this process shares with the workers, as it shares MLflow. Whoever ends
    this process does not end the flow run.

    Args:
        request: What to do.
        deployment: As Prefect names it; by default soup-sweep/soup.
        helpers: How many helpers the flow run asks Prefect for; by default as the deployment says.
        watch: Told what the flow run logs; by default the log of the name "stockpot", at level INFO.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    _require_request(request)
    if helpers is not None and helpers < 0:
        raise BadRequest(f"{helpers} helpers cannot be asked for", mend="give a number from 0 on")
    watch = log_of(watch)
    from stockpot_flows.deployments import SOUP
    from stockpot_flows.server import require_server

    address = require_server()  # before what takes seconds to import
    from stockpot_flows.submitting import submit as submit_to

    return submit_to(request, watch, address, deployment=deployment or SOUP, helpers=helpers)


def help_out(
    *,
    model: str | None = None,
    job: str | None = None,
    task_args: Mapping[str, str] | None = None,
    wait: float = 0.0,
    watch: Watcher | None = None,
) -> int:
    """Take part in the requests that other processes work on, with whom this one shares the store.

    Evaluates what nobody else does, until those requests are answered; changes no answer. Safe to kill.

    Args:
        model: Help only with requests for this registered model.
        job: Help only with the request of this name.
        task_args: In place of the request's own of the same name: paths that are others on this machine.
        wait: Seconds until a first such request may begin.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Returns the number of evaluations. Raises the errors of `stockpot.errors`, each with its mend: CannotHelp
    where this process would not give the same scores.
    """
    from stockpot.workflow.helping import help_out

    def wants(found: Job) -> bool:
        return model in (None, found.request.model) and job in (None, found.name)

    watch = log_of(watch)
    with Workplace(watch=watch) as place:
        return help_out(place, watch, wants=wants, task_args=task_args, wait=wait)


def plan(request: SoupRequest, *, watch: Watcher | None = None) -> Plan:
    """What `soup` would do: the candidates, the exclusions and the cost. Evaluates nothing.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    _require_request(request)
    with Workplace(watch=log_of(watch)) as place:
        return place.plan(request)


def check(  # noqa: PLR0913 - one parameter per option
    *,
    experiment: str | None = None,
    sweep: str | None = None,
    filter: str | None = None,  # noqa: A002 - as in SoupRequest
    weights: str | None = None,
    checkpoint_metric: str | None = None,
    direction: Direction | None = None,
    dtype: Dtype | None = None,
    base: str | None = None,
    watch: Watcher | None = None,
) -> SweepCheck:
    """What a sweep holds, and the command that makes a soup of it. Needs no task, and downloads headers at
    most.

    Args:
        experiment: The experiment's name, or
        sweep: the id of the sweep's parent run.
        filter: An MLflow filter over the sweep's runs.
        weights: Which checkpoint of a run that logged several: best, last or a glob.
        checkpoint_metric: Or the one with the best value of this metric,
        direction: better when larger, as where nothing is said, or smaller.
        dtype: What runs of other precisions are cast to.
        base: Where the sweep started, as in SoupRequest: what LoRA adapters are merged into.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Of a sweep without anything to average `SweepCheck.require_enough` raises NothingToSoup. Raises the other
    errors of `stockpot.errors`, each with its mend.
    """
    # Which model and task, the check tells.
    request = SoupRequest(
        model="MODEL",
        task=ANY_TASK,
        experiment=experiment,
        sweep=sweep,
        filter=filter,
        weights=weights,
        checkpoint_metric=checkpoint_metric,
        direction=direction,
        dtype=dtype,
        base=base,
        partial=True,
    )
    watch = log_of(watch)
    with Workplace(watch=watch) as place:
        return check_sweep(request, place.tracker, place.supply, watch)


def domains(
    request: SoupRequest,
    *,
    rank: bool = False,
    names: Sequence[str] = (),
    write_tags: bool = False,
    watch: Watcher | None = None,
) -> "Discovery":
    """Find groups among a sweep's runs that are good at the same held-out examples: domains that nobody told.

    It reads the scores that an earlier request left. Changes nothing, unless told to.

    Args:
        request: Which sweep, task and split; what it says of soups and the registry does not matter.
        rank: Evaluate the candidates that have no score yet, as `soup` would: that finds them remembered.
        names: Of the groups, in their order. By default what their runs tell, or group-1 and so on.
        write_tags: Tag each run with its group's name, in ``stockpot.domain``.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Raises the errors of `stockpot.errors`, each with its mend: BadRequest where scores are missing, and where
    a run's tag says otherwise.
    """
    from stockpot.workflow.discovering import discover, write_tags_of

    _require_request(request)
    watch = log_of(watch)
    with Workplace(watch=watch) as place:
        found = discover(request, place, watch, ranks=rank, names=names)
        return write_tags_of(found, place.tracker) if write_tags else found


def scan(
    rules: Path | None = None, *, dry_run: bool = False, watch: Watcher | None = None
) -> tuple[Scan, tuple[Done, ...]]:
    """Find the sweeps that finished since the last scan, and make their soups, one after the other.

    Args:
        rules: The file of rules; by default STOCKPOT_RULES, else ``rules.toml`` in STOCKPOT_HOME.
        dry_run: Only find out what is due. Changes nothing.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Returns what was found, and what became of what was due: one that fails does not stop the others. Raises
    the errors of `stockpot.errors`, each with its mend: Busy where another scan is under way.
    """
    from stockpot.workflow.reconciling import told_daily
    from stockpot.workflow.scanning.rules import read_rules
    from stockpot.workflow.scanning.scan import scan

    watch = log_of(watch)
    with Workplace(watch=watch) as place:
        read = read_rules(rules or place.settings.rules_file)
        found = scan(read, place.tracker, place.store, lost_after=0.0, dry=dry_run)
    done = tuple(_done(asked, watch) for asked in found.asked)
    if not dry_run:
        with Workplace(watch=watch) as place:  # another: the work may have taken a day
            found = replace(found, notes=(*found.notes, *told_daily(place)))
    return found, done


def _done(asked: Asked, watch: Watcher) -> Done:
    from stockpot.workflow.jobs import fault_line

    sweep, job = asked.job.request.sweep or "", asked.job.name
    with working_on(model=asked.request.model, sweep=sweep, job=job):
        watch.say(f"the sweep {sweep}, for {asked.request.model}")
        try:
            outcome = soup(replace(asked.request, wait=False), watch=watch)
        except Busy as error:  # of another scan, which came to it first
            watch.say(f"the sweep {sweep} is left to it: {error.what}")
            return Done(sweep, job, fault=error.what)
        except Exception as error:  # noqa: BLE001 - the other sweeps are none the worse for it
            told = error if isinstance(error, StockpotError) else Unexpected.of(error)
            watch.say(f"the sweep {sweep} has no answer: {' '.join(str(told).split())}")
            return Done(sweep, job, fault=fault_line(told), exit_code=told.exit_code)
    return Done(sweep, job, tuple(one.uri for one in outcome.registered))


def check_rules(rules: Path | None = None, *, watch: Watcher | None = None) -> RulesCheck:
    """What each rule of a file would match now. Changes nothing.

    Args: as of `scan`. Raises the errors of `stockpot.errors`, each with its mend.
    """
    from stockpot.workflow.scanning.overview import check_rules
    from stockpot.workflow.scanning.rules import read_rules

    with Workplace(watch=log_of(watch)) as place:
        return check_rules(read_rules(rules or place.settings.rules_file), place.tracker, place.store)


def check_task(
    task: str, task_args: Mapping[str, str] | None = None, splits: Sequence[str] = ("validation",)
) -> "tuple[Finding, ...]":
    """Whether a task keeps its contract, looked at on the first two batches of each split, on the CPU.

    Args:
        task: The task: an entry point's name, or module:Class.
        task_args: Its arguments.
        splits: Those that are looked at.

    What is broken has a `fault` and a `mend`. Raises UnknownPlugin, and BadTask for a task that cannot be
    made at all.
    """
    from stockpot.evaluation.task_contract import TaskOnTrial, look
    from stockpot.tasks.loading import load_task

    def make() -> Task:
        return load_task(task, task_args or {})

    trials = [TaskOnTrial(make, task, split) for split in splits]
    for trial in trials:
        _ = trial.task
    return tuple(finding for trial in trials for finding in look(trial))


def _require_request(request: object) -> None:
    if not isinstance(request, SoupRequest):
        raise BadRequest(
            f"a request is a SoupRequest, got a {type(request).__name__}",
            mend="from stockpot import SoupRequest; SoupRequest(model=..., task=..., sweep=...)",
        )


def _flow(request: SoupRequest, watch: Watcher) -> SoupOutcome:
    from stockpot_flows.embedded import run

    home = read_settings().home
    make_folder(home)
    return run(request, watch, home)
