"""Who holds what, in SQL."""
# ruff: noqa: D102 - the port's docstrings are the contract

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from stockpot.entities import Blend, Candidate, Digest, Found, KnownVersion, Recall, RecallKind, Recipe
from stockpot.store.descent import in_order, is_told, places_in_order
from stockpot.store.places import place_of
from stockpot.store.sql_jobs import EXPERIMENT, SWEEP
from stockpot.store.sql_registrations import Clock, keep_version
from stockpot.store.tables import CandidateRow, IngredientRow, JobRow, RecallRow, VersionRow
from stockpot.store.transactions import Transactions, among, insert, keep_recipe

BLENDS = (
    select(
        VersionRow.checkpoint.label("soup"),
        IngredientRow.recipe,
        IngredientRow.position,
        IngredientRow.checkpoint.label("ingredient"),
        IngredientRow.coefficient,
    )
    .join(IngredientRow, IngredientRow.recipe == VersionRow.recipe)
    .where(IngredientRow.checkpoint != VersionRow.checkpoint)
)
"""Of known versions. A recipe of one ingredient makes that again."""
OFF = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")
BY_INDEX = select(*(func.set_config(way, "off", literal(value=True)) for way in OFF))
"""PostgreSQL would read whole tables for each level, or compile what it asks itself once. True: for this
transaction.
"""
VERSIONS = select(
    *(VersionRow.model, VersionRow.version, VersionRow.recipe),
    *(VersionRow.checkpoint, VersionRow.run_id, VersionRow.model_id),
)

RECALLS = select(
    *(RecallRow.kind, RecallRow.name, RecallRow.reason),
    *(RecallRow.by, RecallRow.withdrawn, RecallRow.at),
)


class SqlLineage(Transactions):
    """The descent of soups."""

    def remember_version(
        self,
        version: KnownVersion,
        recipe: Recipe,
        ingredients: Sequence[Candidate] = (),
        *,
        sweep: str | None = None,
    ) -> None:
        with self._transaction(self._writes) as session:
            keep_recipe(session, recipe)
            keep_version(session, version)
            for candidate in filter(is_told, ingredients):
                place = place_of(candidate)
                known = select(CandidateRow.id).where(
                    CandidateRow.run_id == place.run_id,
                    CandidateRow.path == place.path,
                    CandidateRow.checkpoint == candidate.checkpoint.digest,
                )
                if session.scalar(known.limit(1)) is None:
                    session.add(
                        CandidateRow(
                            job=None,
                            run_id=place.run_id,
                            path=place.path,
                            model_id=place.model_id,
                            checkpoint=candidate.checkpoint.digest,
                            sweep=sweep,
                        )
                    )

    def known_versions(
        self, checkpoints: Collection[Digest] | None = None, *, uri: str | None = None
    ) -> tuple[KnownVersion, ...]:
        wanted = VERSIONS if uri is None else VERSIONS.where(_is_called(uri))
        with self._transaction(self._reads) as session:
            if checkpoints is not None:
                wanted = wanted.where(among(session, VersionRow.checkpoint, checkpoints))
            return in_order(KnownVersion(*row) for row in session.execute(wanted))

    def blends(self, checkpoints: Collection[Digest], *, down: bool) -> tuple[Blend, ...]:
        given = IngredientRow.checkpoint if down else VersionRow.checkpoint
        with self._transaction(self._reads) as session:
            _by_index(session)
            wanted = _from(given, among(session, given, checkpoints), down=down)
            found = [Blend(*row) for row in session.execute(wanted)]
        return tuple(sorted(found, key=lambda blend: (blend.soup, blend.recipe, blend.position)))

    def found(self, checkpoints: Collection[Digest]) -> tuple[Found, ...]:
        sweep = func.coalesce(CandidateRow.sweep, SWEEP, EXPERIMENT)
        places = (
            select(CandidateRow.checkpoint, CandidateRow.run_id, CandidateRow.path, sweep)
            .outerjoin(JobRow, JobRow.name == CandidateRow.job)
            .distinct()
        )
        with self._transaction(self._reads) as session:
            _by_index(session)
            wanted = places.where(among(session, CandidateRow.checkpoint, checkpoints))
            return places_in_order([Found(*row) for row in session.execute(wanted)])

    def logged_by(self, run_ids: Collection[str]) -> tuple[Digest, ...]:
        logged, made = select(CandidateRow.checkpoint), select(VersionRow.checkpoint)
        with self._transaction(self._reads) as session:
            found = {
                *session.scalars(logged.where(among(session, CandidateRow.run_id, run_ids))),
                *session.scalars(made.where(among(session, VersionRow.run_id, run_ids))),
            }
        return tuple(sorted(found))

    def append_recall(self, recall: Recall) -> Recall:
        about = (RecallRow.kind == recall.kind) & (RecallRow.name == recall.name)
        last = RECALLS.where(about).order_by(RecallRow.id.desc()).limit(1)
        with self._transaction(self._writes) as session:
            before = session.execute(last).one_or_none()
            if before is not None and before.withdrawn == recall.withdrawn:
                return _recall(before)
            session.execute(insert(session, RecallRow).values(**asdict(recall) | {"at": Clock()}))
            return _recall(session.execute(last).one())

    def recalls(self) -> tuple[Recall, ...]:
        with self._transaction(self._reads) as session:
            return tuple(map(_recall, session.execute(RECALLS.order_by(RecallRow.id))))


def _by_index(session: Session) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(BY_INDEX)


def _from(given: InstrumentedAttribute[Digest], begin: ColumnElement[bool], *, down: bool) -> Select[Any]:
    """One question for all levels: level by level, the ways to the database would take most of the time."""
    met = BLENDS.where(begin).cte("met", recursive=True)
    reached = met.c.soup if down else met.c.ingredient
    return select(met.union(BLENDS.join(met, given == reached)))


def _recall(row: Any) -> Recall:
    return Recall(RecallKind(row.kind), row.name, row.reason, row.by, row.withdrawn, row.at)


def _is_called(uri: str) -> ColumnElement[bool]:
    model, _, version = uri.removeprefix("models:/").rpartition("/")
    return (VersionRow.model == model) & (VersionRow.version == version)
