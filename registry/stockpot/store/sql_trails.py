"""Trails of registered models, in SQL."""
# ruff: noqa: D102 - the port's docstrings are the contract

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Select, delete, select, tuple_, update
from sqlalchemy.orm import Session

from stockpot.entities import Digest, FailedAsk, TrailDraft, TrailEntry, TrailKind, TrailOf, Watch
from stockpot.store.sql_registrations import Clock
from stockpot.store.tables import AskRow, Row, TrailRow, WatchRow
from stockpot.store.trails import is_appended, next_entries
from stockpot.store.transactions import Transactions, in_parts, insert, insert_once


class SqlTrails(Transactions):
    """What happened to registered models, and when somebody looked at them."""

    def append_trail(
        self, of: TrailOf, drafts: Sequence[TrailDraft], *, after: Digest | None
    ) -> tuple[TrailEntry, ...] | None:
        with self._transaction(self._writes) as session:
            row = session.get(WatchRow, (of.model, of.born), with_for_update=True)
            known = _watch(row) if row else None
            if (known.digest if known else None) == after:
                at = session.execute(select(Clock())).scalar_one()
                entries = next_entries(of, drafts, known, at)
                # Who has the first number has them all. Another process that has not committed is waited for.
                if all(insert_once(session, TrailRow, **_columns(entry)) for entry in entries):
                    for entry in entries:
                        known = Watch.after(known, entry)
                    _keep(session, known)
                    return entries
            found = tuple(map(_entry, session.scalars(_entries(of))))
            return is_appended(found, drafts, after)

    def trail(self, of: TrailOf) -> tuple[TrailEntry, ...]:
        with self._transaction(self._reads) as session:
            return tuple(map(_entry, session.scalars(_entries(of))))

    def watches(self, models: Collection[str] | None = None) -> tuple[Watch, ...]:
        with self._transaction(self._reads) as session:
            if models is None:
                rows = list(session.scalars(select(WatchRow)))
            else:
                named = (select(WatchRow).where(WatchRow.model.in_(some)) for some in in_parts(models))
                rows = [row for some in named for row in session.scalars(some)]
            return tuple(sorted(map(_watch, rows), key=lambda one: (one.model, one.born)))

    def keep_look(self, at: float, trails: Collection[TrailOf]) -> None:
        with self._transaction(self._writes) as session:
            for some in in_parts([(of.model, of.born) for of in trails]):
                looked = (
                    update(WatchRow)
                    .where(tuple_(WatchRow.model, WatchRow.born).in_(some))
                    .where(WatchRow.looked.is_(None) | (WatchRow.looked < at))
                )
                session.execute(looked.values(looked=at), execution_options={"synchronize_session": False})

    def keep_ask(self, ask: FailedAsk) -> None:
        with self._transaction(self._writes) as session:
            _put(session, AskRow, asdict(ask))

    def failed_asks(self) -> tuple[FailedAsk, ...]:
        with self._transaction(self._reads) as session:
            rows = session.scalars(select(AskRow).order_by(AskRow.failed_at, AskRow.name))
            return tuple(FailedAsk(**_fields(row, FailedAsk)) for row in rows)

    def drop_asks(self, names: Collection[Digest]) -> None:
        with self._transaction(self._writes) as session:
            for some in in_parts(names):
                session.execute(delete(AskRow).where(AskRow.name.in_(some)))


def _entries(of: TrailOf) -> Select[TrailRow]:
    mine = (TrailRow.model == of.model) & (TrailRow.born == of.born)
    return select(TrailRow).where(mine).order_by(TrailRow.number)


def _keep(session: Session, watch: Watch | None) -> None:
    if watch is None:  # nothing was drafted
        return
    _put(session, WatchRow, asdict(watch))


def _put(session: Session, table: type[Row], columns: Mapping[str, Any]) -> None:
    """In place of the row that has its key."""
    key = [column.name for column in table.__table__.primary_key]
    newer = {name: value for name, value in columns.items() if name not in key}
    wanted = insert(session, table).values(**columns)
    session.execute(wanted.on_conflict_do_update(index_elements=key, set_=newer))


def _columns(entry: TrailEntry) -> dict[str, Any]:
    return {**asdict(entry), "kind": entry.kind.value}


def _entry(row: TrailRow) -> TrailEntry:
    return TrailEntry(**{**_fields(row, TrailEntry), "kind": TrailKind(row.kind)})


def _watch(row: WatchRow) -> Watch:
    return Watch(**_fields(row, Watch))


def _fields(row: Row, kind: Any) -> dict[str, Any]:
    """What the row has of an entity of this kind."""
    return {field.name: getattr(row, field.name) for field in fields(kind)}
