"""The store in SQLite or PostgreSQL."""
# ruff: noqa: D102 - the port's docstrings are the contract

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stockpot.documents import to_document
from stockpot.entities import (
    Bound,
    Composition,
    Digest,
    EvaluationProtocol,
    IngestedSource,
    Lease,
    Metric,
    Recipe,
    Score,
    Selection,
    digest_of_bytes,
    digest_of_document,
)
from stockpot.ports import Store
from stockpot.store.claims import require_number, require_rule
from stockpot.store.patience import tries_again
from stockpot.store.sql_jobs import SqlJobs
from stockpot.store.sql_lineage import SqlLineage
from stockpot.store.sql_pruning import SqlPruning
from stockpot.store.sql_registrations import SqlRegistrations, release
from stockpot.store.sql_reports import SqlReports
from stockpot.store.sql_scans import SqlScans
from stockpot.store.sql_trails import SqlTrails
from stockpot.store.tables import (
    BoundRow,
    EvaluationRow,
    IngestedRow,
    OverlayRow,
    ProtocolRow,
    RecipeRow,
    SelectionRow,
)
from stockpot.store.transactions import Transactions, insert, insert_once, keep_protocol, keep_recipe

_AT_ONCE = 10_000
"""Values of one query: the oldest SQLite that knows RETURNING takes 32,766."""


@tries_again
class SqlStore(
    SqlJobs, SqlRegistrations, SqlLineage, SqlReports, SqlScans, SqlTrails, SqlPruning, Transactions, Store
):
    """A store in the database at this SQLAlchemy URL.

    Never migrates. An absent SQLite file is created; raises SchemaMismatch, with the command that
    mends it, where the schema is not this program's, and StoreError where there is no database.
    """

    def ingested(self, uri: str) -> IngestedSource | None:
        with self._transaction(self._reads) as session:
            row = session.get(IngestedRow, uri)
            return row.document if row else None

    def remember_ingested(self, ingested: IngestedSource) -> None:
        with self._transaction(self._writes) as session:
            statement = insert(session, IngestedRow).values(uri=ingested.uri, document=ingested)
            newer = {"document": statement.excluded.document}
            session.execute(statement.on_conflict_do_update(index_elements=[IngestedRow.uri], set_=newer))

    def score(self, recipe: Digest, protocol: Digest) -> Score | None:
        with self._transaction(self._reads) as session:
            row = session.get(EvaluationRow, (recipe, protocol))
            return _score(row) if row else None

    def scored(self, recipes: Sequence[Digest], protocol: Digest) -> frozenset[Digest]:
        parts = [recipes[start : start + _AT_ONCE] for start in range(0, len(recipes), _AT_ONCE)]
        known = select(EvaluationRow.recipe).where(EvaluationRow.protocol == protocol)
        with self._transaction(self._reads) as session:
            found = [session.scalars(known.where(EvaluationRow.recipe.in_(part))).all() for part in parts]
        return frozenset(recipe for part in found for recipe in part)

    def commit_score(
        self, recipe: Composition, protocol: EvaluationProtocol, score: Score, *, lease: Lease | None = None
    ) -> Score:
        with self._committing(recipe, protocol) as session:
            new = insert_once(
                session,
                EvaluationRow,
                recipe=recipe.digest,
                protocol=protocol.digest,
                value=_value(score),
                n=len(score.examples),
                examples=score.examples,
                metric=(score.metric.value, *score.metric.without) if score.metric else None,
                gaps=score.gaps,
                created_at=time.time(),
            )
            if lease is not None:
                release(session, lease.name, lease.owner)
            return score if new else _score(session.get_one(EvaluationRow, (recipe.digest, protocol.digest)))

    @contextmanager
    def _committing(self, recipe: Composition, protocol: EvaluationProtocol) -> Iterator[Session]:
        """A transaction in which both are there. A protocol is brought in once: hundreds of evaluations share
        it, and no row of it ever goes.
        """
        with self._transaction(self._writes) as session:
            keep_recipe(session, recipe)
            if protocol.digest not in self._brought_in:
                keep_protocol(session, protocol)
            yield session
        self._brought_in.add(protocol.digest)

    def evaluated(
        self, protocols: Collection[Digest] | None = None, *, since: float = 0.0
    ) -> tuple[int, float | None]:
        found = select(func.count(), func.max(EvaluationRow.created_at)).where(
            EvaluationRow.created_at >= since
        )
        if protocols is not None:
            found = found.where(EvaluationRow.protocol.in_(protocols))
        with self._transaction(self._reads) as session:
            number, last = session.execute(found).one()
        return number, last

    def bound(self, recipe: Digest, protocol: Digest) -> Bound | None:
        with self._transaction(self._reads) as session:
            return _least_bound(session, recipe, protocol)

    def commit_bound(
        self, recipe: Composition, protocol: EvaluationProtocol, bound: Bound, *, lease: Lease | None = None
    ) -> Bound:
        require_number(recipe, bound)
        key = {"recipe": recipe.digest, "protocol": protocol.digest, "mixed": bound.mixed}
        with self._committing(recipe, protocol) as session:
            statement = insert(session, BoundRow).values(**key, upper=bound.upper, updated_at=time.time())
            smaller = statement.on_conflict_do_update(
                index_elements=list(key),
                set_={"upper": statement.excluded.upper, "updated_at": statement.excluded.updated_at},
                where=statement.excluded.upper < BoundRow.upper,
            )
            session.execute(smaller)
            if lease is not None:
                release(session, lease.name, lease.owner)
            return _least_bound(session, recipe.digest, protocol.digest) or bound

    def withdraw_mixed_bounds(self, protocol: EvaluationProtocol) -> None:
        with self._transaction(self._writes) as session:
            keep_protocol(session, protocol)
            session.get_one(ProtocolRow, protocol.digest).mixed_bounds_withdrawn = True

    def mixed_bounds_withdrawn(self, protocol: Digest) -> bool:
        with self._transaction(self._reads) as session:
            row = session.get(ProtocolRow, protocol)
            return row is not None and row.mixed_bounds_withdrawn

    def commit_selection(self, selection: Selection, protocol: EvaluationProtocol) -> None:
        with self._transaction(self._writes) as session:
            keep_recipe(session, selection.recipe)
            keep_protocol(session, protocol)
            insert_once(
                session,
                SelectionRow,
                digest=digest_of_document([to_document(selection), protocol.digest]),
                recipe=selection.recipe.digest,
                protocol=protocol.digest,
                document=selection,
                created_at=time.time(),
            )

    def selections(self, recipe: Digest) -> tuple[Selection, ...]:
        found = select(SelectionRow.document).where(SelectionRow.recipe == recipe).order_by(SelectionRow.id)
        with self._transaction(self._reads) as session:
            return tuple(session.scalars(found))

    def resolve_overlay(self, recipe: Recipe, overlay: bytes) -> bytes:
        require_rule(recipe)
        with self._transaction(self._writes) as session:
            keep_recipe(session, recipe)
            insert_once(
                session,
                OverlayRow,
                recipe=recipe.digest,
                overlay=digest_of_bytes(overlay),
                content=overlay,
                created_at=time.time(),
            )
            return session.get_one(OverlayRow, recipe.digest).content

    def overlay(self, recipe: Digest) -> bytes | None:
        with self._transaction(self._reads) as session:
            row = session.get(OverlayRow, recipe)
            return row.content if row else None

    def recipe(self, digest: Digest) -> Composition | None:
        with self._transaction(self._reads) as session:
            row = session.get(RecipeRow, digest)
            return row.document if row else None


def _least_bound(session: Session, recipe: Digest, protocol: Digest) -> Bound | None:
    """Of those that were not withdrawn: a mixed one counts only under a protocol that says nothing else,
    whenever it was committed.
    """
    found = (
        select(BoundRow.upper, BoundRow.mixed)
        .join(ProtocolRow, ProtocolRow.digest == BoundRow.protocol)
        .where(BoundRow.recipe == recipe, BoundRow.protocol == protocol)
        .where(~(BoundRow.mixed & ProtocolRow.mixed_bounds_withdrawn))
        .order_by(BoundRow.upper, BoundRow.mixed)
        .limit(1)
    )
    row = session.execute(found).one_or_none()
    return Bound(row.upper, row.mixed) if row else None


def _score(row: EvaluationRow) -> Score:
    return Score(row.examples, Metric(row.metric[0], row.metric[1:]) if row.metric else None, row.gaps)


def _value(score: Score) -> float | None:
    """The value for SQL, NULL where there is none."""
    try:
        return None if math.isnan(score.value) else score.value
    except (ArithmeticError, ValueError):  # no examples, or both infinities
        return None
