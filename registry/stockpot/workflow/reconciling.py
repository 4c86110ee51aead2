"""Where the store and MLflow tell different things: told, and settled where it is for Stockpot to settle."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from stockpot.entities import (
    Digest,
    Discrepancy,
    DiscrepancyKind,
    LoggedSoup,
    ModelVersion,
    Registration,
    RegistrationState,
    Run,
    Watermark,
    tags,
)
from stockpot.entities.trail import UNKNOWN
from stockpot.errors import Busy, NotPermitted, RegistryConflict, StockpotError
from stockpot.prose import counted, minute, one_line
from stockpot.workflow import trails
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.publishing.alias import is_earned
from stockpot.workflow.publishing.claim import claimed
from stockpot.workflow.publishing.standing import renamed, require_soup, standing, without_model
from stockpot.workflow.trace import rebuilt

DAY = 24 * 3600.0
"""Seconds after which nobody works on a run or a model any more, also of those who share no store with us."""
ENDED = {"FINISHED", "FAILED", "KILLED"}
AGAIN = "run the same request again: it goes on from there"
ELSEWHERE = "; this store knows nothing of it: who has another store may be at it"

Key = tuple[str, Digest]
"""A registered model's name and a recipe: a soup."""
Remedy = Callable[[], None]


class Office(trails.Office, Protocol):
    """The adapters that it needs."""

    @property
    def supply(self) -> Supply:
        """Weights by digest."""
        ...


def reconcile(
    place: Office,
    *,
    model: str | None = None,
    adopt: bool = True,
    really: bool = False,
    by: str = UNKNOWN,
    promised: float = trails.PROMISED,
) -> tuple[Discrepancy, ...]:
    """Compare the store with MLflow: versions, registrations, runs and LoggedModels of soups.

    Args:
        place: The adapters.
        model: Look at this registered model alone.
        adopt: Look for versions that this store does not know; to adopt one, its soup is made again.
        really: Apply the remedies; by default they are told alone.
        by: Who asks, for the trail of a model whose alias moves.
        promised: Seconds within which somebody looks at the aliases, as in `trails.move_alias`.

    A remedy that fails is told with its fault, and ends nothing. Raises what listing raises.
    """
    look = _Look(place, model, by, promised, adopts=adopt)
    return tuple(_applied(found, remedy if really else None) for found, remedy in look.found())


def told_daily(place: Office) -> tuple[str, ...]:
    """What a scan tells: a sentence where something does not agree, or where that cannot be found out.
    At most once a day for each MLflow, since it looks through all soups.
    """
    try:
        now = place.store.clock()
        mark = f"reconcile {place.tracker.born()}"  # several MLflows may share a store
        looked = place.store.watermarks([mark]).get(mark)
        if looked is not None and now - DAY < looked.until <= now:
            return ()
        found = reconcile(place, adopt=False)
        place.store.keep_scan([], {mark: Watermark(now, now)})
    except StockpotError as error:
        return (f"whether the store and MLflow agree is not known: {one_line(error.what)}",)
    if not found:
        return ()
    remedies = sum(bool(one.remedy) for one in found)
    settles = f", and stockpot reconcile --yes settles {remedies} of them" if remedies else ""
    things = counted(len(found), "discrepancy", "discrepancies")
    return (f"{things} between the store and MLflow: stockpot reconcile tells of them{settles}",)


def _applied(found: Discrepancy, remedy: Remedy | None) -> Discrepancy:
    if remedy is None:
        return found
    try:
        remedy()
    except StockpotError as error:
        fault = " ".join("; ".join([error.what, *error.faults]).split())
        return replace(found, fault=fault, exit_code=error.exit_code, mend=error.mend or found.mend)
    return replace(found, done=True)


class _Look:
    """One look at everything."""

    def __init__(self, place: Office, model: str | None, by: str, promised: float, *, adopts: bool) -> None:
        self._place = place
        self._tracker = place.tracker
        self._store = place.store
        self._model = model
        self._by = by
        self._promised = promised
        self._adopts = adopts
        self._now = time.time()
        self._rows = self._store.registrations(model)
        self._versions = self._tracker.soup_versions()
        self._runs = {run.run_id: run for run in self._tracker.soup_runs()}
        self._models = self._tracker.soup_models()
        self._model_ids: set[str | None] = {logged.model_id for logged in self._models}
        self._soups: dict[Key, list[ModelVersion]] = {}
        """By number."""
        for version in self._versions:
            if self._is_asked_for(version.name):
                key = (version.name, Digest(version.tags[tags.RECIPE]))
                self._soups.setdefault(key, []).append(version)

    def found(self) -> Iterator[tuple[Discrepancy, Remedy | None]]:
        """What does not agree, each with what settles it."""
        for key, (lowest, *others) in self._soups.items():
            if lowest.tags.get(tags.MODEL) != lowest.name:
                continue  # a person promoted it, or renamed its model: these versions are theirs
            yield from self._duplicates(key, lowest, others)
            if self._adopts and self._store.registration(*key) is None:
                yield self._without_row(key, lowest)
        for known in self._rows:
            key = known.model, known.recipe
            version = next(iter(self._soups.get(key, ())), None)
            if self._agrees(known, version):
                continue  # most do, and nothing more is asked about them
            row = self._free_row(key)
            if row is not None:
                yield from self._row(row, version)
        yield from self._orphaned_runs()
        yield from self._orphaned_models()

    def _agrees(self, row: Registration, version: ModelVersion | None) -> bool:
        if version is None or row.state is not RegistrationState.REGISTERED:
            return False
        return version.version == row.version and version.model_id in self._model_ids

    def _free_row(self, key: Key) -> Registration | None:
        """The row as it is now; None where a process works on it, or there is none."""
        held = self._store.holder(Registration(*key, RegistrationState.REGISTERING).lease)
        return None if held is not None else self._store.registration(*key)

    def _is_asked_for(self, model: str | None) -> bool:
        return self._model in {None, model}

    def _duplicates(
        self, key: Key, lowest: ModelVersion, others: list[ModelVersion]
    ) -> Iterator[tuple[Discrepancy, Remedy | None]]:
        for other in others:
            aliases = self._tracker.version(other.uri).aliases
            same = other.tags.get(tags.CHECKPOINT) == lowest.tags.get(tags.CHECKPOINT)
            ours = [alias for alias in aliases if same and alias in other.given and is_earned(alias)]
            theirs = [alias for alias in aliases if alias not in ours]
            is_told = other.tags.get(tags.DUPLICATE_OF) == lowest.version
            told = f"it holds the same soup as {lowest.uri}, which is the one that counts"
            if theirs:
                told += f"; a person gave it the alias {', '.join(theirs)}, which stays"
            remedies = [] if is_told else [f"the tag {tags.DUPLICATE_OF}={lowest.version}"]
            if ours:
                given = ", ".join(ours)
                remedies.append(f"the alias {given}, which Stockpot gave, moves to {lowest.uri}")
            if remedies or theirs:
                yield (
                    Discrepancy(
                        DiscrepancyKind.DUPLICATE,
                        other.uri,
                        told,
                        " and ".join(remedies),
                        f"move that alias to {lowest.uri} in MLflow's UI" if theirs else "",
                    ),
                    self._settling(key, lowest, other, ours) if remedies else None,
                )
        if tags.DUPLICATE_OF in lowest.tags:
            yield (
                Discrepancy(
                    DiscrepancyKind.DUPLICATE,
                    lowest.uri,
                    f"it is called a duplicate of version {lowest.tags[tags.DUPLICATE_OF]}, which is gone",
                    f"the tag {tags.DUPLICATE_OF} is taken away",
                ),
                self._settling(key, lowest, lowest),
            )

    def _settling(
        self, key: Key, lowest: ModelVersion, holder: ModelVersion, aliases: Sequence[str] = ()
    ) -> Remedy:
        """`holder`: the duplicate that has these aliases."""

        def settle() -> None:
            self._tracker.reconcile(*key)
            for alias in aliases:
                self._move(alias, holder, lowest)

        return settle

    def _move(self, alias: str, holder: ModelVersion, lowest: ModelVersion) -> None:
        """Raises Busy where another version has the alias by now."""
        moved = trails.move_alias(
            self._place,
            lowest.name,
            alias,
            lowest.version,
            expected=holder.version,
            by=self._by,
            reason=f"{holder.uri} holds the same soup, and the lowest version counts",
            earned=True,
            promised=self._promised,
        )
        if moved is None:
            raise Busy(f"{alias} of {lowest.name} was moved meanwhile", mend="look again")

    def _without_row(self, key: Key, version: ModelVersion) -> tuple[Discrepancy, Remedy | None]:
        told = "this store does not know it: another store's process registered it, or this one's was lost"
        remedy = "its soup is made again and compared with the version's file, and then a row is written"
        found = Discrepancy(DiscrepancyKind.NO_ROW, version.uri, told, remedy)
        return found, lambda: self._adopt(key, version)

    def _adopt(self, key: Key, version: ModelVersion) -> None:
        """Raises RegistryConflict where it does not hold the soup that its tags tell of, and what making that
        again raises.
        """
        model, recipe = key
        self._place.watch.say(f"making the soup of {version.uri} again, to know that it is what it says")
        with rebuilt(version.uri, self._tracker, self._place.supply) as (found, snapshot, built, file):
            if snapshot.recipe.digest != recipe:
                raise RegistryConflict(
                    f"{version.uri} is tagged with recipe {recipe}, and holds {snapshot.recipe.digest}",
                    mend=f"delete that version, or its tag {tags.RECIPE}",
                )
            require_soup(found, built.digest, self._tracker, file.parent / "theirs")
        with claimed(self._store, model, snapshot.recipe, self._place.watch) as claim:
            known = self._store.registration(model, recipe)
            if known is not None and known.state is RegistrationState.REGISTERED:
                return  # by another process meanwhile
            with suppress(NotPermitted):
                self._tracker.note_version(found)
            claim.advance(
                state=RegistrationState.REGISTERED,
                checkpoint=built.digest,
                run_id=found.run_id,
                model_id=found.model_id,
                version=found.version,
            )

    def _row(
        self, row: Registration, version: ModelVersion | None
    ) -> Iterator[tuple[Discrepancy, Remedy | None]]:
        uri = f"models:/{row.model}/{row.version or '?'}"
        if row.state is not RegistrationState.REGISTERED:
            there = f"; {version.uri} is there already" if version is not None else ""
            told = f"recipe {row.recipe}: it was begun, and stopped at {minute(row.updated_at)}{there}"
            yield (
                Discrepancy(
                    DiscrepancyKind.UNFINISHED,
                    version.uri if version else f"models:/{row.model}",
                    told,
                    mend=f"{AGAIN}{self._request_of(row)}",
                ),
                None,
            )
        elif version is None:
            if why := self._why_gone(row):
                yield Discrepancy(DiscrepancyKind.NO_VERSION, uri, why), None
        elif version.version != row.version:
            told = f"the store tells of {uri} for this soup; its lowest version is {version.uri}"
            yield Discrepancy(DiscrepancyKind.NO_VERSION, uri, told, mend=AGAIN + self._request_of(row)), None
        elif why := self._why_without_model(version):
            yield Discrepancy(DiscrepancyKind.NO_VERSION, uri, why), None

    def _why_without_model(self, version: ModelVersion) -> str:
        return "" if version.model_id in self._model_ids else without_model(version, self._tracker)

    def _why_gone(self, row: Registration) -> str:
        """Empty where another MLflow than this one has the version, or its model has another name now."""
        if renamed(row, self._tracker):
            return ""
        _, why = standing(row.model, row.recipe, row, (), self._tracker)
        return f"recipe {row.recipe}: {why}" if why else ""

    def _request_of(self, row: Registration) -> str:
        """Which one ended in this soup last, as far as the store knows."""
        filed = [one.report for one in self._store.reports(row.recipe)]
        asked = [report.request for report in filed if report.request.model == row.model]
        return f" (of sweep {asked[-1].sweep or asked[-1].experiment})" if asked else ""

    def _orphaned_runs(self) -> Iterator[tuple[Discrepancy, Remedy | None]]:
        made = {version.run_id for version in self._versions}
        for run in self._runs.values():
            if run.status in ENDED or run.run_id in made or tags.VERSION in run.tags:
                continue
            if self._is_at_work(run.tags):
                continue
            since = minute(run.started / 1000)
            told = f"{run.name} is {run.status} since {since}, and nobody here registers it"
            kind, old = DiscrepancyKind.RUN, self._now - run.started / 1000 > DAY
            ours = self._is_of_this_store(run.tags)
            old, told = old and ours, told + ("" if ours else ELSEWHERE)
            mend = "after a day --yes ends it as failed" if ours else "end it in MLflow where nobody is at it"
            mend, remedy = ("", "it is ended as FAILED") if old else (mend, "")
            yield Discrepancy(kind, run.run_id, told, remedy, mend), self._failing(run) if old else None

    def _failing(self, run: Run) -> Remedy:
        return lambda: self._tracker.fail(run.run_id)

    def _orphaned_models(self) -> Iterator[tuple[Discrepancy, Remedy | None]]:
        made = {version.model_id for version in self._versions}
        for model in self._models:
            if model.model_id in made or self._is_at_work(model.tags) or self._is_held(model):
                continue
            told = f"this LoggedModel of {minute(model.created / 1000)} has no version"
            old = self._now - model.created / 1000 > DAY
            remedy, mend = "", ""
            if not self._is_of_this_store(model.tags):
                told += ELSEWHERE
                mend = "delete it in MLflow's UI where nobody needs it"
                yield Discrepancy(DiscrepancyKind.MODEL, model.model_id, told, remedy, mend), None
                continue
            if self._had_version(model):
                told += " any more: a person deleted that, or the run"
                mend = "delete it in MLflow's UI where nobody needs it"
            elif old:
                remedy = "it is deleted; the same request again makes it anew"
            else:
                mend = "after a day --yes deletes it"
            yield (
                Discrepancy(DiscrepancyKind.MODEL, model.model_id, told, remedy, mend),
                self._deleting(model) if remedy else None,
            )

    def _deleting(self, model: LoggedSoup) -> Remedy:
        def delete() -> None:
            if self._is_held(model):
                raise RegistryConflict(f"{model.model_id} has a version by now", mend="look again")
            self._tracker.delete_model(model.model_id)

        return delete

    def _is_held(self, model: LoggedSoup) -> bool:
        """Whether any version serves it: one that lost our tags, or that a person registered, tells of none.
        A copy of such a version does not tell which of the run's models it serves.
        """
        held = {version.model_id for version in self._tracker.versions_of(model.run_id)}
        return not held.isdisjoint({model.model_id, None})

    def _had_version(self, model: LoggedSoup) -> bool:
        """Whether a person may have taken its version or its run away."""
        run, row = self._runs.get(model.run_id), self._free_row(_key_of(model.tags))
        if run is None or tags.VERSION in run.tags:
            return True
        return (
            row is not None and row.state is RegistrationState.REGISTERED and row.model_id == model.model_id
        )

    def _is_of_this_store(self, told: Mapping[str, str]) -> bool:
        """Whether a process that shares this store began to register it: a row comes before the run. Others
        may take up what they began long ago, and what only looks like a soup's may be a person's.
        """
        return self._store.registration(*_key_of(told)) is not None

    def _is_at_work(self, told: Mapping[str, str]) -> bool:
        """Whether a process that shares this store registers the soup; or nobody asked for its model."""
        held = self._store.holder(Registration(*_key_of(told), RegistrationState.REGISTERING).lease)
        return held is not None or not self._is_asked_for(told.get(tags.MODEL))


def _key_of(told: Mapping[str, str]) -> Key:
    return told.get(tags.MODEL, ""), Digest(told.get(tags.RECIPE, ""))
