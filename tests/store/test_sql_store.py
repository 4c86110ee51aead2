import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError

from stockpot.entities import (
    Bound,
    Ensemble,
    Lease,
    Metric,
    Opening,
    Registration,
    Score,
    SoupOutcome,
    TrailDraft,
    TrailEntry,
    TrailKind,
    TrailOf,
)
from stockpot.errors import StoreError
from stockpot.ports import Store
from stockpot.store import SqlStore, engine, sql_registrations, sql_trails, upgrade
from stockpot.store.claims import require_claim
from stockpot.store.schema import connected
from stockpot.store.tables import EvaluationRow, IngredientRow, ProtocolRow, RecipeRow
from stockpot.store.trails import next_entries
from stockpot.testing.store_contract import StoreContract
from stockpot.testing.store_values import (
    EVIDENCE,
    HALVED,
    TEST,
    VALIDATION,
    bits,
    job,
    report,
    selection,
    soup,
)


class TestSqlStore(StoreContract):
    @pytest.fixture
    def store(self, emptied_url: str) -> Iterator[Store]:
        with closing(SqlStore(emptied_url)) as store:
            yield store


def test_another_store_on_the_same_database_knows_it_all(url: str) -> None:
    with closing(SqlStore(url)) as first:
        first.commit_score(soup("a", "b"), VALIDATION, Score((nan, -0.0)))
        first.commit_bound(soup("a"), VALIDATION, Bound(0.5))
        first.commit_selection(selection(soup("a", "b")), VALIDATION)
        row = first.begin_registration("digits", soup("a", "b"))
        lease = first.take_lease(row.lease, owner="me", seconds=1000)
        with closing(SqlStore(url)) as second:
            assert bits(second.score(soup("a", "b").digest, VALIDATION.digest)) == bits(Score((nan, -0.0)))
            assert second.bound(soup("a").digest, VALIDATION.digest) == Bound(0.5)
            assert len(second.selections(soup("a", "b").digest)) == 1
            assert second.registrations("digits") == (row,)
            assert second.take_lease(row.lease, owner="you", seconds=1) == lease


def test_sql_can_ask_which_recipes_hold_a_checkpoint(url: str) -> None:
    recipes = [soup("a", "b"), soup("c", "b", "a"), soup("c")]
    with closing(SqlStore(url)) as store:
        for recipe in recipes:
            store.commit_score(recipe, VALIDATION, Score((1.0,)))
        ensemble = Ensemble.of(recipes[0].checkpoints)  # averages no weights
        store.commit_score(ensemble, VALIDATION, Score((1.0,)))
    shared = recipes[0].checkpoints[1]
    with connected(url) as connection:
        rows = connection.execute(
            select(IngredientRow.recipe, IngredientRow.position, IngredientRow.coefficient)
            .where(IngredientRow.checkpoint == shared)
            .order_by(IngredientRow.coefficient)
        ).all()
    assert [tuple(row) for row in rows] == [(recipes[1].digest, 1, 1 / 3), (recipes[0].digest, 1, 1 / 2)]


def test_what_a_job_keeps_in_another_programs_words_is_not_there(url: str) -> None:
    mine, other = job("one"), job("two")
    with closing(SqlStore(url)) as store:
        for one in (mine, other):
            store.begin_job(one)
            store.take_lease(one.lease, owner="me", seconds=1000)
            store.open_job(one, Opening("1.0", (VALIDATION,)), owner="me")
            store.finish_job(one, SoupOutcome(report(soup("a")), (), 7), EVIDENCE, owner="me")
        with connected(url, writes=True) as connection:
            change = "UPDATE stockpot_jobs SET request = :it, outcome = :it, opening = :it WHERE name = :name"
            connection.execute(text(change), {"it": '{"colour": "green"}', "name": other.name})
        assert store.jobs_at_work() == (mine,)
        assert store.opening(other.name) is None
        assert store.answer(other) is None
        assert store.answer(mine) is not None


def test_leases_that_dead_processes_left_go_when_a_job_begins(url: str) -> None:
    with closing(SqlStore(url)) as store, connected(url) as connection:
        for name, seconds in (("long ago", -90_000), ("lately", -1), ("now", 60)):
            store.take_lease(name, owner="me", seconds=seconds)
        store.begin_job(job("one"))
        left = connection.execute(text("SELECT name FROM stockpot_leases ORDER BY name")).scalars()
        assert list(left) == ["lately", "now"]


def test_sql_can_ask_what_was_measured_of_a_question_under_other_conditions(url: str) -> None:
    with closing(SqlStore(url)) as store:
        for protocol, score in ((VALIDATION, 1.0), (HALVED, 0.5), (TEST, 0.0)):
            store.commit_score(soup("a"), protocol, Score((score,)))
    asked = (
        select(EvaluationRow.value)
        .join(ProtocolRow, ProtocolRow.digest == EvaluationRow.protocol)
        .where(ProtocolRow.question == VALIDATION.question.digest)
        .order_by(EvaluationRow.value)
    )
    with connected(url) as connection:
        assert connection.scalars(asked).all() == [0.5, 1.0]


@pytest.mark.parametrize(("examples", "mean"), [((1.0, 0.0), 0.5), ((nan, 1.0), None), ((), None)])
def test_sql_sees_the_mean_and_null_where_there_is_none(
    url: str, examples: tuple[float, ...], mean: float | None
) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score(examples))
    with connected(url) as connection:
        assert connection.scalar(select(EvaluationRow.value)) == mean
        assert connection.scalar(select(EvaluationRow.n)) == len(examples)


@pytest.mark.parametrize(("metric", "seen"), [(0.25, 0.25), (nan, None)])
def test_sql_sees_the_metric_where_there_is_one(url: str, metric: float, seen: float | None) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0, 0.0), Metric(metric, (0.5, nan))))
    with connected(url) as connection:
        assert connection.scalar(select(EvaluationRow.value)) == seen


def test_a_damaged_metric_is_an_error(url: str) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,), Metric(0.5, (0.25,))))
        with connected(url, writes=True) as connection:
            connection.execute(text("UPDATE stockpot_evaluations SET metric = :damaged"), {"damaged": b"x"})
        with pytest.raises(StoreError, match="fails"):
            store.score(soup("a").digest, VALIDATION.digest)


def test_foreign_keys_are_enforced(url: str) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        with pytest.raises(IntegrityError), store._writes.begin() as connection:
            connection.execute(delete(RecipeRow))


def test_a_store_answers_while_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0)
    with closing(SqlStore(f"sqlite:///{tmp_path}/stockpot.db")) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        with closing(sqlite3.connect(tmp_path / "stockpot.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            other.execute("UPDATE stockpot_evaluations SET n = 0")
            assert store.score(soup("a").digest, VALIDATION.digest) == Score((1.0,))


def test_nobody_writes_between_a_writers_look_and_its_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else SQLite would refuse the write at once, however long the writer is ready to wait."""
    waits = []

    def look(wanted: Registration, committed: Registration | None, lease: Lease | None, owner: str) -> None:
        with closing(sqlite3.connect(tmp_path / "stockpot.db", timeout=0)) as other, other:
            try:
                other.execute("UPDATE stockpot_recipes SET digest = digest")
            except sqlite3.OperationalError as error:
                waits.append(str(error))
        require_claim(wanted, committed, lease, owner)

    monkeypatch.setattr(sql_registrations, "require_claim", look)
    with closing(SqlStore(f"sqlite:///{tmp_path}/stockpot.db")) as store:
        advanced = replace(store.begin_registration("digits", soup("a", "b")), run_id="run")
        store.take_lease(advanced.lease, owner="me", seconds=1000)
        store.advance_registration(advanced, owner="me")
        assert store.registration("digits", soup("a", "b").digest) == advanced
    assert waits == ["database is locked"]


def test_a_lock_that_is_never_given_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0)
    with (
        closing(SqlStore(f"sqlite:///{tmp_path}/stockpot.db")) as store,
        closing(sqlite3.connect(tmp_path / "stockpot.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"stockpot\.db fails: database is locked"):
            store.commit_score(soup("a"), VALIDATION, Score((1.0,)))


def test_damaged_scores_are_an_error(url: str) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        with connected(url, writes=True) as connection:
            connection.execute(text("UPDATE stockpot_evaluations SET examples = :damaged"), {"damaged": b"x"})
        with pytest.raises(StoreError, match="fails"):
            store.score(soup("a").digest, VALIDATION.digest)


@pytest.mark.parametrize("damaged", ["{", "{}", '{"ingredients": []}'])
def test_a_damaged_document_is_an_error(url: str, damaged: str) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        with pytest.raises(StoreError, match="fails"):  # PostgreSQL refuses to keep what is no JSON
            _read_damaged(store, url, damaged)


def _read_damaged(store: SqlStore, url: str, damaged: str) -> None:
    with connected(url, writes=True) as connection:
        connection.execute(text("UPDATE stockpot_recipes SET document = :damaged"), {"damaged": damaged})
    store.recipe(soup("a").digest)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_database_that_isolates_more_refuses_nobody(url: str) -> None:
    with connected(url, writes=True) as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"))
    with connected(url) as connection:
        assert connection.execute(text("SHOW default_transaction_isolation")).scalar_one() == "serializable"
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_connection_that_the_server_cut_while_it_was_idle_is_made_anew(url: str) -> None:
    with closing(SqlStore(url)) as store:
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        with connected(url) as connection:
            idle = connection.execute(text(f"{cut} AND pid <> pg_backend_pid()")).all()
        assert idle == [(True,)]
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((1.0,))


def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but worth keeping " * 100)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"notes\.txt fails: file is not a database"):
        SqlStore(f"sqlite:///{file}")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sqlite:////no/such/folder/stockpot.db", "unable to open database file"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://localhost/stockpot", "cannot live in mysql"),
        ("store", "no database that can be opened"),
        ("sqlite:/x.db", "no database that can be opened"),
        ("me:hunter2@127.0.0.1/x.db", "no database that can be opened"),
        ("postgresql://me@localhost:port/stockpot", "no database that can be opened"),
        ("postgresql+nonsense://localhost/stockpot", "opened with postgresql.nonsense"),
    ],
)
def test_an_url_that_cannot_work_says_why_and_what_would(url: str, what: str) -> None:
    with pytest.raises(StoreError, match=what) as error:
        SqlStore(url)
    assert error.value.mend


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("/srv/stockpot.db", "set STOCKPOT_STORE_URL to sqlite:////srv/stockpot.db"),
        ("a/stockpot.sqlite3", f"set STOCKPOT_STORE_URL to sqlite:///{Path.cwd()}/a/stockpot.sqlite3"),
        ("sqlite+aiosqlite:///x.db", "write sqlite:///x.db"),
        ("postgresql+asyncpg://u:hunter2@127.0.0.1:9/x", "write postgresql://u:***@127.0.0.1:9/x"),
        ("postgres://u:hunter2@127.0.0.1:9/x?sslpassword=hunter2", "write postgresql://u:***@127.0.0.1:9/x"),
        ("postgresql+pg8000://127.0.0.1:9/x", "write postgresql://127.0.0.1:9/x"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_its_right_form(url: str, right: str) -> None:
    for use in (SqlStore, upgrade):
        with pytest.raises(StoreError, match=r"cannot be opened with|of a file and of no database") as error:
            use(url)
        assert error.value.mend == right
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_connection_that_is_cut_in_a_transaction_loses_nothing(url: str) -> None:
    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def cut_who_waits() -> bool:
        with connected(url) as connection:  # a transaction sees the activity of its beginning
            return bool(connection.execute(cut).all())

    with closing(SqlStore(url)) as store, ThreadPoolExecutor() as threads:
        with connected(url) as other:
            other.execute(text("LOCK TABLE stockpot_evaluations IN EXCLUSIVE MODE"))
            committed = threads.submit(store.commit_score, soup("a"), VALIDATION, Score((1.0,)))
            while not cut_who_waits():
                assert not committed.done()
        assert committed.result(timeout=60) == Score((1.0,))


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_transaction_that_hangs_is_ended_by_the_server(url: str) -> None:
    with closing(SqlStore(url)) as store, store._transaction(store._reads) as session:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert session.scalar(text(f"SHOW {name}")) == "1min"


def test_passwords_are_not_shown() -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/stockpot?sslpassword=hunter2"
    assert engine.shown(url) == "postgresql://me:***@127.0.0.1:1/stockpot"
    with pytest.raises(StoreError) as error:
        SqlStore(url)
    assert "hunter2" not in f"{error.value} {error.value.__cause__}"


def test_a_path_with_an_at_sign_is_shown_whole() -> None:
    assert engine.shown("sqlite:////home/me@corp/stockpot.db") == "sqlite:////home/me%40corp/stockpot.db"


@pytest.mark.parametrize("password", ["hun@ter2", "hun/ter2", "hun@t:er2", "hun:t@er2"])
def test_a_password_that_is_not_escaped_is_not_shown_in_parts(password: str) -> None:
    with pytest.raises(StoreError) as error:
        SqlStore(f"postgresql://me:{password}@127.0.0.1:1/stockpot")
    assert "er2" not in str(error.value)


@pytest.mark.parametrize("column", ["created_at", "asked_at", "answered_at", "failed_at"])
def test_what_a_young_job_rests_on_is_not_pruned(url: str, column: str) -> None:
    mine = job("one")
    with closing(SqlStore(url)) as store:
        store.begin_job(mine)
        store.take_lease(mine.lease, owner="me", seconds=1000)
        store.open_job(mine, Opening("1.0", (VALIDATION,)), owner="me")
        store.finish_job(mine, SoupOutcome(report(), (), 0), EVIDENCE, owner="me")
        store.release_lease(mine.lease, owner="me")
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        store.commit_score(soup("a"), TEST, Score((1.0,)))
        with connected(url, writes=True) as connection:
            connection.execute(text("UPDATE stockpot_evaluations SET created_at = created_at - 5000"))
            connection.execute(text("UPDATE stockpot_jobs SET created_at = 0, answered_at = NULL"))
            now = "(SELECT max(created_at) + 4000 FROM stockpot_evaluations)"
            connection.execute(text(f"UPDATE stockpot_jobs SET {column} = {now}"))  # noqa: S608 - our own
        store.prune(2000, really=True)
        assert store.score(soup("a").digest, VALIDATION.digest) is not None
        assert store.score(soup("a").digest, TEST.digest) is None


def test_many_evaluations_go_in_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stockpot.store.sql_pruning.PART", 3)
    with closing(SqlStore(url)) as store:
        for number in range(7):
            store.commit_score(soup(str(number)), (VALIDATION, TEST)[number % 2], Score((1.0,)))
        store.begin_registration("digits", soup("3"))
        found = {one.kind: one.number for one in store.prune(-1000, really=True)}
        assert found["evaluations"] == 6
        left = [store.score(soup(str(n)).digest, p.digest) for n in range(7) for p in (VALIDATION, TEST)]
        assert len([score for score in left if score is not None]) == 1


def test_a_lease_from_before_the_clock_was_set_back_is_nobodys(url: str) -> None:
    mine = job("one")
    with closing(SqlStore(url)) as store:
        store.begin_job(mine)
        store.take_lease(mine.lease, owner="dead", seconds=60)
        later = "UPDATE stockpot_leases SET since = since + 3600, until = until + 3600"
        with connected(url, writes=True) as connection:
            connection.execute(text(later))
        assert store.holder(mine.lease) is None
        assert [record.lease for record in store.job_records()] == [None]
        taken = store.take_lease(mine.lease, owner="me", seconds=60)
        assert taken.owner == "me"
        assert store.take_lease(mine.lease, owner="you", seconds=60) == taken
        assert not store.renew_lease(mine.lease, owner="dead", seconds=60)


def test_a_look_that_ends_while_an_entry_is_appended_is_not_forgotten(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, draft = TrailOf("birds", 1), TrailDraft(TrailKind.DECISION, {"verdict": "failed"})
    with closing(SqlStore(url)) as store, ThreadPoolExecutor(1) as pool:
        (first,) = store.append_trail(of, [draft], after=None) or ()
        later = store.clock() + 1000

        def looked_meanwhile(*told: Any) -> tuple[TrailEntry, ...]:
            looks.append(pool.submit(store.keep_look, later, [of]))
            wait(looks, timeout=0.5)  # it may have to wait for us
            return next_entries(*told)

        looks: list[Future[None]] = []
        monkeypatch.setattr(sql_trails, "next_entries", looked_meanwhile)
        assert store.append_trail(of, [draft], after=first.digest) is not None
        looks[0].result()
        assert [watch.looked for watch in store.watches()] == [later]


def test_every_transaction_of_the_port_is_tried_again_where_a_fault_passes() -> None:
    methods = {name for name in dir(Store) if not name.startswith("_")}
    assert {"recalls", "append_trail", "score"} <= methods
    assert [name for name in sorted(methods) if not hasattr(getattr(SqlStore, name), "__wrapped__")] == []
