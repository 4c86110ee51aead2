"""The database's schema: which revision it has, which one this program needs, and how to get there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select

from stockpot.errors import SchemaMismatch
from stockpot.store.engine import WRITES, file_of, foreign_errors, open_engine, shown
from stockpot.store.patience import is_full, patient

VERSION_TABLE = "stockpot_alembic_version"
"""Not Alembic's own name: MLflow's revision lies in that one, where both share a database."""

ONE_UPGRADE = int.from_bytes(b"stockpot")
"""The number of the lock under which a PostgreSQL database is migrated, by one process at a time."""
_one_at_a_time = Lock()
"""Alembic keeps the migration under way in a variable of its module."""


def head() -> str:
    """The revision that this program needs."""
    return _scripts().get_heads()[0]


def current(url: str) -> str | None:
    """The database's revision; None for one without a store. Raises StoreError."""
    with connected(url) as connection:
        return _revision(connection)


def upgrade(url: str) -> str:
    """Bring the database to `head` in one transaction, and return that.

    Raises SchemaMismatch for one that a newer program made, StoreError for one that does not answer.
    """
    with connected(url, writes=True) as connection:
        if connection.dialect.name == "postgresql":  # SQLite's transaction that writes is alone anyway
            connection.execute(select(func.pg_advisory_xact_lock(ONE_UPGRADE)))
        found = _revision(connection)
        if found not in _known():
            raise _mismatch(url, found)
        with _one_at_a_time:
            command.upgrade(_config(connection), "head")
    return head()


def require_head(url: str) -> None:
    """Make sure that the database has the schema of this program, before it is used.

    An empty SQLite database gets it here, whoever comes first; any other is left as it is. A server
    without a free connection is asked again for two minutes; one that is down is told at once. Raises
    SchemaMismatch, naming the command that mends it, and StoreError.
    """
    if look(url) is None:
        upgrade(url)


def look(url: str) -> str | None:
    """The database's revision, which is this program's; None where the first process that opens the store
    makes it: in an empty SQLite database, or in one that is not there. Makes nothing.

    Raises what `require_head` raises.
    """
    if (file := file_of(url)) is not None and not file.exists():
        return None
    found, fresh = patient(_looked_at, is_full)(url)
    if not fresh and found != head():
        raise _mismatch(url, found)
    return None if fresh else found


def _looked_at(url: str) -> tuple[str | None, bool]:
    """The revision, and whether it is an empty SQLite database."""
    with connected(url) as connection:
        fresh = connection.dialect.name == "sqlite" and not inspect(connection).get_table_names()
        return _revision(connection), fresh


@contextmanager
def connected(url: str, *, writes: bool = False) -> Iterator[Connection]:
    """A connection in a transaction, for migrations: without what the store needs of its own."""
    engine = open_engine(url, migrating=True).execution_options(**{WRITES: writes})
    try:
        with foreign_errors(url), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _mismatch(url: str, found: str | None) -> SchemaMismatch:
    needs = f"this Stockpot needs {head()}"
    if found is None:
        return SchemaMismatch(f"{shown(url)} holds no store yet; {needs}", mend="stockpot db upgrade")
    if found in _known():
        return SchemaMismatch(
            f"the store {shown(url)} is at revision {found}; {needs}", mend="stockpot db upgrade"
        )
    return SchemaMismatch(
        f"the store {shown(url)} is at revision {found}, which a newer Stockpot made; {needs}",
        mend="upgrade Stockpot: pip install --upgrade stockpot",
    )


def _known() -> set[str | None]:
    """Every revision that this program can start from; None: no store yet."""
    return {None, *(script.revision for script in _scripts().walk_revisions())}


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection} if connection else {})
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    return config


def _migrations() -> Path:
    """The repository's folder in a checkout, where the wheel's copy would be missing or stale."""
    store = Path(__file__).parent
    checkout = store.parents[2]
    if (checkout / "alembic" / "env.py").is_file() and (checkout / "pyproject.toml").is_file():
        return checkout / "alembic"
    return store / "migrations"
