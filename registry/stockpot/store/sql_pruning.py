"""Pruning in SQL: some hundred rows at a time, in transactions of their own that look again who works."""
# ruff: noqa: D102 - the port's docstrings are the contract

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, literal, or_, select, update
from sqlalchemy.orm import Session

from stockpot.entities import Digest, Job, Opening, Pruned, TrailKind
from stockpot.store.pruning import InUse, in_use, judged_in, told, told_of
from stockpot.store.sql_jobs import readable
from stockpot.store.sql_registrations import HELD, Clock
from stockpot.store.tables import (
    BoundRow,
    EvaluationRow,
    JobRow,
    LeaseRow,
    OverlayRow,
    RegistrationRow,
    ReportedRow,
    ReportRow,
    TrailRow,
)
from stockpot.store.transactions import Transactions

PART = 500
"""Rows of one transaction, for which all other processes wait on SQLite."""

Key = tuple[Digest, Digest]
"""Recipe and protocol."""


class SqlPruning(Transactions):
    """Removes what can be done without."""

    def prune(self, seconds: float, *, really: bool) -> tuple[Pruned, ...]:
        with self._transaction(self._reads) as session:
            before = (session.scalar(select(Clock())) or 0.0) - seconds
            reports = session.scalars(select(ReportRow.document).execution_options(yield_per=100))
            rest_on = {recipe for report in reports for recipe in told_of(report)} | _judged(session)
            use = _in_use(session, before)
            if use.unknown:
                return ()
            evaluations, gaps = _evaluations(session, before, use, rest_on)
            bounds = _bounds(session, before, use, rest_on)
            overlays = _overlays(session, before, use, rest_on)
        if really:
            self._in_parts(evaluations, before, _delete_evaluations)
            self._in_parts(bounds, before, _delete_bounds)
            self._in_parts(gaps, before, _forget_gaps)
            self._in_parts(overlays, before, _delete_overlays)
        kinds = {"evaluations": evaluations, "bounds": bounds, "gaps": gaps, "overlays": overlays}
        return told({kind: [*found.values()] for kind, found in kinds.items()})

    def _in_parts(
        self, found: dict[Key, int], before: float, remove: Callable[[Session, Sequence[Key], float], object]
    ) -> None:
        """Those that went are left in `found`."""
        keys = sorted(found, key=lambda key: (key[1], key[0]))
        for start in range(0, len(keys), PART):
            part = keys[start : start + PART]
            with self._transaction(self._writes) as session:
                use = _in_use(session, before)
                busy = use.unknown or (use.at_work and remove is _delete_overlays)
                judged = set() if remove is _forget_gaps else _judged(session)
                spared = [key for key in part if busy or key[1] in use.protocols or key[0] in judged]
                remove(session, sorted({*part} - {*spared}, key=lambda key: (key[1], key[0])), before)
            for key in spared:
                del found[key]


def _in_use(session: Session, before: float) -> InUse:
    held = exists().where(LeaseRow.name == literal(Job.LEASES) + JobRow.name, HELD)
    words = (JobRow.created_at, JobRow.asked_at, JobRow.answered_at, JobRow.failed_at)
    young = or_(*(at >= before for at in words))
    openings = {
        at_work: [
            readable(Opening, document) for document in session.scalars(select(JobRow.opening).where(each))
        ]
        for at_work, each in ((True, held), (False, young))
    }
    return in_use(openings[False], openings[True])


def _judged(session: Session) -> set[Digest]:
    decisions = select(TrailRow.fact).where(TrailRow.kind == TrailKind.DECISION)
    return {*judged_in(session.scalars(decisions))}


def _evaluations(
    session: Session, before: float, use: InUse, rest_on: set[Digest]
) -> tuple[dict[Key, int], dict[Key, int]]:
    """Those that go, and those that lose their gaps alone, each with its bytes."""
    size = func.length(EvaluationRow.examples) + func.coalesce(func.length(EvaluationRow.metric), 0)
    gaps = func.length(EvaluationRow.gaps)
    rows = session.execute(
        select(
            EvaluationRow.recipe,
            EvaluationRow.protocol,
            size + func.coalesce(gaps, 0),
            gaps,
            _is_registered_or_reported(EvaluationRow.recipe),
        ).where(EvaluationRow.created_at < before)
    )
    go, lose = {}, {}
    for recipe, protocol, whole, hint, rests in rows:
        if protocol in use.protocols:
            continue
        if not rests and recipe not in rest_on:
            go[recipe, protocol] = whole
        elif hint is not None:
            lose[recipe, protocol] = hint
    return go, lose


def _bounds(session: Session, before: float, use: InUse, rest_on: set[Digest]) -> dict[Key, int]:
    old = select(BoundRow.recipe, BoundRow.protocol).where(
        BoundRow.updated_at < before, ~_is_registered_or_reported(BoundRow.recipe)
    )
    rows = session.execute(old.distinct())
    return {
        (recipe, protocol): 8
        for recipe, protocol in rows
        if protocol not in use.protocols and recipe not in rest_on
    }


def _overlays(session: Session, before: float, use: InUse, rest_on: set[Digest]) -> dict[Key, int]:
    if use.at_work:
        return {}
    rows = session.execute(
        select(OverlayRow.recipe, func.length(OverlayRow.content)).where(
            OverlayRow.created_at < before, ~_is_registered_or_reported(OverlayRow.recipe)
        )
    ).all()
    measured = set[Digest]()
    for recipe, protocol, at in (
        (EvaluationRow.recipe, EvaluationRow.protocol, EvaluationRow.created_at),
        (BoundRow.recipe, BoundRow.protocol, BoundRow.updated_at),
    ):
        stays = or_(at >= before, protocol.in_(use.protocols))
        measured |= {*session.scalars(select(recipe).where(stays))}
    return {
        (recipe, recipe): length
        for recipe, length in rows
        if recipe not in rest_on and recipe not in measured
    }


def _is_registered_or_reported(recipe: Any) -> ColumnElement[bool]:
    return or_(exists().where(RegistrationRow.recipe == recipe), exists().where(ReportedRow.recipe == recipe))


def _delete_evaluations(session: Session, keys: Sequence[Key], before: float) -> None:
    """But those that somebody came to rest on since."""
    for protocol, recipes in _by_protocol(keys):
        session.execute(
            delete(EvaluationRow).where(
                EvaluationRow.protocol == protocol,
                EvaluationRow.recipe.in_(recipes),
                EvaluationRow.created_at < before,
                ~_is_registered_or_reported(EvaluationRow.recipe),
            )
        )


def _delete_bounds(session: Session, keys: Sequence[Key], before: float) -> None:
    for protocol, recipes in _by_protocol(keys):
        old = and_(BoundRow.recipe.in_(recipes), BoundRow.updated_at < before)
        spared = _is_registered_or_reported(BoundRow.recipe)
        session.execute(delete(BoundRow).where(BoundRow.protocol == protocol, old, ~spared))


def _forget_gaps(session: Session, keys: Sequence[Key], before: float) -> None:
    for protocol, recipes in _by_protocol(keys):
        old = and_(EvaluationRow.recipe.in_(recipes), EvaluationRow.created_at < before)
        forget = update(EvaluationRow).where(EvaluationRow.protocol == protocol, old).values(gaps=None)
        session.execute(forget, execution_options={"synchronize_session": False})


def _delete_overlays(session: Session, keys: Sequence[Key], before: float) -> None:
    """But those under which something was measured meanwhile."""
    recipes = [recipe for recipe, _ in keys]
    measured = or_(
        exists().where(EvaluationRow.recipe == OverlayRow.recipe),
        exists().where(BoundRow.recipe == OverlayRow.recipe),
    )
    old = and_(OverlayRow.recipe.in_(recipes), OverlayRow.created_at < before)
    session.execute(delete(OverlayRow).where(old, ~measured, ~_is_registered_or_reported(OverlayRow.recipe)))


def _by_protocol(keys: Sequence[Key]) -> Iterator[tuple[Digest, list[Digest]]]:
    for protocol, group in groupby(keys, key=lambda key: key[1]):
        yield protocol, [recipe for recipe, _ in group]
