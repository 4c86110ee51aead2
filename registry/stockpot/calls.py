"""What the command does, for programs: the same settings, the same walk, the same errors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.documents import to_document
from stockpot.entities import (
    Decision,
    Direction,
    Dtype,
    Job,
    Recall,
    RecallKind,
    Seen,
    SoupOutcome,
    SoupRequest,
    TrailKind,
)
from stockpot.errors import BadRequest, Busy, StockpotError, Unexpected
from stockpot.logs import LOG, working_on
from stockpot.person import person
from stockpot.ports import Task, Watcher
from stockpot.settings import read_settings
from stockpot.watching import Lines
from stockpot.wiring import Workplace, make_folder
from stockpot.workflow.check import SweepCheck, check_sweep
from stockpot.workflow.gathering.proposal import ANY_TASK
from stockpot.workflow.plan import Plan
from stockpot.workflow.promotion.asking import Answered
from stockpot.workflow.promotion.auditing import Audited
from stockpot.workflow.promotion.promote import Mover, Promoter, Promotion, require_alias
from stockpot.workflow.promotion.watching import Look
from stockpot.workflow.scanning.findings import Asked, Done, Scan
from stockpot.workflow.scanning.overview import RulesCheck

if TYPE_CHECKING:
    from stockpot.evaluation.task_contract import Finding
    from stockpot.workflow.lineage.recall import Recalling
    from stockpot.workflow.reporting.reporter import Reported


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
    watch = _log_of(watch)
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
    watch = _log_of(watch)
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

    watch = _log_of(watch)
    with Workplace(watch=watch) as place:
        return help_out(place, watch, wants=wants, task_args=task_args, wait=wait)


def plan(request: SoupRequest, *, watch: Watcher | None = None) -> Plan:
    """What `soup` would do: the candidates, the exclusions and the cost. Evaluates nothing.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    _require_request(request)
    with Workplace(watch=_log_of(watch)) as place:
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
    watch = _log_of(watch)
    with Workplace(watch=watch) as place:
        return check_sweep(request, place.tracker, place.supply, watch)


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

    watch = _log_of(watch)
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

    with Workplace(watch=_log_of(watch)) as place:
        return check_rules(read_rules(rules or place.settings.rules_file), place.tracker, place.store)


def gate(uri: str, *, policies: Path | None = None, watch: Watcher | None = None) -> Decision:
    """Judge a registered version by its model's policy, against the version that has the alias. Moves
    nothing.

    Args:
        uri: models:/NAME/VERSION or models:/NAME@ALIAS.
        policies: The file of policies; by default STOCKPOT_POLICIES, else ``policies.toml`` in STOCKPOT_HOME.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    `Decision.require_passed` raises GateFailed for a version that failed. Raises the other errors of
    `stockpot.errors`, each with its mend.
    """
    watch = _log_of(watch)
    with Workplace(watch=watch) as place:
        return _promoter(place, uri, policies).judge(uri)


def promote(
    uri: str,
    *,
    reason: str,
    to: str | None = None,
    override: str = "",
    by: str | None = None,
    policies: Path | None = None,
    watch: Watcher | None = None,
) -> Promotion:
    """Judge a registered version, and move the alias to it where it passes; who and why is kept.

    Args:
        uri: models:/NAME/VERSION or models:/NAME@ALIAS.
        reason: Why, for whoever reads the trail.
        to: The alias; that of the policy, which guards one.
        override: Why it is to move although checks fail. The decision keeps those.
        by: Who asks for it; by default git's name of this user, else the system's, with the host.
        policies: As of `gate`.
        watch: As of `gate`.

    Where a version has failed nothing has moved, and `Promotion.require_moved` raises GateFailed. Raises the
    other errors of `stockpot.errors`, each with its mend.
    """
    watch = _log_of(watch)
    who = Mover(person() if by is None else by, reason, override)
    with Workplace(watch=watch) as place:
        promoter = _promoter(place, uri, policies)
        require_alias(to, promoter.policy, uri)
        return promoter.promote(uri, who, watch)


def report(
    uri: str,
    *,
    out: Path | None = None,
    barriers: bool = False,
    influence: bool = False,
    watch: Watcher | None = None,
) -> "Reported":
    """Write the page of a version that Stockpot made anew: all that is known of it, as one HTML file.

    Args:
        uri: models:/NAME/VERSION or models:/NAME@ALIAS.
        out: The file; by default ``report.html`` among the artifacts of the version's run.
        barriers: First evaluate the average of each pair of its ingredients, where nobody has.
        influence: First evaluate it without each of its ingredients, where nobody has.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    from stockpot.workflow.reporting.evaluating import evaluate_neighbours
    from stockpot.workflow.reporting.reporter import Reported
    from stockpot.workflow.trace import require_place

    watch = _log_of(watch)
    with Workplace(watch=watch) as place:
        reporter, version = place.reporter, place.tracker.version(uri)
        if out is None:
            reporter.require_run(version)
        else:
            require_place(out)
        evaluations = 0
        if barriers or influence:
            page = reporter.page(version.uri)
            evaluations = evaluate_neighbours(page, place, watch, barriers=barriers, influence=influence)
        if out is None:
            return Reported(reporter.show(version), reporter.link(version), evaluations)
        page = reporter.page(version.uri)
        reporter.write(page, out)
        return Reported(page, str(out), evaluations)


def watch(*, seen: Seen = Seen.POLL, watch: Watcher | None = None) -> Look:
    """Look at the aliases of all models once, and write what moved to their trails.

    Args:
        seen: What made us look.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    from stockpot.workflow.promotion.watching import look

    with Workplace(watch=_log_of(watch)) as place:
        return look(place, promised=place.settings.watch_every, seen=seen)


def answer(
    *, policies: Path | None = None, watch: Watcher | None = None
) -> tuple[Look, tuple[Answered, ...]]:
    """Look at the aliases as `watch` does, then let the gate answer what people asked for in MLflow.

    That is the alias for candidates of a policy, or the tag ``stockpot.approval=approved`` on a version,
    whoever made that: the guarded alias moves to what passes. Where somebody moved that one by hand, the
    version is judged, and nothing is undone. Each is answered once.

    Args: as of `gate`. Raises the errors of `stockpot.errors`, each with its mend.
    """
    from stockpot.workflow.promotion.asking import answer
    from stockpot.workflow.promotion.policies import read_policies
    from stockpot.workflow.promotion.watching import look

    with Workplace(watch=_log_of(watch)) as place:
        read = read_policies(policies or place.settings.policies_file)
        found = look(place, models=read.models, promised=place.settings.watch_every)
        return found, answer(place, read, place.promoter)


def audit(model: str, *, verify: bool = False, watch: Watcher | None = None) -> tuple[Audited, ...]:
    """What is on record of a registered model; of one that was deleted and made again, of both.

    Args:
        model: The registered model's name.
        verify: Hold the record against its digests, and the newest one against MLflow's tag.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    `workflow.promotion.auditing.require_whole` raises RewrittenHistory for a record that was rewritten.
    Raises the errors of `stockpot.errors`, each with its mend.
    """
    from stockpot.workflow.promotion.auditing import audit

    with Workplace(watch=_log_of(watch)) as place:
        return audit(place, model, verify=verify)


def recall(  # noqa: PLR0913 - one parameter per option
    kind: RecallKind,
    name: str,
    *,
    reason: str,
    by: str | None = None,
    withdraw: bool = False,
    search: bool = True,
    really: bool = False,
    flow: bool | None = None,
    watch: Watcher | None = None,
) -> "Recalling":
    """Recall a run, a checkpoint or data: no soup may hold it from now on, versions that do are marked.

    Args:
        kind: What is recalled.
        name: The run's id, the checkpoint's digest, the dataset's digest as MLflow shows it, or the domain's
            label: the tag ``stockpot.domain`` of runs names one, several with commas, or ``*`` for all data.
        reason: Why, for whoever reads the versions' tags and the trail.
        by: Who asks for it; by default git's name of this user, else the system's, with the host.
        withdraw: Take an earlier recall back.
        search: Search anew, without it, what the requests of those versions had found.
        really: Do it; by default what would be done is told alone.
        flow: As of `soup`, for those requests.
        watch: Told of the progress; by default the log of the name "stockpot", at level INFO.

    Moves no alias. What fails is told in its place, and ends nothing; the same call again goes on from there.
    Raises the errors of `stockpot.errors`, each with its mend.
    """
    from stockpot.workflow.lineage.recall import Recalling, carry_out, plan_recall
    from stockpot.workflow.trails import append_once

    watch = _log_of(watch)
    if not reason.strip():
        raise BadRequest(
            "a recall needs its reason", mend="give --reason TEXT: people read it beside versions"
        )
    who = Mover(person() if by is None else by, reason)
    word = Recall(kind, name, who.reason, who.by, withdraw)
    with Workplace(watch=watch) as place:
        plan = plan_recall(word, place, watch)
        if not search:
            plan = replace(plan, told=replace(plan.told, replacements=()))
        if not really:
            return plan.told

        def record(model: str, done: Recalling) -> None:
            told, did = done.word, "withdrawn" if done.word.withdrawn else "recalled"
            versions = [one.uri for one in done.versions if one.uri.rpartition("/")[0] == f"models:/{model}"]
            fact = {did: told.told, "word": to_document(told), "versions": versions}
            append_once(place, model, TrailKind.RECALL, fact, by=told.by, reason=told.reason)

        def answer(request: SoupRequest) -> SoupOutcome:
            return soup(request, flow=flow, watch=watch)

        return carry_out(plan, place, answer, record, watch)


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


def _promoter(place: Workplace, uri: str, policies: Path | None) -> Promoter:
    """By the policy of the version's model."""
    from stockpot.workflow.promotion.policies import read_policies

    read = read_policies(policies or place.settings.policies_file)
    return place.promoter(read.of(place.tracker.version(uri).name))


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


def _log_of(watch: Watcher | None) -> Watcher:
    if watch is None:
        return Lines(LOG.info)
    if not isinstance(watch, Watcher):
        raise BadRequest(
            f"watch is told of the progress, and a {type(watch).__name__} cannot be",
            mend="give it the methods of stockpot.Watcher; stockpot.watching.Lines(print) has them",
        )
    return watch
