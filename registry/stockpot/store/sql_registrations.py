"""Leases and registrations in SQL."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Double, case, delete, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from stockpot.entities import Digest, KnownVersion, Lease, Recipe, Registration, RegistrationState
from stockpot.store.claims import require_claim
from stockpot.store.descent import version_of
from stockpot.store.tables import CandidateRow, IngredientRow, LeaseRow, RegistrationRow, VersionRow
from stockpot.store.transactions import Transactions, insert, insert_once, keep_recipe


class Clock(FunctionElement[float]):
    """The database's clock, now: not the transaction's beginning, which may have waited for a lock."""

    type = Double()
    inherit_cache = True


@compiles(Clock, "sqlite")
def _of_sqlite(_element: Clock, _compiler: SQLCompiler, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Clock, "postgresql")
def _of_postgresql(_element: Clock, _compiler: SQLCompiler, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


HELD = (LeaseRow.until >= Clock()) & (LeaseRow.since <= Clock() + Lease.ASTRAY)
"""As `Lease.is_held`."""


class SqlRegistrations(Transactions):
    """Who may work on what, and how far each soup's registration has come."""

    def take_lease(self, name: str, *, owner: str, seconds: float) -> Lease:
        # Seen without a lock, for which all who wait would stand in line.
        if (held := self._holder(name)) is not None and held.owner != owner:
            return held
        with self._transaction(self._writes) as session:
            wanted = insert(session, LeaseRow).values(
                name=name, owner=owner, since=Clock(), until=_after(seconds)
            )
            ours = LeaseRow.owner == owner
            session.execute(
                wanted.on_conflict_do_update(
                    index_elements=[LeaseRow.name],
                    set_={
                        "owner": wanted.excluded.owner,
                        "since": case((ours, LeaseRow.since), else_=Clock()),
                        "until": _after(seconds),
                    },
                    where=ours | ~HELD,
                )
            )
            return _lease(session.get_one(LeaseRow, name))

    def holder(self, name: str) -> Lease | None:
        return self._holder(name)

    def _holder(self, name: str) -> Lease | None:
        """The same, asked once: what calls it is itself tried again."""
        held = select(LeaseRow).where(LeaseRow.name == name, HELD)
        with self._transaction(self._reads) as session:
            row = session.scalar(held)
            return None if row is None else _lease(row)

    def renew_lease(self, name: str, *, owner: str, seconds: float) -> bool:
        renewed = (
            update(LeaseRow)
            .where(LeaseRow.name == name, LeaseRow.owner == owner)
            .values(until=_after(seconds))
            .returning(LeaseRow.name)
        )
        with self._transaction(self._writes) as session:
            return session.scalar(renewed) is not None

    def release_lease(self, name: str, *, owner: str) -> None:
        with self._transaction(self._writes) as session:
            release(session, name, owner)

    def begin_registration(self, model: str, recipe: Recipe) -> Registration:
        new = Registration(model, recipe.digest, RegistrationState.REGISTERING)
        with self._transaction(self._writes) as session:
            keep_recipe(session, recipe)
            insert_once(session, RegistrationRow, **_columns(new))
            return _entity(session.get_one(RegistrationRow, (model, recipe.digest)))

    def advance_registration(self, registration: Registration, *, owner: str) -> None:
        with self._transaction(self._writes) as session:
            lease = lease_of(session, registration.lease)
            row = session.get(RegistrationRow, (registration.model, registration.recipe))
            require_claim(registration, _entity(row) if row else None, lease, owner)
            session.merge(RegistrationRow(**_columns(registration)))
            if (version := version_of(registration)) is not None:
                keep_version(session, version)

    def registration(self, model: str, recipe: Digest) -> Registration | None:
        with self._transaction(self._reads) as session:
            row = session.get(RegistrationRow, (model, recipe))
            return _entity(row) if row else None

    def registrations_with(self, run_id: str) -> tuple[Registration, ...]:
        checkpoints = select(CandidateRow.checkpoint).where(CandidateRow.run_id == run_id)
        recipes = select(IngredientRow.recipe).where(IngredientRow.checkpoint.in_(checkpoints))
        rows = (
            select(RegistrationRow)
            .where(RegistrationRow.recipe.in_(recipes))
            .order_by(RegistrationRow.model, RegistrationRow.recipe)
        )
        with self._transaction(self._reads) as session:
            return tuple(map(_entity, session.scalars(rows)))

    def registrations(self, model: str | None = None) -> tuple[Registration, ...]:
        rows = select(RegistrationRow).order_by(RegistrationRow.model, RegistrationRow.recipe)
        if model is not None:
            rows = rows.where(RegistrationRow.model == model)
        with self._transaction(self._reads) as session:
            return tuple(map(_entity, session.scalars(rows)))


def keep_version(session: Session, version: KnownVersion) -> None:
    """Know the version from now on; its recipe is known. Of one number it is the last that counts."""
    columns = {**asdict(version), "seen_at": time.time()}
    key = ["recipe", "model", "version"]
    newer = {name: value for name, value in columns.items() if name not in key}
    wanted = insert(session, VersionRow).values(**columns)
    session.execute(wanted.on_conflict_do_update(index_elements=key, set_=newer))


def lease_of(session: Session, name: str) -> Lease | None:
    """Who holds it, until the transaction ends."""
    row = session.get(LeaseRow, name, with_for_update=True)
    return _lease(row) if row else None


def release(session: Session, name: str, owner: str) -> None:
    """End a lease, if this owner has it still."""
    session.execute(delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.owner == owner))


def _after(seconds: float) -> ColumnElement[float]:
    return Clock() + seconds


def _lease(row: LeaseRow) -> Lease:
    return Lease(row.name, row.owner, row.since, row.until)


def _columns(registration: Registration) -> dict[str, Any]:
    return {**asdict(registration), "updated_at": time.time()}


def _entity(row: RegistrationRow) -> Registration:
    return Registration(
        row.model,
        row.recipe,
        RegistrationState(row.state),
        checkpoint=row.checkpoint,
        run_id=row.run_id,
        model_id=row.model_id,
        version=row.version,
        updated_at=row.updated_at,
    )
