"""Whether a soup's version is there, was never there, or was withdrawn by a person."""

from dataclasses import replace

import pytest
import torch

from stockpot.entities import Digest, ModelVersion, OverlayRule, Publication, Recipe, digest_of_bytes, tags
from stockpot.errors import RegistryConflict
from stockpot.soup.overlay import Overlay
from stockpot.tracking import MemoryTracker
from stockpot.workflow.publishing.standing import standing, statistics_of

RECIPE = Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")])


def publication(model: str, experiment_id: str) -> Publication:
    return Publication(
        model=model,
        recipe=RECIPE,
        checkpoint=digest_of_bytes(b"soup"),
        ingredients=(),
        experiment_id=experiment_id,
        parent_run_id=None,
        name="soup",
        description="",
        tags={},
        params={},
        measurements=(),
        files={},
    )


def register(tracker: MemoryTracker, model: str, experiment_id: str) -> ModelVersion:
    """As another store does, with its note."""
    made = publication(model, experiment_id)
    run_id = tracker.create_run(made)
    version = tracker.create_version(run_id, tracker.create_model(run_id, made), made)
    tracker.note_version(version)
    return version


class Crowded(MemoryTracker):
    """Another store registers the soup right after the first look at its versions."""

    def reconcile(self, model: str, recipe: Digest) -> ModelVersion | None:
        found = super().reconcile(model, recipe)
        if not self.versions_kept:
            register(self, model, self.add_experiment("sweep"))
        return found


def test_a_soup_that_another_store_registers_in_this_very_moment_is_there_and_not_withdrawn() -> None:
    tracker = Crowded()
    experiment_id = tracker.add_experiment("sweep")
    version, why = standing("model", RECIPE.digest, None, [experiment_id], tracker)
    assert version is not None
    assert (version.uri, why) == ("models:/model/1", "")


def test_a_version_that_lost_the_recipes_tag_is_not_called_deleted() -> None:
    tracker = MemoryTracker()
    here = tracker.add_experiment("sweep")
    version = register(tracker, "model", here)
    tracker.versions_kept["model"] = [replace(version, tags={})]
    found, why = standing("model", RECIPE.digest, None, [here], tracker)
    assert found is None
    assert why.startswith("it is models:/model/1, which lost its tag stockpot.recipe. Set that to sha256:")


def test_a_note_counts_for_its_own_registered_model_and_for_its_sweeps_experiments() -> None:
    tracker = MemoryTracker()
    here, elsewhere = tracker.add_experiment("sweep"), tracker.add_experiment("elsewhere")
    register(tracker, "model", here)
    tracker.versions_kept.clear()

    def why(model: str, experiment_id: str) -> str:
        return standing(model, RECIPE.digest, None, [experiment_id], tracker)[1]

    assert "it was models:/model/1, and that version was deleted" in why("model", here)
    assert why("model", elsewhere) == ""
    for other in ("other", "mode", "model 1"):
        assert why(other, here) == ""


def test_a_versions_statistics_are_its_own_as_its_tag_tells() -> None:
    tracker = MemoryTracker()
    overlay = Overlay.of({"norm.running_mean": torch.ones(2)})
    ruled = replace(RECIPE, overlay=OverlayRule("train", 4, "bn/1", digest_of_bytes(b"data")))
    version = register(tracker, "model", tracker.add_experiment("sweep"))
    assert version.model_id is not None
    assert statistics_of(version, ruled, tracker) is None, "there are none"
    tracker.models_kept[version.model_id].files["stockpot-statistics"] = overlay.content
    assert statistics_of(version, RECIPE, tracker) is None, "it has no rule"
    told = replace(version, tags={**version.tags, tags.OVERLAY: overlay.digest})
    found = statistics_of(told, ruled, tracker)
    assert found is not None
    assert found.content == overlay.content
    with pytest.raises(RegistryConflict, match="stockpot-statistics of models:/model/1 is sha256:"):
        statistics_of(replace(version, tags={**version.tags, tags.OVERLAY: "sha256:0"}), ruled, tracker)
