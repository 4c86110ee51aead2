"""Transactions on the store's database, and the rows that other rows refer to."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import JSON, ColumnElement, Engine, Text, any_, cast, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from stockpot.entities import Composition, Digest, EvaluationProtocol, Recipe
from stockpot.store.engine import WRITES, foreign_errors, open_engine
from stockpot.store.schema import require_head
from stockpot.store.tables import IngredientRow, ProtocolRow, RecipeRow, Row

T = TypeVar("T")
NAMED = 500
"""Values that one statement names: databases take some thousand at once."""


class Transactions:
    """One database at this SQLAlchemy URL, whose schema is this program's."""

    def __init__(self, url: str) -> None:
        require_head(url)
        self._url = url
        self._brought_in: set[Digest] = set()
        """Protocols that are there for sure."""
        self._reads = open_engine(url)
        self._writes = self._reads.execution_options(**{WRITES: True})

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._reads.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Session]:
        with foreign_errors(self._url), Session(engine) as session, session.begin():
            yield session


def insert(session: Session, table: type[Row]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows what to do on conflict: standard SQL has none."""
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if on_sqlite else postgresql.insert(table)


def insert_once(session: Session, table: type[Row], **columns: Any) -> bool:
    """Insert unless a committed row has the key; wait for one that is not committed yet."""
    statement = (
        insert(session, table).values(**columns).on_conflict_do_nothing().returning(literal(value=True))
    )
    return session.scalar(statement) is not None


def keep_recipe(session: Session, recipe: Composition) -> None:
    """Bring the recipe in, with its ingredients, unless it is there. An ensemble is no soup: it has none."""
    new = insert_once(session, RecipeRow, digest=recipe.digest, document=recipe)
    if new and isinstance(recipe, Recipe):
        session.add_all(
            IngredientRow(
                recipe=recipe.digest,
                position=position,
                checkpoint=ingredient.checkpoint,
                coefficient=ingredient.factor,
            )
            for position, ingredient in enumerate(recipe.ingredients)
        )


def keep_protocol(session: Session, protocol: EvaluationProtocol) -> None:
    """Bring the protocol in, unless it is there."""
    insert_once(
        session,
        ProtocolRow,
        digest=protocol.digest,
        document=protocol,
        question=protocol.question.digest,
    )


def in_parts(values: Collection[T]) -> Iterator[list[T]]:
    """Different values, so many at once that a statement may name them."""
    some = list(dict.fromkeys(values))
    return (some[begin : begin + NAMED] for begin in range(0, len(some), NAMED))


def among(
    session: Session, column: InstrumentedAttribute[Any], values: Collection[str]
) -> ColumnElement[bool]:
    """Whether the column has one of these values, however many: they go as one parameter, as JSON. Where each
    is a parameter, a statement of a thousand takes longer to write than to answer.
    """
    some = json.dumps(sorted(set(values)))
    if session.get_bind().dialect.name == "sqlite":
        return column.in_(select(func.json_each(some).table_valued("value").c.value))
    each = select(func.json_array_elements_text(cast(some, Text).cast(JSON)))
    return column == any_(func.array(each.scalar_subquery()))
