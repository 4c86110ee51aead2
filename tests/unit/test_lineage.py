"""What is in a version, and what holds a run: through soups of soups, deleted ones and copies too."""

from dataclasses import replace

import pytest
from tests.unit.kitchen import Kitchen, named

from stockpot.entities import (
    KnownVersion,
    Lineage,
    ModelVersion,
    Recipe,
    Standing,
    tags,
)
from stockpot.errors import BadRequest, Unreachable
from stockpot.testing.store_values import candidate
from stockpot.watching import Silent
from stockpot.workflow.lineage.drawing import mermaid, tree
from stockpot.workflow.lineage.rebuilding import Told, rebuild_lineage


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


def uris(found: Lineage, *names: str) -> dict[str, list[tuple[str, Standing]]]:
    """The versions of the checkpoints of these names."""
    by = {node.checkpoint: [(one.uri, one.standing) for one in node.versions] for node in found.nodes}
    return {name: by[named(name)] for name in names}


def test_a_version_tells_its_runs_and_what_holds_it(kitchen: Kitchen) -> None:
    a, b, c = kitchen.logs("a", "b", "c")
    kitchen.soup("ab", [a, b])
    (of_soup,) = kitchen.logs("ab")
    kitchen.soup("abc", [of_soup, c])
    found = kitchen.look("models:/birds/1")
    assert found.start == (named("ab"),)
    assert {(one.soup, one.ingredient) for one in found.up} == {
        (named("ab"), named("a")),
        (named("ab"), named("b")),
    }
    assert [(one.soup, one.ingredient) for one in found.down] == [(named("abc"), named("ab"))]
    assert list(tree(found)) == [
        f"models:/birds/1, run ab ({of_soup.run.run_id}) of sweep parent, {named('ab')[7:19]}",
        "  is made of",
        f"  ├── 0.5 of run a ({a.run.run_id}) of sweep parent, {named('a')[7:19]}",
        f"  └── 0.5 of run b ({b.run.run_id}) of sweep parent, {named('b')[7:19]}",
        "  is in",
        f"  └── models:/birds/2, {named('abc')[7:19]}",
    ]


def test_a_run_is_found_in_soups_of_soups(kitchen: Kitchen) -> None:
    a, b, c, d = kitchen.logs("a", "b", "c", "d")
    kitchen.soup("ab", [a, b])
    kitchen.soup("abc", [*kitchen.logs("ab"), c])
    kitchen.soup("ad", [a, d])
    lines = list(tree(kitchen.look(a.run.run_id)))
    assert [line.split(",")[0] for line in lines[1:]] == [
        "  is made of nothing that is known: a checkpoint of a run",
        "  is in",
        *(
            ["  ├── models:/birds/1", "  │   └── models:/birds/2", "  └── models:/birds/3"]
            if named("ab") < named("ad")
            else ["  ├── models:/birds/3", "  └── models:/birds/1", "      └── models:/birds/2"]
        ),
    ]


def test_what_was_deleted_is_still_told_of_as_deleted(kitchen: Kitchen) -> None:
    a, b = kitchen.logs("a", "b")
    version = kitchen.soup("ab", [a, b])
    kitchen.tracker.delete_run(a.run.run_id)
    del kitchen.tracker.runs_kept[b.run.run_id]
    kitchen.tracker.versions_kept["birds"].clear()
    for name in (a.run.run_id, b.run.run_id, version.uri, named("ab")):
        found = kitchen.look(name)
        assert uris(found, "ab") == {"ab": [(version.uri, Standing.DELETED)]}
    runs = {node.checkpoint: [one.standing for one in node.runs] for node in found.nodes}
    assert runs == {named("ab"): [], named("a"): [Standing.DELETED], named("b"): [Standing.GONE]}
    assert "run a (run-0) (deleted) of sweep parent" in "\n".join(tree(found))


def test_a_version_of_another_mlflow_is_told_apart_from_a_deleted_one(kitchen: Kitchen) -> None:
    version = kitchen.soup("ab", kitchen.logs("a", "b"))
    kitchen.tracker.versions_kept["birds"].clear()
    del kitchen.tracker.runs_kept[version.run_id or ""]
    assert uris(kitchen.look(version.uri), "ab") == {"ab": [(version.uri, Standing.GONE)]}


def test_a_number_that_was_given_again_is_not_the_version_before(kitchen: Kitchen) -> None:
    gone = kitchen.soup("ab", kitchen.logs("a", "b"))
    kitchen.tracker.versions_kept["birds"].clear()
    again = kitchen.soup("cd", kitchen.logs("c", "d"))
    assert gone.uri == again.uri
    assert uris(kitchen.look(named("ab")), "ab") == {"ab": [(gone.uri, Standing.DELETED)]}
    assert kitchen.look(again.uri).start == (named("cd"),)


def test_a_promoted_copy_is_told_as_a_copy_and_leads_to_its_origin(kitchen: Kitchen) -> None:
    version = kitchen.soup("ab", kitchen.logs("a", "b"))
    kitchen.tracker.copy_version(version.uri, "staging")
    kitchen.tracker.copy_version("models:/staging/1", "production")
    found = kitchen.look("models:/production/1")
    assert found.start == (named("ab"),)
    (node,) = [node for node in found.nodes if node.checkpoint == named("ab")]
    assert {one.uri: (one.standing, one.copy_of) for one in node.versions} == {
        version.uri: (Standing.THERE, None),
        "models:/staging/1": (Standing.THERE, version.uri),
        "models:/production/1": (Standing.THERE, "models:/staging/1"),
    }
    assert f"models:/staging/1, a copy of {version.uri}" in "\n".join(tree(found))
    kitchen.tracker.versions_kept["birds"].clear()
    assert ("models:/staging/1", Standing.THERE) in uris(kitchen.look(version.uri), "ab")["ab"]


def test_a_version_that_lost_the_tag_by_which_it_is_listed_is_still_there(kitchen: Kitchen) -> None:
    version = kitchen.soup("ab", kitchen.logs("a", "b"))
    tags_left = {name: value for name, value in version.tags.items() if name != tags.RECIPE}
    kitchen.tracker.versions_kept["birds"] = [replace(version, tags=tags_left)]
    assert uris(kitchen.look(named("ab")), "ab")["ab"] == [(version.uri, Standing.THERE)]


def test_tags_that_were_copied_by_hand_are_a_claim_until_the_weights_are_compared(kitchen: Kitchen) -> None:
    version = kitchen.soup("ab", kitchen.logs("a", "b"))
    forged = kitchen.soup("other", kitchen.logs("c", "d"), model="forged", known=False)
    kitchen.tracker.versions_kept["forged"] = [replace(forged, tags=version.tags)]
    found = kitchen.look(version.uri)
    assert uris(found, "ab")["ab"] == [(version.uri, Standing.THERE), (forged.uri, Standing.UNPROVEN)]
    assert "stockpot lineage --rebuild compares the weights" in found.notes[0]
    kitchen.tracker.versions_kept["forged"] = [replace(forged, tags=version.tags, model_id=version.model_id)]
    known, refused = rebuild_lineage(kitchen, Silent())
    assert (known.told, refused.told) == (Told.KNOWN, Told.ADDED), "its files are the soup's own"


def test_weights_that_are_others_than_the_files_beside_them_tell_are_refused(kitchen: Kitchen) -> None:
    version = kitchen.soup("ab", kitchen.logs("a", "b"), known=False)
    assert version.model_id is not None
    kitchen.tracker.models_kept[version.model_id].files["model.safetensors"] = b"others"
    (refused,) = rebuild_lineage(kitchen, Silent())
    assert (refused.told, refused.exit_code) == (Told.REFUSED, 8)
    assert named("others") in refused.fault
    assert kitchen.store.known_versions() == ()
    kitchen.tracker.models_kept[version.model_id].files["model.safetensors"] = b"ab"
    kitchen.tracker.versions_kept["birds"] = [
        replace(version, tags={**version.tags, tags.RECIPE: named("another recipe")})
    ]
    (refused,) = rebuild_lineage(kitchen, Silent())
    assert f"has the tag {tags.RECIPE} {named('another recipe')}" in refused.fault


def test_a_store_that_knows_nothing_is_filled_from_the_versions_once(kitchen: Kitchen) -> None:
    a, b, c = kitchen.logs("a", "b", "c")
    kitchen.soup("ab", [a, b], known=False)
    kitchen.soup("abc", [*kitchen.logs("ab"), c], known=False)
    kitchen.tracker.copy_version("models:/birds/1", "production")
    with_it = kitchen.look("models:/birds/2")
    assert "the store does not know models:/birds/2" in with_it.notes[0]
    assert {one.ingredient for one in with_it.up} == {named("ab"), named("c")}, "as far as its file tells"
    told = [(one.uri, one.told, one.copy_of) for one in rebuild_lineage(kitchen, Silent())]
    assert told == [
        ("models:/birds/1", Told.ADDED, None),
        ("models:/birds/2", Told.ADDED, None),
        ("models:/production/1", Told.COPY, "models:/birds/1"),
    ]
    assert {one.told for one in rebuild_lineage(kitchen, Silent())} == {Told.KNOWN, Told.COPY}
    found = kitchen.look("models:/birds/2")
    assert {one.ingredient for one in found.up} == {named("a"), named("b"), named("ab"), named("c")}
    assert kitchen.look(a.run.run_id).down == kitchen.look(named("a")).down
    assert len(kitchen.look(named("a")).down) == 2
    assert found.nodes[0].versions[0].standing is Standing.THERE


def test_the_store_tells_also_where_mlflow_does_not_answer(kitchen: Kitchen) -> None:
    version = kitchen.soup("ab", kitchen.logs("a", "b"))
    kitchen.tracker.down = True
    found = kitchen.look(version.uri)
    assert uris(found, "ab") == {"ab": [(version.uri, Standing.UNKNOWN)]}
    assert found.notes == ("which versions are still there is not known: MLflow does not answer",)
    with pytest.raises(Unreachable):
        kitchen.look("models:/birds/9")


def test_what_is_in_nothing_and_what_is_nothing_are_told_apart(kitchen: Kitchen) -> None:
    (a,) = kitchen.logs("a")
    found = kitchen.look(a.run.run_id)
    assert found.start == ()
    assert "run a (run-0) is in nothing that this store knows of" in found.notes[0]
    with pytest.raises(BadRequest, match="neither in the store nor a run"):
        kitchen.look("nobody")
    with pytest.raises(BadRequest, match="no models:/birds/7"):
        kitchen.look("models:/birds/7")
    strange = ModelVersion("birds", "1", a.run.run_id, None, {})
    kitchen.tracker.versions_kept["birds"] = [strange]
    with pytest.raises(BadRequest, match="is no soup, and nothing of its run was in one"):
        kitchen.look(strange.uri)
    kitchen.soup("ab", [a, *kitchen.logs("b")], model="soups")
    assert kitchen.look(strange.uri).start == (named("a"),)


def test_a_chain_deeper_than_any_stack_is_drawn_and_what_is_shared_only_once(kitchen: Kitchen) -> None:
    below, extra = kitchen.logs("0", "extra")
    depth = 1_200
    for number in range(1, depth + 1):
        recipe = Recipe.mean([below.checkpoint.digest, extra.checkpoint.digest])
        known = KnownVersion("birds", str(number), recipe.digest, named(str(number)), None, None)
        kitchen.store.remember_version(known, recipe)
        below = candidate(f"run {number}", str(number))
    lines = list(tree(kitchen.look(named("0"))))
    assert len(lines) == 3 + depth
    shared = list(tree(kitchen.look(named("extra"))))
    assert len(shared) == 3 + depth + depth - 1, "each soup once, and once again where it was told above"
    assert sum("(told above)" in line for line in shared) <= depth


def test_strangers_names_are_no_markup_in_a_chart(kitchen: Kitchen) -> None:
    a, b = kitchen.logs('a"]; click n0 "javascript:alert(1)', "b<script>")
    kitchen.soup("ab", [a, b])
    chart = list(mermaid(kitchen.look("models:/birds/1")))
    assert chart[0] == "flowchart TD"
    labels = [line.split('["')[1].removesuffix('"]') for line in chart if '["' in line]
    assert len(labels) == 3
    assert not any({'"', "<", ";["} & set(label.replace("<br/>", "")) for label in labels)
    assert sum("-->|0.5|" in line for line in chart) == 2


def test_a_copy_whose_origin_gave_its_number_to_another_is_not_that_other(kitchen: Kitchen) -> None:
    origin = kitchen.soup("ab", kitchen.logs("a", "b"))
    kitchen.tracker.copy_version(origin.uri, "production")
    kitchen.tracker.versions_kept["birds"].clear()
    other = kitchen.soup("cd", kitchen.logs("c", "d"))
    assert other.uri == origin.uri
    found = kitchen.look("models:/production/1")
    assert named("cd") not in found.start
    assert ("models:/production/1", Standing.THERE) in uris(kitchen.look(named("ab")), "ab")["ab"]
    assert "models:/production/1" not in dict(uris(kitchen.look(other.uri), "cd")["cd"])
