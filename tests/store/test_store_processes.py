"""Real processes on one database. A SQLite file is created by the first of them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.store.conftest import KINDS, empty_database

from stockpot.entities import Bound, Score
from stockpot.store import SqlStore, current, head, upgrade
from stockpot.store.schema import connected
from stockpot.testing.store_values import VALIDATION, soup

PROCESSES, EVALUATIONS = 4, 25


def started(url: str, name: int, count: int) -> subprocess.Popen[str]:
    program = [
        sys.executable,
        str(Path(__file__).with_name("committing_process.py")),
        url,
        str(name),
        str(count),
    ]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture(scope="module", params=KINDS)
def race(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[list[str]]]]:
    """The database's URL, and what each process saw; on SQLite they start at a file that does not exist."""
    with empty_database(request, tmp_path_factory.mktemp("race")) as url:
        if request.param == "postgresql":
            upgrade(url)
        yield url, raced(url)


def raced(url: str) -> list[list[str]]:
    with ExitStack() as stack:
        racers = [stack.enter_context(started(url, name, EVALUATIONS)) for name in range(PROCESSES)]
        assert {line(racer) for racer in racers} == {"ready"}
        for racer in racers:
            go(racer)
        seen = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    return seen


def test_processes_that_open_or_create_the_same_database_at_once_all_succeed(
    race: tuple[str, list[list[str]]],
) -> None:
    url, seen = race
    assert [len(lines) for lines in seen] == [EVALUATIONS + 1] * PROCESSES
    assert current(url) == head()


def test_processes_that_commit_the_same_evaluations_agree_on_each(race: tuple[str, list[list[str]]]) -> None:
    url, seen = race
    for number, winners in enumerate(zip(*(lines[:-1] for lines in seen), strict=True)):
        (winner,) = set(winners)
        with closing(SqlStore(url)) as store:
            committed = store.score(soup(str(number), "shared").digest, VALIDATION.digest)
        assert committed == Score((float(winner),))


def test_processes_that_commit_bounds_leave_the_least_whoever_had_it(
    race: tuple[str, list[list[str]]],
) -> None:
    url, _ = race
    with closing(SqlStore(url)) as store:
        recipes = [soup(str(number), "shared").digest for number in range(EVALUATIONS)]
        assert [store.bound(recipe, VALIDATION.digest) for recipe in recipes] == [Bound(0.0)] * EVALUATIONS


def test_of_processes_that_ask_for_one_lease_exactly_one_gets_it(
    race: tuple[str, list[list[str]]],
) -> None:
    url, seen = race
    (owner,) = {lines[-1] for lines in seen}
    with closing(SqlStore(url)) as store:
        (row,) = store.registrations("digits")
        assert store.take_lease(row.lease, owner="late", seconds=1).owner == owner


def test_a_process_killed_among_its_commits_loses_none_of_them(url: str) -> None:
    acknowledged = 30
    with started(url, 7, 1_000_000) as victim:
        line(victim)
        go(victim)
        assert {line(victim) for _ in range(acknowledged)} == {"7"}
        victim.kill()
    with closing(SqlStore(url)) as store:
        for number in range(acknowledged):
            recipe = soup(str(number), "shared").digest
            assert store.score(recipe, VALIDATION.digest) == Score((7.0,))
            assert store.bound(recipe, VALIDATION.digest) == Bound(float((7 + number) % 4))
        store.commit_score(soup("after"), VALIDATION, Score((1.0,)))
    if url.startswith("sqlite"):
        assert rows(url, "PRAGMA integrity_check") == [("ok",)]
    whole = "SELECT count(*) FROM stockpot_ingredients GROUP BY recipe HAVING count(*) <> 2"
    assert rows(url, whole) == [(1,)], "only the last recipe has one ingredient"


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with connected(url) as connection:
        return [tuple(row) for row in connection.execute(text(query))]
