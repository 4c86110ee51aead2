"""The descent of soups, in memory."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from threading import Lock

from stockpot.entities import (
    Blend,
    Candidate,
    CheckpointPlace,
    Composition,
    Digest,
    Found,
    KnownVersion,
    Recall,
    Recipe,
)
from stockpot.ports import Descent
from stockpot.store.descent import in_order, is_told, places_in_order
from stockpot.store.places import place_of


class MemoryLineage(Descent):
    """Who holds what."""

    _lock: Lock
    _recipes: dict[Digest, Composition]
    _places: dict[Digest, set[CheckpointPlace]]

    def __init__(self) -> None:
        super().__init__()  # of the other parts of a store
        self._versions: dict[tuple[Digest, str, str], KnownVersion] = {}
        self._sweeps_of: dict[tuple[Digest, CheckpointPlace], set[str]] = {}
        """In which a checkpoint was found there."""
        self._recalls: list[Recall] = []

    def remember_version(
        self,
        version: KnownVersion,
        recipe: Recipe,
        ingredients: Sequence[Candidate] = (),
        *,
        sweep: str | None = None,
    ) -> None:
        with self._lock:
            self._recipes[recipe.digest] = recipe
            self._keep_version(version)
            for candidate in filter(is_told, ingredients):
                place, checkpoint = place_of(candidate), candidate.checkpoint.digest
                known = {(one.run_id, one.path) for one in self._places.get(checkpoint, ())}
                if (place.run_id, place.path) not in known:
                    self._keep_place(checkpoint, place, sweep)

    def _keep_version(self, version: KnownVersion) -> None:
        self._versions[version.recipe, version.model, version.version] = version

    def _keep_place(self, checkpoint: Digest, place: CheckpointPlace, sweep: str | None) -> None:
        self._places.setdefault(checkpoint, set()).add(place)
        if sweep is not None:
            self._sweeps_of.setdefault((checkpoint, place), set()).add(sweep)

    def known_versions(
        self, checkpoints: Collection[Digest] | None = None, *, uri: str | None = None
    ) -> tuple[KnownVersion, ...]:
        with self._lock:
            return in_order(
                one
                for one in self._versions.values()
                if (checkpoints is None or one.checkpoint in checkpoints) and uri in {None, one.uri}
            )

    def blends(self, checkpoints: Collection[Digest], *, down: bool) -> tuple[Blend, ...]:
        with self._lock:
            known = [
                Blend(version.checkpoint, version.recipe, position, one.checkpoint, one.factor)
                for version in self._versions.values()
                if isinstance(recipe := self._recipes[version.recipe], Recipe)
                for position, one in enumerate(recipe.ingredients)
                if one.checkpoint != version.checkpoint
            ]
        met = set(checkpoints)
        while True:
            found = {one for one in known if (one.ingredient if down else one.soup) in met}
            more = {one.soup if down else one.ingredient for one in found} - met
            if not more:
                return tuple(sorted(found, key=lambda one: (one.soup, one.recipe, one.position)))
            met |= more

    def found(self, checkpoints: Collection[Digest]) -> tuple[Found, ...]:
        with self._lock:
            return places_in_order(
                [
                    Found(checkpoint, place.run_id, place.path, sweep)
                    for checkpoint in checkpoints
                    for place in self._places.get(checkpoint, ())
                    for sweep in self._sweeps_of.get((checkpoint, place), {None})
                ]
            )

    def logged_by(self, run_ids: Collection[str]) -> tuple[Digest, ...]:
        with self._lock:
            found = {
                checkpoint
                for checkpoint, places in self._places.items()
                if any(place.run_id in run_ids for place in places)
            }
            found |= {one.checkpoint for one in self._versions.values() if one.run_id in run_ids}
        return tuple(sorted(found))

    def append_recall(self, recall: Recall) -> Recall:
        about = (recall.kind, recall.name)
        with self._lock:
            before = next((one for one in self._recalls[::-1] if (one.kind, one.name) == about), None)
            if before is not None and before.withdrawn == recall.withdrawn:
                return before
            self._recalls.append(replace(recall, at=time.time()))
            return self._recalls[-1]

    def recalls(self) -> tuple[Recall, ...]:
        with self._lock:
            return tuple(self._recalls)
