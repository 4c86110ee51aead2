"""What every store promises about the descent of soups, as tests: a part of `store_contract`."""

from collections.abc import Sequence
from dataclasses import replace

from stockpot.entities import (
    Blend,
    Digest,
    Found,
    KnownVersion,
    Recall,
    RecallKind,
    Recipe,
    Registration,
    RegistrationState,
    digest_of_bytes,
)
from stockpot.ports import Store
from stockpot.testing.jobs_contract import take
from stockpot.testing.store_values import at_once, candidate, job


def named(name: str) -> Digest:
    """The checkpoint of this name."""
    return digest_of_bytes(name.encode())


def mean(*names: str) -> Recipe:
    """The average of these checkpoints."""
    return Recipe.mean([named(name) for name in names])


def known(name: str, recipe: Recipe, version: str = "1", model: str = "digits") -> KnownVersion:
    """A version whose weights are the checkpoint of this name."""
    return KnownVersion(model, version, recipe.digest, named(name), f"run of {name}", f"m-{name}")


def soups_of_soups(store: Store) -> None:
    """Ab holds a and b; abc holds ab and c; abcd holds abc and d; xy is no relative."""
    for number, (name, parts) in enumerate(
        (("ab", "a b"), ("abc", "ab c"), ("abcd", "abc d"), ("xy", "x y"))
    ):
        recipe = mean(*parts.split())
        store.remember_version(known(name, recipe, str(number + 1)), recipe)


def pairs(blends: Sequence[Blend]) -> set[tuple[Digest, Digest]]:
    """Who holds whom."""
    return {(blend.soup, blend.ingredient) for blend in blends}


def told(*names: str) -> set[tuple[Digest, Digest]]:
    """The same, in words: soup, ingredient, soup, ingredient."""
    digests = [named(name) for name in names]
    return set(zip(digests[::2], digests[1::2], strict=True))


class LineageContract:
    """Every sentence of `stockpot.ports.Descent`, held against the fixture ``store``."""

    def test_a_new_store_knows_no_descent(self, store: Store) -> None:
        assert store.known_versions() == store.known_versions([]) == ()
        for down in (True, False):
            assert store.blends([named("a")], down=down) == store.blends([], down=down) == ()
        assert store.found([named("a")]) == store.found([]) == ()
        assert store.logged_by(["r"]) == ()

    def test_more_checkpoints_are_asked_about_than_a_statement_has_parameters(self, store: Store) -> None:
        soups_of_soups(store)
        many = [*(named(str(number)) for number in range(66_000)), named("xy")]
        assert pairs(store.blends(many, down=False)) == told("xy", "x", "xy", "y")
        assert [one.uri for one in store.known_versions(many)] == ["models:/digits/4"]
        assert store.found(many) == ()
        assert store.logged_by(many) == ()

    def test_what_holds_a_checkpoint_is_told_through_soups_of_soups(self, store: Store) -> None:
        soups_of_soups(store)
        below = store.blends([named("b")], down=True)
        assert pairs(below) == told("ab", "b", "abc", "ab", "abcd", "abc")
        assert below == tuple(sorted(below, key=lambda one: (one.soup, one.recipe, one.position)))
        assert pairs(store.blends([named("d"), named("x")], down=True)) == told("abcd", "d", "xy", "x")
        assert store.blends([named("abcd")], down=True) == ()

    def test_what_a_soup_is_made_of_is_told_through_soups_of_soups(self, store: Store) -> None:
        soups_of_soups(store)
        above = store.blends([named("abc")], down=False)
        assert pairs(above) == told("abc", "ab", "abc", "c", "ab", "a", "ab", "b")
        (first,) = [one for one in above if one.ingredient == named("c")]
        assert first == Blend(named("abc"), mean("ab", "c").digest, 1, named("c"), 0.5)
        assert store.blends([named("a")], down=False) == ()

    def test_a_recipe_of_one_checkpoint_is_that_checkpoint_and_no_soup(self, store: Store) -> None:
        store.remember_version(known("a", mean("a")), mean("a"))
        assert store.blends([named("a")], down=True) == store.blends([named("a")], down=False) == ()
        assert store.known_versions([named("a")]) == (known("a", mean("a")),)

    def test_versions_are_told_by_what_they_hold_and_by_their_address(self, store: Store) -> None:
        recipe, other = mean("a", "b"), mean("b", "a")
        versions = [known("ab", recipe, number) for number in ("10", "9")]
        versions += [known("ba", other, "9"), known("ab", recipe, "2", model="birds")]
        for version in versions:
            store.remember_version(version, recipe if version.recipe == recipe.digest else other)
        ten, nine, reused, bird = versions
        by_recipe = sorted([nine, reused], key=lambda one: one.recipe)
        assert store.known_versions() == (bird, *by_recipe, ten)
        assert store.known_versions([named("ab")]) == (bird, nine, ten)
        assert store.known_versions(uri="models:/digits/9") == tuple(by_recipe)
        assert store.known_versions([named("ba")], uri="models:/digits/10") == ()

    def test_of_versions_of_one_recipe_and_number_the_last_counts(self, store: Store) -> None:
        first = known("ab", mean("a", "b"))
        store.remember_version(first, mean("a", "b"))
        again = replace(first, run_id="another", model_id="m-another")
        store.remember_version(again, mean("a", "b"))
        assert store.known_versions() == (again,)
        at_once(lambda _: store.remember_version(first, mean("a", "b"), [candidate("r", "a")]))
        assert store.known_versions() == (first,)
        assert store.found([named("a")]) == (Found(named("a"), "r", "model.safetensors"),)

    def test_a_registration_makes_a_known_version_which_outlives_the_next(self, store: Store) -> None:
        row = store.begin_registration("digits", mean("a", "b"))
        take(store, "me", row.lease)

        def advance(version: str | None, state: RegistrationState) -> Registration:
            new = replace(row, state=state, version=version, checkpoint=named("ab"), run_id="r", model_id="m")
            store.advance_registration(new, owner="me")
            return new

        advance(None, RegistrationState.REGISTERING)
        assert store.known_versions() == ()
        advance("3", RegistrationState.REGISTERED)
        advance("7", RegistrationState.REGISTERED)
        found = [
            (one.uri, one.recipe, one.run_id, one.model_id) for one in store.known_versions([named("ab")])
        ]
        assert found == [(f"models:/digits/{number}", row.recipe, "r", "m") for number in (3, 7)]
        assert pairs(store.blends([named("a")], down=True)) == told("ab", "a")

    def test_places_tell_the_sweep_by_the_job_or_by_whoever_remembered_them(self, store: Store) -> None:
        asked = job("r1", sweep="parent")
        store.begin_job(asked)
        store.commit_candidates(asked, [candidate("r1", "a")])
        of_experiment = job("r1", sweep=None, experiment="all")
        store.begin_job(of_experiment)
        store.commit_candidates(of_experiment, [candidate("r1", "a")])
        recipe = mean("a", "b")
        ingredients = [candidate("r1", "a"), candidate("r2", "b"), candidate("", "file")]
        store.remember_version(known("ab", recipe), recipe, ingredients, sweep="elsewhere")
        place = "model.safetensors"
        assert store.found([named("b"), named("a"), named("file"), named("a")]) == tuple(
            sorted(
                [
                    Found(named("a"), "r1", place, "all"),
                    Found(named("a"), "r1", place, "parent"),
                    Found(named("b"), "r2", place, "elsewhere"),
                ],
                key=lambda one: (one.checkpoint, one.sweep or ""),
            )
        )
        assert store.places(named("b"))[0].run_id == "r2"

    def test_a_run_is_known_by_what_it_logged_and_by_what_was_made_of_it(self, store: Store) -> None:
        recipe = mean("a", "b")
        store.remember_version(known("ab", recipe), recipe, [candidate("r1", "a"), candidate("r2", "b")])
        assert store.logged_by(["r1"]) == (named("a"),)
        assert store.logged_by(["run of ab"]) == (named("ab"),)
        assert store.logged_by(["r2", "r1", "nobody"]) == tuple(sorted([named("a"), named("b")]))

    def test_the_last_word_about_a_thing_counts_and_none_is_forgotten(self, store: Store) -> None:
        assert store.recalls() == ()
        before = store.clock()
        word = Recall(RecallKind.RUN, "r1", "mislabelled", "ann")
        kept = store.append_recall(word)
        assert kept == word
        assert before - 1 <= kept.at <= store.clock() + 1
        assert store.append_recall(replace(word, reason="another", by="bob")) == kept
        other = store.append_recall(Recall(RecallKind.CHECKPOINT, "r1", "another kind", "ann"))
        back = store.append_recall(replace(word, reason="it was right", by="bob", withdrawn=True))
        assert (back.reason, back.withdrawn) == ("it was right", True)
        again = store.append_recall(replace(word, reason="it was not"))
        assert store.recalls() == (kept, other, back, again)

    def test_taking_back_what_nobody_said_is_a_word_too(self, store: Store) -> None:
        word = Recall(RecallKind.RUN, "r1", "never mind", "ann", withdrawn=True)
        assert store.append_recall(word) == word
