"""What every store promises, as tests.

Subclass it in a test module, with a fixture that gives each test a fresh store::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Store:
            return MyStore()
"""

import time
from dataclasses import replace
from math import inf, nan

import pytest

from stockpot.entities import (
    Bound,
    Digest,
    Ensemble,
    ExclusionReason,
    IngestedSource,
    Metric,
    OverlayRule,
    Recipe,
    Registration,
    RegistrationState,
    Score,
    digest_of_bytes,
)
from stockpot.errors import StoreError
from stockpot.ports import Store
from stockpot.testing.bounds_contract import BoundsContract
from stockpot.testing.jobs_contract import JobsContract, take
from stockpot.testing.lineage_contract import LineageContract
from stockpot.testing.pruning_contract import PruningContract
from stockpot.testing.store_values import (
    NAN_WITH_PAYLOAD,
    TEST,
    THREADS,
    VALIDATION,
    at_once,
    bits,
    ingested,
    selection,
    soup,
)
from stockpot.testing.trail_contract import TrailContract

RULE = OverlayRule("training", 512, "bn/1", TEST.dataset)


def begun(store: Store, owner: str) -> Registration:
    """The row of a soup whose lease this owner asked for."""
    row = store.begin_registration("digits", soup("a", "b"))
    take(store, owner, row.lease)
    return row


def committed(store: Store) -> Registration | None:
    """The row that `begun` asks for."""
    return store.registration("digits", soup("a", "b").digest)


class StoreContract(BoundsContract, JobsContract, LineageContract, PruningContract, TrailContract):
    """Every sentence of `stockpot.ports.Store`, held against the fixture ``store``."""

    def test_a_new_store_knows_nothing(self, store: Store) -> None:
        recipe = soup("a").digest
        assert store.ingested("file:///a") is None
        assert store.score(recipe, VALIDATION.digest) is None
        assert store.recipe(recipe) is None
        assert store.selections(recipe) == ()
        assert store.registration("digits", recipe) is None
        assert store.registrations("digits") == ()

    def test_a_store_that_was_closed_opens_again_and_knows_what_it_knew(self, store: Store) -> None:
        store.remember_ingested(ingested("file:///a"))
        for _ in range(2):
            store.close()
            assert store.ingested("file:///a") == ingested("file:///a")

    def test_what_reading_a_file_found_is_remembered_by_uri(self, store: Store) -> None:
        good = ingested("file:///good")
        bad = IngestedSource("file:///bad", None, "1" * 64, None, ExclusionReason.NOT_FINITE, "NaN")
        store.remember_ingested(good)
        store.remember_ingested(bad)
        assert store.ingested("file:///good") == good
        assert store.ingested("file:///bad") == bad

    def test_a_newer_reading_replaces_an_older_one(self, store: Store) -> None:
        store.remember_ingested(ingested("file:///a", size=4))
        store.remember_ingested(ingested("file:///a", size=8))
        assert store.ingested("file:///a") == ingested("file:///a", size=8)

    def test_a_score_is_remembered_under_recipe_and_protocol_together(self, store: Store) -> None:
        store.commit_score(soup("a"), VALIDATION, Score((1.0, 0.0, 1.0)))
        store.commit_score(soup("a"), TEST, Score((0.0, 0.0)))
        store.commit_score(soup("a", "b"), VALIDATION, Score((0.1, 0.2, 0.3)))
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((1.0, 0.0, 1.0))
        assert store.score(soup("a").digest, TEST.digest) == Score((0.0, 0.0))
        assert store.score(soup("a", "b").digest, VALIDATION.digest) == Score((0.1, 0.2, 0.3))
        assert store.score(soup("b", "a").digest, VALIDATION.digest) is None

    def test_which_of_many_recipes_have_a_score_is_one_question(self, store: Store) -> None:
        recipes = [soup(str(number)).digest for number in range(20_001)]
        for number in (0, 7, 20_000):
            store.commit_score(soup(str(number)), VALIDATION, Score((1.0,)))
        store.commit_score(soup("8"), TEST, Score((1.0,)))
        store.commit_score(soup("unasked"), VALIDATION, Score((1.0,)))
        store.commit_bound(soup("9"), VALIDATION, Bound(0.5))
        expected = {recipes[0], recipes[7], recipes[-1]}
        assert store.scored([*recipes, recipes[0]], VALIDATION.digest) == expected
        assert store.scored([], VALIDATION.digest) == frozenset()

    def test_committed_evaluations_are_counted_by_protocol_and_time(self, store: Store) -> None:
        assert store.evaluated() == (0, None)
        before = time.time()
        for recipe, protocol in ((soup("a"), VALIDATION), (soup("b"), VALIDATION), (soup("a"), TEST)):
            store.commit_score(recipe, protocol, Score((1.0,)))
        number, last = store.evaluated()
        assert number == 3
        assert last is not None
        assert before <= last <= time.time()
        assert store.evaluated([VALIDATION.digest])[0] == 2
        assert store.evaluated([VALIDATION.digest, TEST.digest], since=before)[0] == 3
        assert store.evaluated([], since=before) == (0, None)
        assert store.evaluated(since=last + 1000.0) == (0, None)

    def test_the_first_committed_score_wins(self, store: Store) -> None:
        first, second = Score((1.0, 0.0)), Score((0.0, 1.0))
        assert store.commit_score(soup("a"), VALIDATION, first) == first
        assert store.commit_score(soup("a"), VALIDATION, second) == first
        assert store.score(soup("a").digest, VALIDATION.digest) == first

    def test_threads_that_commit_the_same_evaluation_all_get_the_same_score(self, store: Store) -> None:
        def commit(number: int) -> Score:
            return store.commit_score(soup("a", "b"), VALIDATION, Score((float(number),)))

        (winner,) = set(at_once(commit))
        assert store.score(soup("a", "b").digest, VALIDATION.digest) == winner

    def test_threads_that_commit_different_evaluations_lose_none(self, store: Store) -> None:
        at_once(lambda number: store.commit_score(soup(str(number)), VALIDATION, Score((float(number),))))
        found = [store.score(soup(str(number)).digest, VALIDATION.digest) for number in range(THREADS)]
        assert found == [Score((float(number),)) for number in range(THREADS)]

    @pytest.mark.parametrize(
        "examples",
        [(nan, 1.0), (NAN_WITH_PAYLOAD,), (-0.0, 0.0), (0.1 + 0.2, 5e-324), (inf, -inf), (-inf, 1.0)],
        ids=str,
    )
    def test_scores_come_back_bit_identical(self, store: Store, examples: tuple[float, ...]) -> None:
        score = Score(examples)
        assert bits(store.commit_score(soup("a"), VALIDATION, score)) == bits(score)
        assert bits(store.commit_score(soup("a"), VALIDATION, Score((0.5,)))) == bits(score)
        assert bits(store.score(soup("a").digest, VALIDATION.digest)) == bits(score)

    @pytest.mark.parametrize(
        "metric",
        [
            Metric(0.1 + 0.2, (0.1, 5e-324)),
            Metric(nan, (NAN_WITH_PAYLOAD, -0.0, 0.0)),
            Metric(-0.0, (inf, -inf, nan)),
            Metric(0.75, ()),
        ],
        ids=str,
    )
    def test_metrics_come_back_bit_identical_beside_the_examples(self, store: Store, metric: Metric) -> None:
        score = Score((nan, 0.25), metric)
        assert bits(store.commit_score(soup("a"), VALIDATION, score)) == bits(score)
        assert bits(store.commit_score(soup("a"), VALIDATION, Score((0.5,)))) == bits(score)
        assert bits(store.score(soup("a").digest, VALIDATION.digest)) == bits(score)

    def test_gaps_come_back_in_single_precision_and_are_no_part_of_the_score(self, store: Store) -> None:
        score = Score((1.0, 0.0, 1.0, 0.0), gaps=(0.1, inf, nan, 0.0))
        committed = store.commit_score(soup("a"), VALIDATION, score)
        assert committed == Score((1.0, 0.0, 1.0, 0.0)) == store.score(soup("a").digest, VALIDATION.digest)
        found = store.score(soup("a").digest, VALIDATION.digest)
        assert found is not None
        assert found.gaps is not None
        assert found.gaps == pytest.approx(score.gaps, rel=1e-6, nan_ok=True)
        assert store.commit_score(soup("a"), VALIDATION, Score((0.5,))).gaps is not None, "the first one wins"
        store.commit_score(soup("b"), VALIDATION, Score((1.0,)))
        without = store.score(soup("b").digest, VALIDATION.digest)
        assert without is not None
        assert without.gaps is None

    def test_a_score_without_metric_comes_back_without_one(self, store: Store) -> None:
        store.commit_score(soup("a"), VALIDATION, Score((0.5, 1.0)))
        later = Score((0.5, 1.0), Metric(0.5, (0.25,)))
        assert store.commit_score(soup("a"), VALIDATION, later).metric is None
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((0.5, 1.0))

    def test_the_first_overlay_that_a_rule_led_to_is_the_recipes(self, store: Store) -> None:
        rule = replace(soup("a", "b"), overlay=RULE)
        assert store.overlay(rule.digest) is None
        tries = [b"\0statistics %d" % place for place in range(THREADS)]
        found = at_once(lambda place: store.resolve_overlay(rule, tries[place]))
        assert len(set(found)) == 1
        assert store.resolve_overlay(rule, b"later") == store.overlay(rule.digest) == found[0] in tries
        assert store.recipe(rule.digest) == rule
        other = replace(rule, overlay=replace(RULE, version="bn/2"))
        assert store.resolve_overlay(other, tries[-1]) == tries[-1]

    @pytest.mark.parametrize("overlay", [None, digest_of_bytes(b"statistics")])
    def test_an_overlay_without_a_rule_is_not_resolved(self, store: Store, overlay: Digest | None) -> None:
        with pytest.raises(StoreError, match="nothing to resolve"):
            store.resolve_overlay(replace(soup("a", "b"), overlay=overlay), b"statistics")

    def test_an_ensembles_score_is_committed_under_its_own_name(self, store: Store) -> None:
        members = (soup("b"), soup("a", "c"))
        equal, weighted = Ensemble(members), Ensemble(members, (2, 1))
        for ensemble, value in ((equal, 0.5), (weighted, 0.25)):
            assert store.commit_score(ensemble, VALIDATION, Score((value,))) == Score((value,))
            assert store.recipe(ensemble.digest) == ensemble
        assert store.score(equal.digest, VALIDATION.digest) == Score((0.5,))
        assert store.score(weighted.digest, VALIDATION.digest) == Score((0.25,))
        assert store.commit_bound(equal, TEST, Bound(0.75)) == store.bound(equal.digest, TEST.digest)
        search = replace(selection(soup("b")), recipe=equal)
        store.commit_selection(search, VALIDATION)
        assert repr(store.selections(equal.digest)) == repr((search,))

    def test_a_recipe_is_known_once_an_evaluation_selection_or_registration_brought_it_in(
        self, store: Store
    ) -> None:
        evaluated, selected = replace(soup("c", "a"), overlay=digest_of_bytes(b"statistics")), soup("a", "b")
        registered = soup("b", "c", "a")
        store.commit_score(evaluated, VALIDATION, Score((1.0,)))
        store.commit_selection(selection(selected), VALIDATION)
        store.begin_registration("digits", registered)
        grouped = Recipe.grouped([soup("b", "a").checkpoints, soup("c").checkpoints])
        store.commit_score(grouped, VALIDATION, Score((1.0,)))
        for recipe in (evaluated, selected, registered, grouped):
            assert store.recipe(recipe.digest) == recipe

    def test_selections_are_found_by_the_recipe_they_ended_in_oldest_first(self, store: Store) -> None:
        searches = [selection(soup("a", "b"), score) for score in (0.5, 0.25, 0.75)]
        for search in searches:
            store.commit_selection(search, VALIDATION)
        store.commit_selection(selection(soup("a")), VALIDATION)
        # By repr: the record of a step may hold a NaN, which equals nothing.
        assert repr(store.selections(soup("a", "b").digest)) == repr(tuple(searches))

    def test_committing_an_identical_selection_again_changes_nothing(self, store: Store) -> None:
        older, newer = selection(soup("a"), nan, complete=False), selection(soup("a"))
        for search in (older, newer, older):
            store.commit_selection(search, VALIDATION)
        assert repr(store.selections(soup("a").digest)) == repr((older, newer))

    def test_threads_that_commit_an_identical_selection_leave_one(self, store: Store) -> None:
        at_once(lambda _: store.commit_selection(selection(soup("a", "b")), VALIDATION))
        assert len(store.selections(soup("a", "b").digest)) == 1

    def test_a_registration_is_begun_once(self, store: Store) -> None:
        row = Registration("digits", soup("a", "b").digest, RegistrationState.REGISTERING)
        assert store.begin_registration("digits", soup("a", "b")) == row
        done = replace(begun(store, "me"), run_id="run")
        store.advance_registration(done, owner="me")
        assert store.begin_registration("digits", soup("a", "b")) == committed(store) == done

    def test_registrations_of_other_models_and_recipes_are_independent(self, store: Store) -> None:
        begun(store, "you")
        for model, recipe in (("letters", soup("a", "b")), ("digits", soup("b", "a"))):
            row = store.begin_registration(model, recipe)
            assert take(store, "me", row.lease).owner == "me"

    def test_the_owner_writes_state_and_ids(self, store: Store) -> None:
        first = replace(begun(store, "me"), checkpoint=digest_of_bytes(b"soup"), run_id="run")
        store.advance_registration(first, owner="me")
        assert committed(store) == first
        done = replace(first, state=RegistrationState.REGISTERED, model_id="m-1", version="3")
        before = time.time()
        store.advance_registration(done, owner="me")
        written = committed(store)
        assert written == done
        assert written is not None
        assert before <= written.updated_at <= time.time()

    def test_a_lost_lease_cannot_be_written_under(self, store: Store) -> None:
        row = begun(store, "me")
        take(store, "me", row.lease, seconds=-1)
        begun(store, "you")
        with pytest.raises(StoreError, match="held by you"):
            store.advance_registration(replace(row, run_id="run"), owner="me")
        assert committed(store) == row

    def test_a_released_lease_cannot_be_written_under(self, store: Store) -> None:
        row = begun(store, "me")
        store.release_lease(row.lease, owner="me")
        with pytest.raises(StoreError, match="held by nobody"):
            store.advance_registration(replace(row, run_id="run"), owner="me")

    def test_a_registration_that_nobody_began_cannot_be_written(self, store: Store) -> None:
        row = Registration("digits", soup("a").digest, RegistrationState.REGISTERED)
        take(store, "me", row.lease)
        with pytest.raises(StoreError, match="cannot be registered"):
            store.advance_registration(row, owner="me")
        assert store.registration("digits", soup("a").digest) is None

    def test_registered_never_goes_back(self, store: Store) -> None:
        row = begun(store, "me")
        done = replace(row, state=RegistrationState.REGISTERED, version="3")
        store.advance_registration(done, owner="me")
        with pytest.raises(StoreError, match="version 3"):
            store.advance_registration(row, owner="me")
        assert committed(store) == done

    def test_registrations_of_a_model_come_by_recipe_digest(self, store: Store) -> None:
        recipes = [soup(name) for name in "abcde"]
        for model in ("digits", "letters"):
            for recipe in recipes:
                store.begin_registration(model, recipe)
        found = [(row.model, row.recipe) for row in store.registrations("digits")]
        assert found == sorted(("digits", recipe.digest) for recipe in recipes)
        everybodys = [(row.model, row.recipe) for row in store.registrations()]
        assert everybodys == sorted((m, recipe.digest) for m in ("digits", "letters") for recipe in recipes)
