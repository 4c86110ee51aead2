"""What every store promises about pruning: a part of `stockpot.testing.store_contract`."""

from dataclasses import replace
from typing import Any

import pytest

from stockpot.entities import (
    Bound,
    Composition,
    Curve,
    CurvePoint,
    Ensemble,
    EnsembleRow,
    Opening,
    OverlayRule,
    Pruned,
    Recipe,
    ReferenceRow,
    Score,
    SoupOutcome,
    SoupReport,
    Step,
    TrailDraft,
    TrailKind,
    TrailOf,
    WithoutDomain,
    digest_of_bytes,
)
from stockpot.ports import Store
from stockpot.testing.jobs_contract import take
from stockpot.testing.store_values import EVIDENCE, TEST, VALIDATION, candidate, job, report, selection, soup

ALL = -1000.0
"""Seconds: even what is written in the next quarter of an hour is old enough."""
WITH_GAPS = Score((1.0, 0.0), gaps=(0.5, 0.25))


def pruned(store: Store, seconds: float = ALL, *, really: bool = True) -> dict[str, int]:
    """How many went, by kind."""
    return {found.kind: found.number for found in store.prune(seconds, really=really)}


def nothing_of(kinds: str) -> dict[str, int]:
    """None of these kinds."""
    return dict.fromkeys(kinds.split(), 0)


def is_scored(store: Store, recipe: Composition) -> bool:
    """Under VALIDATION."""
    return store.score(recipe.digest, VALIDATION.digest) is not None


def telling_of(report_: SoupReport, kind: str, told: Recipe) -> SoupReport:
    """The report, which tells of this recipe in one way."""
    recipe = told.digest
    if kind == "step":
        step = Step(recipe, (), 0.5, None, kept=False)
        return replace(report_, selections=(replace(selection(soup("z")), steps=(step,)),))
    if kind == "without a domain":
        return replace(report_, collisions=(WithoutDomain("owls", told, "", {}),))
    return replace(report_, curve=Curve("greedy soup", (CurvePoint(0.5, recipe, {}),)))


class PruningContract:
    """Every sentence of `Store.prune`, held against the fixture ``store``."""

    def test_what_nothing_rests_on_goes_once_it_is_old_and_is_told_before(self, store: Store) -> None:
        store.commit_score(soup("a"), VALIDATION, WITH_GAPS)
        assert pruned(store, 1000) == nothing_of("evaluations bounds gaps overlays")
        told = store.prune(ALL, really=False)
        assert Pruned("evaluations", 1, told[0].bytes) == told[0]
        assert 8 <= told[0].bytes < 200
        assert is_scored(store, soup("a")), "it was told, and not done"
        assert store.prune(ALL, really=True) == told
        assert not is_scored(store, soup("a"))
        assert pruned(store) == nothing_of("evaluations bounds gaps overlays")
        assert store.commit_score(soup("a"), VALIDATION, Score((0.5,))) == Score((0.5,)), "it may come again"

    def test_a_registered_soups_evaluations_stay_without_their_gaps(self, store: Store) -> None:
        store.commit_score(soup("a", "b"), VALIDATION, WITH_GAPS)
        store.begin_registration("digits", soup("a", "b"))
        assert pruned(store) == {**nothing_of("evaluations bounds overlays"), "gaps": 1}
        found = store.score(soup("a", "b").digest, VALIDATION.digest)
        assert found == WITH_GAPS
        assert found is not None
        assert found.gaps is None
        assert store.recipe(soup("a", "b").digest) == soup("a", "b")

    @pytest.mark.parametrize("kind", ["step", "point of the curve", "without a domain"])
    def test_what_a_report_tells_of_stays(self, store: Store, kind: str) -> None:
        told, other = soup("a", "b", "c"), soup("a", "c")
        for recipe in (told, other):
            store.commit_score(recipe, VALIDATION, Score((1.0,)))
        store.commit_report(telling_of(report(soup("a", "b")), kind, told))
        assert pruned(store)["evaluations"] == 1
        assert (is_scored(store, told), is_scored(store, other)) == (True, False)

    def test_rows_candidates_and_ensembles_of_a_report_stay(self, store: Store) -> None:
        members = Ensemble((soup("one"), soup("c")))
        told = report(soup("a", "b"), runs=("one", "two"))
        row = EnsembleRow("greedy ensemble", members, {}, {}, 2)
        store.commit_report(replace(told, ensembles=(row,)))
        soups = Ensemble.of(soup("a", "b").checkpoints)
        reported: list[Composition] = [soup("a", "b"), soup("one"), soup("two"), members, soups]
        for recipe in (*reported, soup("c")):
            store.commit_score(recipe, VALIDATION, Score((1.0,)))
        assert pruned(store)["evaluations"] == 1
        assert all(is_scored(store, recipe) for recipe in reported)
        assert not is_scored(store, soup("c"))
        assert len(store.reports(soup("a", "b").digest)) == 1

    def test_references_and_ensembles_like_grouped_soups_stay(self, store: Store) -> None:
        """The ensemble of a grouped soup lets groups count alike: it is another than that of all alike."""
        grouped = Recipe.grouped([soup("a").checkpoints, soup("b", "c").checkpoints])
        routed = ReferenceRow("by domain", (soup("d"), soup("e")), {}, {})
        told = report(grouped)
        store.commit_report(replace(told, references=(routed,)))
        reported: list[Composition] = [grouped, Ensemble.like(grouped), soup("d"), soup("e")]
        for recipe in (*reported, Ensemble.of(grouped.checkpoints)):
            store.commit_score(recipe, VALIDATION, Score((1.0,)))
        assert pruned(store)["evaluations"] == 1
        assert all(is_scored(store, recipe) for recipe in reported)

    @pytest.mark.parametrize("side", ["version", "champion"])
    def test_what_a_decision_of_the_gate_rests_on_stays(self, store: Store, side: str) -> None:
        for recipe in (soup("a"), soup("b")):
            store.commit_score(recipe, VALIDATION, WITH_GAPS)
        score = {"split": "test", "recipe": soup("a").digest, "protocol": VALIDATION.digest, "value": 0.5}
        facts: list[dict[str, Any]] = [
            {side: {"uri": "models:/birds/1", "scores": [score]}},
            {side: None},
            {side: {"scores": [1]}},
        ]
        drafts = [TrailDraft(TrailKind.DECISION, fact) for fact in facts]
        assert store.append_trail(TrailOf("birds", 5), drafts, after=None)
        assert pruned(store) == {**nothing_of("bounds overlays"), "evaluations": 1, "gaps": 1}
        assert is_scored(store, soup("a"))
        assert not is_scored(store, soup("b"))

    def test_bounds_go_where_they_are_old_and_no_report_tells_of_them(self, store: Store) -> None:
        told = replace(selection(soup("z")), steps=(Step(soup("b").digest, (), None, 0.5, kept=False),))
        store.commit_report(replace(report(soup("z")), selections=(told,)))
        for name in ("a", "b"):
            store.commit_bound(soup(name), VALIDATION, Bound(0.5))
            store.commit_bound(soup(name), VALIDATION, Bound(0.25, mixed=True))
        assert pruned(store, 1000)["bounds"] == 0
        assert pruned(store)["bounds"] == 1
        assert store.bound(soup("a").digest, VALIDATION.digest) is None
        assert store.bound(soup("b").digest, VALIDATION.digest) is not None, "a step of a search"

    def test_nothing_goes_under_the_protocols_of_a_job_that_somebody_works_on(self, store: Store) -> None:
        mine = job("one")
        store.begin_job(mine)
        take(store, "me", mine.lease)
        store.open_job(mine, Opening("1.0", (VALIDATION,)), owner="me")
        for protocol in (VALIDATION, TEST):
            store.commit_score(soup("a"), protocol, WITH_GAPS)
            store.commit_bound(soup("b"), protocol, Bound(0.5))
        assert pruned(store) == {"evaluations": 1, "bounds": 1, "gaps": 0, "overlays": 0}
        found = store.score(soup("a").digest, VALIDATION.digest)
        assert found is not None
        assert found.gaps is not None
        assert store.bound(soup("b").digest, VALIDATION.digest) is not None
        assert store.score(soup("a").digest, TEST.digest) is None
        store.release_lease(mine.lease, owner="me")
        assert pruned(store) == {"evaluations": 1, "bounds": 1, "gaps": 0, "overlays": 0}

    def test_nothing_goes_while_somebody_works_on_a_job_that_is_not_open_yet(self, store: Store) -> None:
        mine = job("one")
        store.begin_job(mine)
        store.commit_score(soup("a"), VALIDATION, WITH_GAPS)
        take(store, "me", mine.lease)
        assert store.prune(ALL, really=True) == ()
        store.open_job(mine, Opening("1.0", ()), owner="me")
        assert store.prune(ALL, really=True) == ()
        assert is_scored(store, soup("a"))
        take(store, "me", mine.lease, seconds=-1)
        assert pruned(store)["evaluations"] == 1, "whoever held it is dead"

    def test_an_overlay_stays_with_what_was_measured_under_it_and_while_somebody_works(
        self, store: Store
    ) -> None:
        rule = OverlayRule("training", 512, "bn/1", TEST.dataset)
        tried, kept = (replace(soup(*names), overlay=rule) for names in (("a", "b"), ("a", "c")))
        for recipe in (tried, kept):
            store.resolve_overlay(recipe, b"statistics")
            store.commit_score(recipe, VALIDATION, Score((1.0,)))
        store.begin_registration("digits", kept)
        mine = job("one")
        store.begin_job(mine)
        take(store, "me", mine.lease)
        store.open_job(mine, Opening("1.0", (VALIDATION,)), owner="me")
        assert pruned(store) == nothing_of("evaluations bounds gaps overlays")
        store.open_job(mine, Opening("1.0", (TEST,)), owner="me")
        assert pruned(store)["evaluations"] == 1
        assert store.overlay(tried.digest) is not None, "somebody works"
        store.release_lease(mine.lease, owner="me")
        assert pruned(store)["overlays"] == 1
        assert store.overlay(tried.digest) is None
        assert store.overlay(kept.digest) == b"statistics"

    def test_answers_places_and_selections_stay(self, store: Store) -> None:
        mine = job("one")
        store.begin_job(mine)
        store.commit_candidates(mine, [candidate("one", "a")])
        store.commit_selection(selection(soup("a")), VALIDATION)
        take(store, "me", mine.lease)
        store.finish_job(mine, SoupOutcome(report(soup("a")), (), 7), EVIDENCE, owner="me")
        store.open_job(mine, Opening("1.0", (VALIDATION,)), owner="me")
        store.release_lease(mine.lease, owner="me")
        store.prune(ALL, really=True)
        assert store.answer(mine) is not None
        assert len(store.places(digest_of_bytes(b"a"))) == 1
        assert len(store.selections(soup("a").digest)) == 1
