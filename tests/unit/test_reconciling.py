"""What does not agree between store and MLflow is told, and settled where nobody's word is overruled."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from stockpot.entities import (
    Discrepancy,
    DiscrepancyKind,
    ModelVersion,
    Publication,
    Recipe,
    RegistrationState,
    digest_of_bytes,
)
from stockpot.entities.tags import ROLE
from stockpot.errors import Unreachable
from stockpot.ports import Watcher
from stockpot.store import MemoryStore
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow import reconciling
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.promotion.watching import look
from stockpot.workflow.reconciling import reconcile, told_daily

RECIPE = Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")])


@dataclass
class Office:
    """Adapters that forget."""

    tracker: MemoryTracker = field(default_factory=MemoryTracker)
    store: MemoryStore = field(default_factory=MemoryStore)
    watch: Watcher = field(default_factory=Silent)

    @property
    def supply(self) -> Supply:
        raise Unreachable("the weights are out of reach", mend="wait")

    def look(self, *, really: bool = False, **options: object) -> tuple[Discrepancy, ...]:
        found = reconcile(self, really=really, **options)  # type: ignore[arg-type]  # as given
        assert really or not any(one.done or one.fault for one in found)
        return found


@pytest.fixture
def office() -> Office:
    return Office()


def publication(office: Office, model: str = "birds", recipe: Recipe = RECIPE) -> Publication:
    return Publication(
        model=model,
        recipe=recipe,
        checkpoint=digest_of_bytes(b"soup"),
        ingredients=(),
        experiment_id=office.tracker.add_experiment("sweep"),
        parent_run_id=None,
        name="soup",
        description="",
        tags={},
        params={},
        measurements=(),
        files={},
    )


def unversioned(office: Office, model: str = "birds") -> tuple[str, str]:
    """A run and a LoggedModel of whoever stopped before there was a version."""
    made = publication(office, model)
    run_id = office.tracker.create_run(made)
    return run_id, office.tracker.create_model(run_id, made)


def version(office: Office, model: str = "birds", *, noted: bool = True) -> ModelVersion:
    made = publication(office, model)
    run_id, model_id = unversioned(office, model)
    office.tracker.record(run_id, model_id, [], made)
    found = office.tracker.create_version(run_id, model_id, made)
    if noted:
        office.tracker.note_version(found)
    return found


def row(office: Office, of: ModelVersion | None, model: str = "birds") -> None:
    """The store's, registered as this version, or begun."""
    begun = office.store.begin_registration(model, RECIPE)
    if of is None:
        return
    office.store.take_lease(begun.lease, owner="me", seconds=1000)
    done = replace(
        begun, state=RegistrationState.REGISTERED, version=of.version, run_id=of.run_id, model_id=of.model_id
    )
    office.store.advance_registration(done, owner="me")
    office.store.release_lease(begun.lease, owner="me")


def kinds(found: Sequence[Discrepancy]) -> list[tuple[DiscrepancyKind, str]]:
    return [(one.kind, one.what) for one in found]


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is there has been for more than a day."""
    monkeypatch.setattr(reconciling, "DAY", -1.0)


def test_where_all_agrees_nothing_is_found_and_nothing_written(office: Office, old: None) -> None:
    row(office, version(office))
    before = repr((office.tracker.versions_kept, office.tracker.runs_kept))
    assert office.look(really=True) == ()
    assert repr((office.tracker.versions_kept, office.tracker.runs_kept)) == before


def test_a_version_that_a_person_deleted_is_told_and_stays_deleted(office: Office, old: None) -> None:
    gone = version(office)
    row(office, gone)
    office.tracker.versions_kept["birds"].clear()
    found = office.look(really=True)
    assert kinds(found) == [
        (DiscrepancyKind.NO_VERSION, "models:/birds/1"),
        (DiscrepancyKind.MODEL, gone.model_id),
    ]
    assert "--again" in found[0].told
    assert [one.remedy for one in found] == ["", ""], "a person's word is last"
    assert gone.model_id in office.tracker.models_kept


def test_a_model_that_was_renamed_is_no_discrepancy(office: Office, old: None) -> None:
    row(office, version(office))
    office.tracker.rename_model("birds", "finches")
    assert office.look(really=True) == ()


def test_a_row_of_another_mlflow_is_no_discrepancy(office: Office) -> None:
    row(office, version(office))
    assert Office(MemoryTracker(), office.store).look() == ()


def test_a_registration_that_stopped_is_told_with_its_mend_and_one_under_way_is_not(office: Office) -> None:
    row(office, None)
    (found,) = office.look(really=True)
    assert kinds([found]) == [(DiscrepancyKind.UNFINISHED, "models:/birds")]
    assert "run the same request again" in found.mend
    lease = office.store.begin_registration("birds", RECIPE).lease
    office.store.take_lease(lease, owner="me", seconds=1000)
    assert office.look() == ()


def test_of_late_duplicates_the_lowest_counts_and_gets_the_alias_that_we_gave(office: Office) -> None:
    first, second = version(office), version(office)
    row(office, first)
    office.tracker.set_alias("birds", "challenger", second.version)
    (found,) = office.look()
    assert kinds([found]) == [(DiscrepancyKind.DUPLICATE, second.uri)]
    assert "the alias challenger, which Stockpot gave, moves to models:/birds/1" in found.remedy
    assert "stockpot.duplicate_of" not in office.tracker.version(second.uri).tags
    (settled,) = office.look(really=True, by="ann")
    assert settled == replace(found, done=True)
    birds = office.tracker.registered_model("birds")
    assert birds is not None
    trail = office.store.trail(birds.trail)
    assert [(entry.kind, entry.by) for entry in trail] == [("watch", "unknown"), ("move", "ann")]
    assert trail[-1].reason == "models:/birds/2 holds the same soup, and the lowest version counts"
    assert (trail[-1].fact["before"], trail[-1].fact["after"]) == ("2", "1")
    assert office.tracker.version(second.uri).tags["stockpot.duplicate_of"] == "1"
    assert office.tracker.version("models:/birds@challenger").version == "1"
    assert office.look() == ()


@pytest.mark.parametrize(("promised", "events"), [(3600.0, ["begun"]), (300.0, ["begun", "unwatched"])])
def test_nobody_is_said_to_have_looked_too_late_who_had_promised_no_more(
    office: Office, monkeypatch: pytest.MonkeyPatch, promised: float, events: list[str]
) -> None:
    row(office, version(office))
    office.tracker.set_alias("birds", "challenger", version(office).version)
    look(office)
    now = office.store.clock()
    monkeypatch.setattr(office.store, "clock", lambda: now + 3000.0)
    office.look(really=True, promised=promised)
    birds = office.tracker.registered_model("birds")
    assert birds is not None
    trail = office.store.trail(birds.trail)
    assert [entry.fact["event"] for entry in trail if entry.kind == "watch"] == events


def test_each_alias_that_we_gave_to_a_duplicate_moves_and_a_persons_stays(office: Office) -> None:
    first, second = version(office), version(office)
    row(office, first)
    for alias in ("challenger-owls", "challenger-mice"):
        office.tracker.set_alias("birds", alias, second.version)
    office.tracker.aliases["birds", "challenger-newts"] = second.version  # without our tag
    office.tracker.set_alias("birds", "champion", second.version)  # a person wrote that into the tag
    (found,) = office.look(really=True)
    assert "the alias challenger-mice, challenger-owls, which Stockpot gave, moves" in found.remedy
    assert "a person gave it the alias challenger-newts, champion, which stays" in found.told
    assert office.tracker.version(first.uri).aliases == ("challenger-mice", "challenger-owls")
    assert office.tracker.version(second.uri).aliases == ("challenger-newts", "champion")


@pytest.mark.parametrize("alias", ["production", "challenger"])
def test_an_alias_that_a_person_gave_to_a_duplicate_stays_and_is_told(office: Office, alias: str) -> None:
    first, second = version(office), version(office)
    row(office, first)
    office.tracker.aliases["birds", alias] = second.version  # without our tag
    for _ in range(2):
        (found,) = office.look(really=True)
        assert f"a person gave it the alias {alias}, which stays" in found.told
        assert office.tracker.version(f"models:/birds@{alias}").version == second.version
    assert found.remedy == "", "the tag is there"
    assert "move that alias" in found.mend


def test_our_alias_moves_to_no_version_of_other_weights(office: Office) -> None:
    row(office, version(office))
    second = version(office)
    office.tracker.set_alias("birds", "challenger", "2")
    lowest, copied = office.tracker.versions_kept["birds"]
    other = {**lowest.tags, "stockpot.checkpoint": digest_of_bytes(b"other")}
    office.tracker.versions_kept["birds"] = [replace(lowest, tags=other), copied]
    office.look(really=True)
    assert office.tracker.version("models:/birds@challenger").version == second.version


def test_copies_that_a_person_promoted_are_left_alone(office: Office) -> None:
    original = version(office)
    row(office, original)
    copies = [replace(original, name="production", version=str(number)) for number in (1, 2)]
    office.tracker.versions_kept["production"] = copies
    assert office.look(really=True) == ()
    assert office.tracker.versions_kept["production"] == copies


def test_a_version_that_cannot_be_proven_to_be_ours_gets_no_row(office: Office) -> None:
    strange = version(office)
    (found,) = office.look(really=True)
    assert kinds([found]) == [(DiscrepancyKind.NO_ROW, strange.uri)]
    assert found.fault
    assert found.exit_code
    assert office.store.registrations() == ()
    assert office.look(adopt=False) == ()


def test_what_a_dead_process_left_is_ended_and_deleted_after_a_day_and_not_before(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    row(office, None)
    run_id, model_id = unversioned(office)
    kept = office.tracker.runs_kept[run_id]
    kept.run = replace(kept.run, started=office.tracker.models_kept[model_id].created)
    stopped, *young = office.look(really=True)
    assert kinds(young) == [(DiscrepancyKind.RUN, run_id), (DiscrepancyKind.MODEL, model_id)]
    assert not any(one.done for one in young)
    monkeypatch.setattr(reconciling, "DAY", -1.0)
    assert [bool(one.remedy) for one in office.look()] == [False, True, True]
    assert office.tracker.runs_kept[run_id].run.status == "RUNNING"
    assert all(one.done for one in office.look(really=True)[1:])
    assert office.tracker.runs_kept[run_id].run.status == "FAILED"
    assert model_id not in office.tracker.models_kept
    assert office.look() == (stopped,)


def test_what_another_store_began_is_told_and_stays_however_old(office: Office, old: None) -> None:
    """Its process may take it up; and what is only tagged like a soup may be a person's."""
    run_id, model_id = unversioned(office)
    bare = office.tracker.add_run(office.tracker.add_experiment("sweep"), "bare", status="RUNNING")
    kept = office.tracker.runs_kept[bare]
    kept.run = replace(kept.run, tags={ROLE: "soup"})
    found = office.look(really=True)
    assert {one.what for one in found} == {run_id, model_id, bare}
    assert not any(one.remedy or one.done or one.fault for one in found)
    assert all("another store" in one.told and one.mend for one in found)
    assert office.tracker.runs_kept[run_id].run.status == "RUNNING"
    assert model_id in office.tracker.models_kept


def test_what_a_living_process_works_on_and_what_is_not_ours_stays(office: Office, old: None) -> None:
    run_id, model_id = unversioned(office)
    lease = office.store.begin_registration("birds", RECIPE).lease
    office.store.take_lease(lease, owner="me", seconds=1000)
    experiment = office.tracker.add_experiment("sweep")
    theirs = office.tracker.add_run(experiment, "theirs", status="RUNNING")
    logged = office.tracker.add_model(theirs, "theirs", {})
    assert office.look(really=True) == ()
    assert office.tracker.runs_kept[run_id].run.status == "RUNNING"
    assert {model_id, logged} <= office.tracker.models_kept.keys()


def test_a_model_that_got_its_version_meanwhile_is_not_deleted(office: Office, old: None) -> None:
    row(office, None)
    run_id, model_id = unversioned(office)

    class Late(MemoryTracker):
        """Another store's process registers it between the look and the remedy."""

        def versions_of(self, run: str) -> tuple[ModelVersion, ...]:
            found = super().versions_of(run)
            if not self.versions_kept:
                self.create_version(run_id, model_id, publication(office))
            return found

    late = Late()
    late.__dict__.update(office.tracker.__dict__)
    found = Office(late, office.store).look(really=True)
    (model,) = [one for one in found if one.kind is DiscrepancyKind.MODEL]
    assert "has a version by now" in model.fault
    assert model_id in late.models_kept


def test_a_model_that_is_served_without_our_tags_is_no_orphan(office: Office, old: None) -> None:
    """A person took the tags away, or registered what a dead process had logged: it must not be deleted."""
    served = version(office)
    row(office, served)
    office.tracker.versions_kept["birds"] = [replace(served, tags={})]
    assert DiscrepancyKind.MODEL not in {one.kind for one in office.look(really=True)}
    row(office, None, "fish")
    run_id, model_id = unversioned(office, "fish")
    office.tracker.fail(run_id)
    by_hand = replace(served, name="mine", run_id=run_id, model_id=model_id, tags={})
    copy = replace(by_hand, name="copy", model_id=None, copy_of=by_hand.uri)
    for one in (by_hand, copy):
        office.tracker.versions_kept["mine"] = [one]
        assert DiscrepancyKind.MODEL not in {found.kind for found in office.look(really=True)}
    assert {served.model_id, model_id} <= office.tracker.models_kept.keys()
    del office.tracker.versions_kept["mine"]
    assert model_id in {one.what for one in office.look()}


def test_a_scan_tells_once_a_day_and_for_each_mlflow_what_does_not_agree(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(at: Office) -> tuple[str, ...]:
        return told_daily(at)

    row(office, version(office))
    version(office)
    row(office, None, "fish")
    (line,) = told(office)
    assert line.startswith("2 discrepancies between the store and MLflow: stockpot reconcile tells of them,")
    assert line.endswith("and stockpot reconcile --yes settles 1 of them")
    assert told(office) == (), "it was told today"
    other = Office(MemoryTracker(), office.store)
    other.tracker.oldest = office.tracker.oldest + 1  # both may be made in one millisecond
    other.tracker.add_experiment("elsewhere")
    assert told(other) == ("1 discrepancy between the store and MLflow: stockpot reconcile tells of them",)
    today = office.store.clock()
    monkeypatch.setattr(office.store, "clock", lambda: today + 25 * 3600)
    assert len(told(office)) == 1

    class Away(MemoryTracker):
        def soup_versions(self) -> tuple[ModelVersion, ...]:
            raise Unreachable("MLflow\ndoes not answer", mend="wait")

    assert "is not known: MLflow" in told(Office(Away(), MemoryStore()))[0]


def test_one_registered_model_can_be_looked_at_alone(office: Office, old: None) -> None:
    row(office, None)
    row(office, None, "fish")
    birds, fish = unversioned(office), unversioned(office, "fish")
    found = office.look(model="fish")
    assert {one.what for one in found} == {"models:/fish", *fish}
    assert {one.what for one in office.look()} == {"models:/birds", "models:/fish", *birds, *fish}


def test_a_remedy_that_fails_is_told_and_ends_nothing(office: Office, old: None) -> None:
    row(office, None)
    run_id, model_id = unversioned(office)
    office.tracker.writable = False
    _, *found = office.look(really=True)
    assert kinds(found) == [(DiscrepancyKind.RUN, run_id), (DiscrepancyKind.MODEL, model_id)]
    assert all(one.fault and not one.done and one.exit_code == 8 for one in found)
