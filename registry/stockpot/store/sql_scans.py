"""What scans for finished sweeps remember, in SQL."""
# ruff: noqa: D102 - the port's docstrings are the contract

from collections.abc import Collection, Mapping
from dataclasses import asdict

from sqlalchemy import select

from stockpot.entities import KnownSweep, Watermark
from stockpot.store.sql_registrations import Clock
from stockpot.store.tables import SweepRow, WatermarkRow
from stockpot.store.transactions import Transactions, in_parts, insert

KNOWN = select(*(SweepRow.sweep, SweepRow.rule, SweepRow.moved, SweepRow.look_at, SweepRow.tag, SweepRow.job))


class SqlScans(Transactions):
    """How far scans have looked, and what they have seen."""

    def clock(self) -> float:
        with self._transaction(self._reads) as session:
            return session.execute(select(Clock())).scalar_one()

    def watermarks(self, names: Collection[str]) -> Mapping[str, Watermark]:
        kept = select(WatermarkRow.name, WatermarkRow.begun, WatermarkRow.until)
        with self._transaction(self._reads) as session:
            rows = [
                row
                for some in in_parts(names)
                for row in session.execute(kept.where(WatermarkRow.name.in_(some)))
            ]
        return {row.name: Watermark(row.begun, row.until) for row in rows}

    def known_sweeps(self, sweeps: Collection[str], rules: Collection[str]) -> tuple[KnownSweep, ...]:
        known = KNOWN.where(SweepRow.rule.in_(rules))
        with self._transaction(self._reads) as session:
            return tuple(
                KnownSweep(*row)
                for some in in_parts(sweeps)
                for row in session.execute(known.where(SweepRow.sweep.in_(some)))
            )

    def sweeps_due(self, rules: Collection[str]) -> tuple[KnownSweep, ...]:
        due = KNOWN.where(SweepRow.look_at <= Clock(), SweepRow.rule.in_(rules))
        with self._transaction(self._reads) as session:
            rows = session.execute(due.order_by(SweepRow.look_at, SweepRow.sweep, SweepRow.rule))
            return tuple(KnownSweep(*row) for row in rows)

    def keep_scan(self, sweeps: Collection[KnownSweep], marks: Mapping[str, Watermark]) -> None:
        seen = [asdict(known) for known in sweeps]
        looked = [{"name": name, **asdict(mark)} for name, mark in marks.items()]
        with self._transaction(self._writes) as session:
            for table, rows in ((SweepRow, seen), (WatermarkRow, looked)):
                key = [column.name for column in table.__table__.primary_key]
                wanted = insert(session, table)
                newer = {column.name: column for column in wanted.excluded if column.name not in key}
                if rows:
                    session.execute(wanted.on_conflict_do_update(index_elements=key, set_=newer), rows)
