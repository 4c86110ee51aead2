import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text

from stockpot.store import upgrade
from stockpot.store.schema import connected
from stockpot.store.tables import Row

KINDS = ["sqlite", "postgresql"]


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    with empty_database(request, tmp_path) as url:
        yield url


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that a store can be opened on: one of PostgreSQL is not migrated by opening it."""
    if request.param == "sqlite":
        yield _copied(request, tmp_path)
        return
    template = make_url(request.getfixturevalue("migrated")).database
    with _database(request.getfixturevalue("postgresql"), f" TEMPLATE {template}") as made:
        yield made


@pytest.fixture(params=KINDS)
def emptied_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same for tests that leave the database itself alone: PostgreSQL's is always the same one."""
    if request.param == "sqlite":
        return _copied(request, tmp_path)
    shared: str = request.getfixturevalue("shared")
    with connected(shared, writes=True) as connection:
        for table in reversed(Row.metadata.sorted_tables):
            connection.execute(table.delete())
    return shared


def _copied(request: pytest.FixtureRequest, folder: Path) -> str:
    shutil.copyfile(request.getfixturevalue("migrated_file"), folder / "stockpot.db")
    return f"sqlite:///{folder}/stockpot.db"


@contextmanager
def empty_database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """One of the kind that is the request's parameter."""
    if request.param == "sqlite":
        yield f"sqlite:///{folder}/stockpot.db"
        return
    with _database(request.getfixturevalue("postgresql")) as made:
        yield made


@pytest.fixture(scope="session")
def migrated(postgresql: str) -> Iterator[str]:
    """What others are copied from: quicker than migrating each."""
    with _database(postgresql) as made:
        upgrade(made)
        yield made


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise, of SQLite."""
    file = tmp_path_factory.mktemp("migrated") / "stockpot.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def shared(postgresql: str) -> Iterator[str]:
    """Emptied each time, which takes a tenth of the time of a copy."""
    with _database(postgresql) as made:
        upgrade(made)
        yield made


@contextmanager
def _database(server: str, like: str = "") -> Iterator[str]:
    name = f"stockpot_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}{like}"))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A server's URL: that of TEST_DATABASE_URL, whose user may create databases, else our own."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with own_server() as (url, _):
        yield url


@contextmanager
def own_server(port: int | None = None) -> Iterator[tuple[str, Callable[..., None]]]:
    """The URL of a server of our own, and what controls it: `control("stop")`, `control("start")`. It listens
    to a socket in its own folder; with a port, on the loopback, too.
    """
    programs = _programs()
    if programs is None:
        pytest.skip("needs PostgreSQL: install its server, or set TEST_DATABASE_URL")
    # Short: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    as_root = os.geteuid() == 0  # whom it refuses
    if as_root:
        shutil.chown(folder, "nobody")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, "-D", folder / "data", *arguments],
            user="nobody" if as_root else None,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def control(action: str) -> None:
        listens = f"-c listen_addresses='{'127.0.0.1' if port else ''}'{f' -p {port}' if port else ''}"
        options = f"-F {listens} -k {folder}"
        how = ["-o", options, "-l", str(folder / "log")] if action == "start" else ["-m", "immediate"]
        run("pg_ctl", "-w", *how, action)

    try:
        run("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8")
        control("start")
        yield f"postgresql://postgres@/postgres?host={folder}{f'&port={port}' if port else ''}", control
    finally:
        with suppress(subprocess.CalledProcessError):  # a test has stopped it
            control("stop")
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """The folder of PostgreSQL's programs: on the path, or where Debian puts those of its newest version."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None
