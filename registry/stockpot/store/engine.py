"""Connections to the store's database, and the one place where foreign errors become ours."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from stockpot.errors import StockpotError, StoreError
from stockpot.secrets import keep_secret

WRITES = "stockpot_writes"
"""Execution option of connections that are going to write."""

DRIVERS = {"sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"}
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Of PostgreSQL's client, in seconds but for the last one's milliseconds: a server that went away is noticed
within half a minute, where the system's own patience is two hours."""
FILES = (".db", ".sqlite", ".sqlite3")
"""What names of databases in files end with."""
_BUSY_SECONDS = 60
"""How long a SQLite connection waits for its turn; a transaction here takes milliseconds."""


def open_engine(url: str, *, migrating: bool = False) -> Engine:
    """Open a database; nothing is sent to it yet. Raises StoreError.

    Migrating leaves foreign keys unenforced, since SQLite alters a table by making a new one.
    """
    keep_secret(url)
    with foreign_errors(url):
        parsed = _parsed(url)
        _require_driver(parsed)
        if parsed.get_backend_name() == "postgresql":
            return _postgresql(parsed, migrating=migrating)
        if parsed.database in {None, "", ":memory:"}:
            raise StoreError("a store in memory would forget everything", mend="use sqlite:///stockpot.db")
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS})
        event.listen(engine, "connect", _bare if migrating else _prepared)
        event.listen(engine, "begin", _begin)
        return engine


def _require_driver(url: URL) -> None:
    """Raise StoreError for a database or a driver that cannot work, with the right form of the URL."""
    if url.drivername in DRIVERS:
        return
    kind = "postgresql" if url.get_backend_name() == "postgres" else url.get_backend_name()
    if kind not in DRIVERS:
        raise StoreError(f"the store cannot live in {kind}", mend="use a sqlite or postgresql URL")
    right = url.set(drivername=kind, query={}).render_as_string(hide_password=True)
    raise StoreError(f"the store cannot be opened with {url.drivername}", mend=f"write {right}")


def _postgresql(url: URL, *, migrating: bool) -> Engine:
    # Idle connections are cut. And whatever isolation a database defaults to, no more is needed than
    # this: under a stricter one PostgreSQL refuses what comes at once, in place of waiting.
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args={name: value for name, value in PATIENCE.items() if name not in url.query},
    )
    if not migrating:  # which may rightly take longer
        event.listen(engine, "begin", _limited)
    return engine


def _limited(connection: Connection) -> None:
    """The server ends what hangs; and what a client that vanished has locked."""
    connection.exec_driver_sql(
        "SET LOCAL statement_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"
    )


def _parsed(url: str) -> URL:
    if not set(":@") & set(url) and (url.startswith(("/", ".", "~")) or url.endswith(FILES)):
        raise StoreError(
            f"the store's address {url} is that of a file and of no database",
            mend=f"set STOCKPOT_STORE_URL to sqlite:///{Path(url).expanduser().absolute()}",
        )
    escape = "escape @, / and : in a password as %40, %2F and %3A"
    try:
        parsed = make_url(url)
    except ValueError as error:  # which quotes what may be a part of the password, as a driver does
        raise ArgumentError(f"its port is no number: {escape}") from error
    if "@" in (parsed.host or ""):
        raise ArgumentError(f"its host holds an @: {escape}")
    return parsed


def _bare(connection: sqlite3.Connection, _record: object) -> None:
    """Keep the driver from beginning transactions: it begins none before SELECT and DDL."""
    connection.isolation_level = None


def _prepared(connection: sqlite3.Connection, record: object) -> None:
    """Enforce foreign keys, and let readers read while another process writes."""
    _bare(connection, record)
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(
            "PRAGMA cache_size = -32000"
        )  # KiB at most; of 2 MB a lineage's walk reads pages again
        try:
            cursor.execute("PRAGMA journal_mode = WAL")  # the file remembers it
        except sqlite3.OperationalError as error:
            # The switch, alone of all statements, does not wait. Whoever is busy, or comes next, switches.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise


def _begin(connection: Connection) -> None:
    """Take the write lock at the start, where SQLite waits for it; half-way it would fail at once."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def foreign_errors(url: str) -> Iterator[None]:
    """Turn what SQLAlchemy, Alembic, a driver or a damaged row raises into StoreError."""
    try:
        yield
    except StoreError:
        raise
    except (ArgumentError, ImportError) as error:
        raise StoreError(
            f"this is no database that can be opened here: {error}",
            mend="use sqlite:///stockpot.db, or pip install 'stockpot[postgresql]' and a postgresql:// URL",
        ) from error
    except (SQLAlchemyError, CommandError, StockpotError, ValueError, zlib.error) as error:
        raise StoreError(
            f"the store {shown(url)} fails: {getattr(error, 'orig', None) or error}",
            mend="check that it is there, writable and not full, then run the same command again: "
            "what was committed is kept",
        ) from error


def file_of(url: str) -> Path | None:
    """The file of an SQLite database; None for any other. Raises StoreError for what is no address."""
    keep_secret(url)
    with foreign_errors(url):
        parsed = _parsed(url)
    name = parsed.database or ":memory:"
    # SQLite has addresses of its own for files.
    return (
        Path(name) if parsed.get_backend_name() == "sqlite" and not name.startswith((":", "file:")) else None
    )


def shown(url: str) -> str:
    """The URL without anything that could be a secret."""
    return make_url(url).set(query={}).render_as_string(hide_password=True)
