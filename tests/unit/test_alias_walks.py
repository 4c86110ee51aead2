"""A thousand random moves, restarts and lost webhooks, beside a plain record of what could be seen."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.contracts.test_memory_tracker import MemoryBackend
from tests.contracts.test_mlflow_tracker import MlflowBackend

from stockpot.entities import Recipe, Seen, TrailKind, TrailOf, WatchEvent, digest_of_bytes
from stockpot.ports import Store, Tracker, Watcher
from stockpot.store import MemoryStore, SqlStore
from stockpot.testing.tracker_backend import Backend
from stockpot.watching import Silent
from stockpot.workflow.promotion.auditing import Standing, audit
from stockpot.workflow.promotion.watching import look
from stockpot.workflow.trails import SLACK, move_alias

ALIASES = ["champion", "candidate", "challenger"]
PROMISED = 300.0
Move = tuple[str, str | None, str | None, str]


@dataclass
class Clock:
    """Of all who share the store: it runs ahead as the walk says."""

    ahead: float = 0.0


class LaterMemoryStore(MemoryStore):
    clock_of: Clock

    def clock(self) -> float:
        return super().clock() + self.clock_of.ahead


class LaterSqlStore(SqlStore):
    clock_of: Clock

    def clock(self) -> float:
        return super().clock() + self.clock_of.ahead


@dataclass
class Place:
    """The adapters of one process."""

    tracker: Tracker
    store: Store
    watch: Watcher = field(default_factory=Silent)


@dataclass
class Expected:
    """What can be known of one model: written down by the walk itself, from MLflow alone."""

    aliases: dict[str, str]
    looked: float
    moves: list[Move] = field(default_factory=list)
    unwatched: list[float] = field(default_factory=list)
    """Lengths, in seconds."""
    gone: bool = False


class Walk:
    """Random acts of people, of Stockpot and of time."""

    def __init__(self, backend: Backend, open_store: Callable[[], Store], clock: Clock, seed: int) -> None:
        self.backend = backend
        self.open_store = open_store
        self.clock = clock
        self.random = random.Random(seed)  # noqa: S311 - chance, no secret
        self.names = iter(f"model {number}" for number in range(10**6))
        self.models: list[str] = []
        self.versions: dict[str, list[str]] = {}
        self.expected: dict[TrailOf, Expected] = {}
        self.done: defaultdict[str, int] = defaultdict(int)
        self.place = Place(backend.tracker, open_store())
        for _ in range(3):
            self.new_model()

    def new_model(self, name: str = "") -> None:
        """One that Stockpot has registered to, with two versions."""
        name = name or next(self.names)
        self.models.append(name)
        self.versions[name] = [self.backend.add_version(name) for _ in range(2)]
        recipe = Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")])
        self.place.store.begin_registration(name, recipe)

    def act(self) -> None:
        """One step."""
        acts: dict[Callable[[], None], int] = {
            self.move: 40,
            self.unset: 8,
            self.look: 25,
            self.promote: 8,
            self.add_version: 4,
            self.delete_version: 4,
            self.rename: 2,
            self.delete: 1,
            self.restart: 3,
            self.wait: 5,
        }
        (chosen,) = self.random.choices(list(acts), list(acts.values()))
        self.clock.ahead += self.random.uniform(0.5, 40)
        self.done[chosen.__name__] += 1
        chosen()

    def move(self) -> None:
        """A person's click; its webhook is lost."""
        model = self.random.choice(self.models)
        if self.versions[model]:
            version = self.random.choice(self.versions[model])
            self.backend.move_alias(model, self.random.choice(ALIASES), version)

    def unset(self) -> None:
        model = self.random.choice(self.models)
        found = self.backend.tracker.registered_model(model)
        if found is not None and found.aliases:
            self.backend.move_alias(model, self.random.choice(sorted(found.aliases)), None)

    def add_version(self) -> None:
        model = self.random.choice(self.models)
        self.versions[model].append(self.backend.add_version(model))

    def delete_version(self) -> None:
        model = self.random.choice(self.models)
        if len(self.versions[model]) > 1:
            version = self.random.choice(self.versions[model][:-1])  # never the newest: its number is its own
            self.versions[model].remove(version)
            self.backend.remove_version(model, version)

    def rename(self) -> None:
        """Of a model that was never seen under its name nobody can tell whose it is."""
        model, name = self.random.choice(self.models), next(self.names)
        found = self.backend.tracker.registered_model(model)
        if found is None or found.trail not in self.expected:
            return
        self.backend.rename_model(model, name)
        self.models[self.models.index(model)] = name
        self.versions[name] = self.versions.pop(model)

    def delete(self) -> None:
        """And perhaps make it anew."""
        model = self.random.choice(self.models)
        self.backend.remove_model(model)
        self.models.remove(model)
        self.new_model(self.random.choice(["", model]))

    def restart(self) -> None:
        """Whatever a process knew is gone."""
        self.place.store.close()
        self.place = Place(self.backend.tracker, self.open_store())

    def wait(self) -> None:
        """Nobody is there for a while."""
        self.clock.ahead += self.random.choice([100.0, 400.0, 5000.0])

    def look(self) -> None:
        seen = self.random.choice([Seen.POLL, Seen.WEBHOOK])
        at = self.place.store.clock()
        here = {model.trail: dict(model.aliases) for model in self.backend.tracker.registered_models()}
        look(self.place, promised=PROMISED, seen=seen)
        for of, known in self.expected.items():
            if of not in here and not known.gone:
                known.gone = True
                self.expect_interval(known, at)
        for of, aliases in here.items():
            if of not in self.expected:
                self.expected[of] = Expected(aliases, at)
            known = self.expected[of]
            self.expect_interval(known, at)
            self.expect_moves(known, aliases, seen)
        self.require_right()

    def expect_interval(self, known: Expected, at: float) -> None:
        if at - known.looked > PROMISED + SLACK:
            known.unwatched.append(at - known.looked)
        known.looked = at

    def expect_moves(self, known: Expected, aliases: dict[str, str], seen: Seen) -> None:
        moved = [alias for alias in ALIASES if known.aliases.get(alias) != aliases.get(alias)]
        known.moves += [
            (alias, known.aliases.get(alias), aliases.get(alias), seen) for alias in sorted(moved)
        ]
        known.aliases = aliases

    def require_right(self) -> None:
        """What the store says of every model that is here is what MLflow says now."""
        watches = {watch.trail: watch for watch in self.place.store.watches()}
        models = self.backend.tracker.registered_models()
        for model in models:
            assert watches[model.trail].aliases == model.aliases
            assert not watches[model.trail].gone
            assert model.anchor == watches[model.trail].digest
        gone = {of for of, watch in watches.items() if watch.gone}
        assert gone == {*watches} - {model.trail for model in models}

    def promote(self) -> None:
        """Stockpot moves an alias."""
        model, alias = self.random.choice(self.models), self.random.choice(ALIASES)
        found = self.backend.tracker.registered_model(model)
        if found is None or not self.versions[model]:
            return
        version, before = self.random.choice(self.versions[model]), found.aliases.get(alias)
        at = self.place.store.clock()
        assert (
            move_alias(
                self.place,
                model,
                alias,
                version,
                expected=before,
                by="anna",
                reason="",
                promised=PROMISED,
            )
            is not None
        )
        if found.trail not in self.expected:
            self.expected[found.trail] = Expected(dict(found.aliases), at)
        known = self.expected[found.trail]
        if at - known.looked > PROMISED + SLACK:  # it is a look at this one model
            self.expect_interval(known, at)
        self.expect_moves(known, dict(found.aliases), Seen.POLL)
        known.moves.append((alias, before, version, Seen.PROMOTE))
        known.aliases = {**known.aliases, alias: version}

    def require_whole(self) -> None:
        """Every move that could be seen, and every interval in which nobody looked, is in the trails."""
        self.look()
        for of, known in self.expected.items():
            entries = self.place.store.trail(of)
            facts = [entry.fact for entry in entries if entry.kind is TrailKind.MOVE]
            found = [(fact["alias"], fact["before"], fact["after"], fact["seen"]) for fact in facts]
            assert found == known.moves, of
            unwatched = [
                entry.fact["until"] - entry.fact["since"]
                for entry in entries
                if entry.fact.get("event") == WatchEvent.UNWATCHED
            ]
            assert unwatched == pytest.approx(known.unwatched, abs=30), of
        for model in self.models:
            *_, current = audit(self.place, model, verify=True)
            assert current.verification is not None
            assert current.verification.standing is Standing.ANCHORED
        names = {of.model for of, known in self.expected.items() if known.gone}
        for name in names:
            for audited in audit(self.place, name, verify=True):
                assert audited.verification is not None
                assert audited.verification.faults == ()


def walked(backend: Backend, open_store: Callable[[], Store], clock: Clock, seed: int, steps: int) -> Walk:
    backend.add_experiment("Default of ours")
    walk = Walk(backend, open_store, clock, seed)
    for _ in range(steps):
        walk.act()
    walk.require_whole()
    return walk


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_moves_in_memory_are_right_after_each_look_and_all_in_the_trails(seed: int) -> None:
    clock, store = Clock(), LaterMemoryStore()
    store.clock_of = clock
    walk = walked(MemoryBackend(), lambda: store, clock, seed, 1000)
    assert min(walk.done.values()) >= 2
    assert len(walk.done) == 10
    assert sum(len(known.moves) for known in walk.expected.values()) > 200
    assert sum(len(known.unwatched) for known in walk.expected.values()) > 20


@pytest.fixture
def sql_stores(tmp_path: Path) -> Iterator[tuple[Callable[[], Store], Clock]]:
    """Opens a store of a process that begins anew, on the same database."""
    clock, opened = Clock(), list[SqlStore]()

    def open_store() -> Store:
        store = LaterSqlStore(f"sqlite:///{tmp_path}/stockpot.db")
        store.clock_of = clock
        opened.append(store)
        return store

    yield open_store, clock
    for store in opened:
        store.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_so_are_they_on_a_real_mlflow_and_a_real_database(
    mlflow_uri: str, tmp_path: Path, sql_stores: tuple[Callable[[], Store], Clock]
) -> None:
    backend = MlflowBackend(mlflow_uri, f"{tmp_path}/artifacts")
    walk = walked(backend, *sql_stores, 7, 1000)
    assert sum(len(known.moves) for known in walk.expected.values()) > 200
