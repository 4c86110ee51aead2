"""What the command does with registered versions: judge, promote, watch, report, recall."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.calls.sweeps import soup
from stockpot.calls.watched import log_of
from stockpot.documents import to_document
from stockpot.entities import (
    Decision,
    Recall,
    RecallKind,
    Seen,
    SoupOutcome,
    SoupRequest,
    TrailKind,
)
from stockpot.person import person
from stockpot.ports import Watcher
from stockpot.wiring import Workplace
from stockpot.workflow.promotion.asking import Answered
from stockpot.workflow.promotion.auditing import Audited
from stockpot.workflow.promotion.promote import Mover, Promoter, Promotion, require_alias
from stockpot.workflow.promotion.watching import Look

if TYPE_CHECKING:
    from stockpot.workflow.lineage.recall import Recalling
    from stockpot.workflow.reporting.reporter import Reported


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
    watch = log_of(watch)
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
    watch = log_of(watch)
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

    watch = log_of(watch)
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

    with Workplace(watch=log_of(watch)) as place:
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

    with Workplace(watch=log_of(watch)) as place:
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

    with Workplace(watch=log_of(watch)) as place:
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
    from stockpot.workflow.lineage.recall import Recalling, carry_out, plan_recall, require_reason
    from stockpot.workflow.trails import append_once

    watch = log_of(watch)
    require_reason(reason)
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


def _promoter(place: Workplace, uri: str, policies: Path | None) -> Promoter:
    """By the policy of the version's model."""
    from stockpot.workflow.promotion.policies import read_policies

    read = read_policies(policies or place.settings.policies_file)
    return place.promoter(read.of(place.tracker.version(uri).name))
