"""Trails of registered models, in memory."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from stockpot.entities import Digest, FailedAsk, TrailDraft, TrailEntry, TrailKind, TrailOf, Watch
from stockpot.store.trails import is_appended, next_entries


class MemoryTrails:
    """What happened to registered models, and when somebody looked at them."""

    def __init__(self) -> None:
        self._one_writes = Lock()
        self._trails: dict[TrailOf, tuple[TrailEntry, ...]] = {}
        self._watches: dict[TrailOf, Watch] = {}
        self._asks: dict[Digest, FailedAsk] = {}

    def append_trail(
        self, of: TrailOf, drafts: Sequence[TrailDraft], *, after: Digest | None
    ) -> tuple[TrailEntry, ...] | None:
        with self._one_writes:
            known, found = self._watches.get(of), self._trails.get(of, ())
            if (known.digest if known else None) != after:
                return is_appended(found, drafts, after)
            entries = next_entries(of, drafts, known, time.time())
            for entry in entries:
                known = Watch.after(known, entry)
            if known is not None:
                self._trails[of], self._watches[of] = (*found, *entries), known
            return entries

    def trail(self, of: TrailOf) -> tuple[TrailEntry, ...]:
        with self._one_writes:
            return self._trails.get(of, ())

    def _facts(self, kind: TrailKind) -> list[Mapping[str, Any]]:
        """Of all entries of this kind."""
        with self._one_writes:
            return [entry.fact for found in self._trails.values() for entry in found if entry.kind is kind]

    def watches(self, models: Collection[str] | None = None) -> tuple[Watch, ...]:
        with self._one_writes:
            found = [watch for of, watch in self._watches.items() if models is None or of.model in models]
        return tuple(sorted(found, key=lambda one: (one.model, one.born)))

    def keep_look(self, at: float, trails: Collection[TrailOf]) -> None:
        with self._one_writes:
            for of in trails:
                watch = self._watches.get(of)
                if watch is not None and (watch.looked is None or watch.looked < at):
                    self._watches[of] = replace(watch, looked=at)

    def keep_ask(self, ask: FailedAsk) -> None:
        with self._one_writes:
            self._asks[ask.name] = ask

    def failed_asks(self) -> tuple[FailedAsk, ...]:
        with self._one_writes:
            return tuple(sorted(self._asks.values(), key=lambda ask: (ask.failed_at, ask.name)))

    def drop_asks(self, names: Collection[Digest]) -> None:
        with self._one_writes:
            for name in names:
                self._asks.pop(name, None)
