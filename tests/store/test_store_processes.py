"""Real processes on one SQLite file, which the first of them creates."""

import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from registry.entities import Bound, Score
from registry.store import SqlStore, current, head
from registry.testing.store_values import VALIDATION, soup

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


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[list[str]]]:
    """The file's URL, and what each process saw; they all start at a file that does not exist."""
    url = f"sqlite:///{tmp_path_factory.mktemp('race')}/stockpot.db"
    with ExitStack() as stack:
        racers = [stack.enter_context(started(url, name, EVALUATIONS)) for name in range(PROCESSES)]
        assert {line(racer) for racer in racers} == {"ready"}
        for racer in racers:
            go(racer)
        seen = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    return url, seen


def test_processes_that_create_the_same_file_at_once_all_succeed(race: tuple[str, list[list[str]]]) -> None:
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


def test_of_processes_that_claim_one_registration_exactly_one_wins(race: tuple[str, list[list[str]]]) -> None:
    url, seen = race
    (owner,) = {lines[-1] for lines in seen}
    with closing(SqlStore(url)) as store:
        (row,) = store.registrations("digits")
    assert row.owner == owner


def test_a_process_killed_among_its_commits_loses_none_of_them(tmp_path: Path) -> None:
    url, acknowledged = f"sqlite:///{tmp_path}/stockpot.db", 30
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
    with closing(sqlite3.connect(tmp_path / "stockpot.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        whole = "SELECT count(*) FROM stockpot_ingredients GROUP BY recipe HAVING count(*) <> 2"
        assert database.execute(whole).fetchall() == [(1,)], "only the last recipe has one ingredient"
