import ast
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from stockpot.entities import Bound, EvaluationProtocol, Metric, Score
from stockpot.errors import SchemaMismatch, StoreError
from stockpot.store import SqlStore, current, head, schema, upgrade
from stockpot.store.tables import ProtocolRow, Row
from stockpot.testing.store_values import HALVED, VALIDATION, at_once, report, soup

REPOSITORY = Path(__file__).parents[2]
# As revision 0004 kept protocols: of an older program, and of one that knew the later fields.
FLAT = {
    "task": "arrays",
    "task_version": "1+0123456789ab",
    "task_args": [["path", "digits.npz"]],
    "split": "validation",
    "dataset": VALIDATION.dataset,
    "n": 3,
    "dtype": "float32",
    "tf32": False,
    "batch_size": 256,
    "device": "cpu x86_64",
    "torch_version": "2.13.0",
}
LATER_FLAT = {
    **FLAT,
    "modules": [["birds", "0123456789ab"]],
    "distributions": [],
    "software": [["CUDA", "13.0"]],
}
LATER = EvaluationProtocol(
    replace(VALIDATION.question, modules=(("birds", "0123456789ab"),)),
    replace(VALIDATION.conditions, software=(("CUDA", "13.0"),)),
)


def tables(url: str) -> set[str]:
    with schema.connected(url) as connection:
        return set(inspect(connection).get_table_names())


def described(connection: Connection) -> dict[str, Any]:
    """Columns, and constraints with their names, of every table of the store."""
    inspector = inspect(connection)
    return {
        table: (
            [{**column, "type": str(column["type"])} for column in inspector.get_columns(table)],
            inspector.get_pk_constraint(table),
            sorted(inspector.get_foreign_keys(table), key=str),
            inspector.get_unique_constraints(table),
            inspector.get_indexes(table),
        )
        for table in Row.metadata.tables
    }


def _after_head() -> str:
    return f"{int(head()) + 1:04}"


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this the program after the next release: its migrations hold one more revision."""
    newest, after = head(), _after_head()
    folder = tmp_path / "migrations of the next 100%"
    shutil.copytree(REPOSITORY / "alembic", folder)
    revision = folder / "versions" / f"{after}_next.py"
    revision.write_text(
        f'from alembic import op\nimport sqlalchemy as sa\nrevision, down_revision = "{after}", "{newest}"\n'
        'def upgrade():\n    op.create_table("stockpot_next", sa.Column("id", sa.Integer))\n'
        'def downgrade():\n    op.drop_table("stockpot_next")\n'
    )
    monkeypatch.setattr(schema, "_migrations", lambda: folder)
    return revision


def test_the_migrations_arrive_at_the_models(empty_url: str) -> None:
    upgrade(empty_url)
    with schema.connected(empty_url) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, Row.metadata) == []
        migrated = described(connection)
    with schema.connected(empty_url, writes=True) as connection:
        command.downgrade(schema._config(connection), "base")
        Row.metadata.create_all(connection)
        assert described(connection) == migrated


def test_upgrade_downgrade_upgrade_arrives_where_it_began(empty_url: str) -> None:
    assert upgrade(empty_url) == head()
    with schema.connected(empty_url) as connection:
        before = described(connection)
    with schema.connected(empty_url, writes=True) as connection:
        command.downgrade(schema._config(connection), "base")
    assert tables(empty_url) == {schema.VERSION_TABLE}
    assert current(empty_url) is None
    assert upgrade(empty_url) == head()
    with schema.connected(empty_url) as connection:
        assert described(connection) == before


def test_a_downgrade_keeps_means_and_drops_what_the_older_program_would_misread(url: str) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0, 0.0)))
        store.commit_score(soup("b"), VALIDATION, Score((1.0, 0.0), Metric(0.75, (0.5,))))
        store.commit_bound(soup("c"), VALIDATION, Bound(0.5))
    with schema.connected(url, writes=True) as connection:
        command.downgrade(schema._config(connection), "0001")
    upgrade(url)
    with closing(SqlStore(url)) as store:
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((1.0, 0.0))
        assert store.score(soup("b").digest, VALIDATION.digest) is None
        assert store.bound(soup("c").digest, VALIDATION.digest) is None


def documents(url: str, table: str) -> list[Any]:
    with schema.connected(url) as connection:
        found = sa.select(sa.table(table, sa.column("document", sa.JSON)).c.document)
        return list(connection.scalars(found))


def test_protocols_get_two_parts_and_become_flat_again_for_the_older_program(empty_url: str) -> None:
    with schema.connected(empty_url, writes=True) as connection:
        command.upgrade(schema._config(connection), "0004")
        rows = sa.table("stockpot_protocols", sa.column("digest"), sa.column("document", sa.JSON))
        old = {VALIDATION.digest: FLAT, LATER.digest: LATER_FLAT}
        connection.execute(
            sa.insert(rows), [{"digest": digest, "document": flat} for digest, flat in old.items()]
        )
    upgrade(empty_url)
    with closing(SqlStore(empty_url)) as store:
        for protocol in (VALIDATION, LATER, HALVED):
            store.commit_score(soup("a"), protocol, Score((1.0,)))
        store.commit_report(report(soup("a")))
    with schema.connected(empty_url) as connection:
        found = connection.execute(sa.select(ProtocolRow.digest, ProtocolRow.document, ProtocolRow.question))
        kept = {row.digest: (row.document, row.question) for row in found}
    assert kept == {one.digest: (one, one.question.digest) for one in (VALIDATION, LATER, HALVED)}
    with schema.connected(empty_url, writes=True) as connection:
        command.downgrade(schema._config(connection), "0004")
    halved = {**FLAT, "batch_size": 128, "modules": [], "distributions": [], "software": []}
    back = documents(empty_url, "stockpot_protocols")
    assert len(back) == 3
    assert all(one in back for one in (FLAT, LATER_FLAT, halved))
    (filed,) = documents(empty_url, "stockpot_reports")
    assert [(one["split"], one["device"]) for one in filed["protocols"]] == [
        ("validation", "cpu x86_64"),
        ("test", "cpu x86_64"),
    ]
    upgrade(empty_url)
    with closing(SqlStore(empty_url)) as store:
        assert [one.report for one in store.reports(soup("a").digest)] == [report(soup("a"))]
        assert store.score(soup("a").digest, HALVED.digest) == Score((1.0,))


def test_upgrading_twice_changes_nothing(url: str) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        assert upgrade(url) == upgrade(url) == current(url) == head()
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((1.0,))


@pytest.mark.parametrize("empty_file", [False, True])
def test_opening_an_empty_sqlite_database_creates_the_schema(tmp_path: Path, *, empty_file: bool) -> None:
    if empty_file:
        (tmp_path / "stockpot.db").touch()
    url = f"sqlite:///{tmp_path}/stockpot.db"
    assert current(url) is None
    SqlStore(url).close()
    assert current(url) == head()


def test_threads_that_create_files_at_once_all_succeed(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number % 4}.db" for number in range(8)]
    for store in at_once(lambda number: SqlStore(urls[number])):
        store.close()
    assert {current(url) for url in urls} == {head()}


def test_a_database_of_another_program_is_joined_only_when_told_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mlflow.db"
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as mlflow:
        mlflow.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        mlflow.execute("INSERT INTO alembic_version VALUES ('c0ffee')")
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(SchemaMismatch, match="stockpot db upgrade"):
        SqlStore(url)
    assert (tmp_path / "mlflow.db").read_bytes() == before
    upgrade(url)
    SqlStore(url).close()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as mlflow:
        assert mlflow.execute("SELECT * FROM alembic_version").fetchall() == [("c0ffee",)]


def test_an_older_schema_is_never_migrated_by_opening_it(url: str, request: pytest.FixtureRequest) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
    newest, after = head(), _after_head()
    request.getfixturevalue("next_revision")
    with pytest.raises(SchemaMismatch, match=f"at revision {newest}; this Stockpot needs {after}") as error:
        SqlStore(url)
    assert error.value.mend == "stockpot db upgrade"
    assert current(url) == newest
    assert upgrade(url) == after
    with closing(SqlStore(url)) as store:
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((1.0,))


@pytest.mark.slow
def test_three_upgrades_at_once_all_succeed(empty_url: str) -> None:
    program = f"from stockpot.store import upgrade; print(upgrade({empty_url!r}))"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == [head()] * 3
    assert current(empty_url) == head()


def test_a_newer_schema_asks_for_a_newer_stockpot(
    empty_url: str, next_revision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert next_revision.exists()
    after = upgrade(empty_url)
    monkeypatch.undo()
    for use in (SqlStore, upgrade):
        with pytest.raises(SchemaMismatch, match=f"{after}, which a newer Stockpot made") as error:
            use(empty_url)
        assert error.value.mend.startswith("upgrade Stockpot")


def test_a_migration_that_fails_half_way_leaves_the_old_schema(empty_url: str, next_revision: Path) -> None:
    whole = next_revision.read_text()
    next_revision.write_text(whole.replace("def downgrade", '    op.execute("nonsense")\ndef downgrade'))
    with pytest.raises(StoreError, match="nonsense"):
        upgrade(empty_url)
    assert current(empty_url) is None
    assert tables(empty_url) == set()


def imported(program: str) -> set[str]:
    """Top-level names of the packages that this program imports."""
    nodes = list(ast.walk(ast.parse(program)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_migrations_import_nothing_of_this_program() -> None:
    for migration in (REPOSITORY / "alembic" / "versions").glob("*.py"):
        assert imported(migration.read_text()) <= {"alembic", "sqlalchemy", *sys.stdlib_module_names}


def test_import_alembic_means_the_library_even_in_the_checkout() -> None:
    program = [sys.executable, "-c", "import alembic; print(alembic.__version__)"]
    assert subprocess.run(program, cwd=REPOSITORY, check=True, capture_output=True).stdout


def test_a_developer_can_run_alembic_in_the_checkout(empty_url: str) -> None:
    for arguments in (["upgrade", "head"], ["check"]):
        program = [sys.executable, "-m", "alembic", "-x", f"url={empty_url}", *arguments]
        subprocess.run(program, cwd=REPOSITORY, check=True, capture_output=True)
    assert current(empty_url) == head()
