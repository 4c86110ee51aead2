"""Soups in adapters that forget: versions with what lies beside them, which the store knows or does not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stockpot.documents import from_document, to_document
from stockpot.entities import (
    Candidate,
    Digest,
    KnownVersion,
    Lineage,
    ModelVersion,
    Publication,
    Recipe,
    Snapshot,
    SoupReport,
    digest_of_bytes,
    tags,
)
from stockpot.errors import Unreachable
from stockpot.store import MemoryStore
from stockpot.testing.store_values import candidate, report
from stockpot.tracking import MemoryTracker
from stockpot.workflow.lineage.family import lineage


def named(name: str) -> Digest:
    return digest_of_bytes(name.encode())


class Unplugged(MemoryTracker):
    """MLflow, which may stop answering."""

    down = False

    def soup_versions(self) -> tuple[ModelVersion, ...]:
        if self.down:
            raise Unreachable("MLflow does not answer", mend="start it")
        return super().soup_versions()

    def version(self, uri: str) -> ModelVersion:
        if self.down:
            raise Unreachable("MLflow does not answer", mend="start it")
        return super().version(uri)


@dataclass
class Kitchen:
    """Adapters that forget, and a sweep whose runs are named after what they logged."""

    tracker: Unplugged = field(default_factory=Unplugged)
    store: MemoryStore = field(default_factory=MemoryStore)

    def logs(self, *names: str) -> list[Candidate]:
        """A run for each, whose checkpoint has its name."""
        experiment = self.tracker.add_experiment("sweep")
        runs = [self.tracker.runs_kept[self.tracker.add_run(experiment, name)].run for name in names]
        return [
            replace(
                candidate(run.run_id, run.name), run=run, source=replace(candidate(run.run_id, "").source)
            )
            for run in runs
        ]

    def soup(
        self,
        name: str,
        ingredients: Sequence[Candidate],
        *,
        model: str = "birds",
        known: bool = True,
        told: SoupReport | None = None,
    ) -> ModelVersion:
        """A version whose weights are called so, which the store knows or does not. `told`: its report, on
        the equal average of these ingredients.
        """
        recipe = Recipe.mean([one.checkpoint.digest for one in ingredients])
        found = told or report(recipe, sweep="parent")
        snapshot = Snapshot(recipe, named(name), tuple(ingredients), found, {})
        publication = Publication(
            model=model,
            recipe=recipe,
            checkpoint=named(name),
            ingredients=tuple(ingredients),
            experiment_id=self.tracker.add_experiment("sweep"),
            parent_run_id=None,
            name=name,
            description="",
            tags={tags.METHODS: "greedy"},
            params={},
            measurements=(),
            files={},
        )
        run_id = self.tracker.create_run(publication)
        model_id = self.tracker.create_model(run_id, publication)
        self.tracker.models_kept[model_id].files |= {
            "stockpot.json": json.dumps(to_document(snapshot)).encode(),
            "model.safetensors": name.encode(),
        }
        version = self.tracker.create_version(run_id, model_id, publication)
        if known:
            one = KnownVersion(
                version.name, version.version, recipe.digest, named(name), run_id, version.model_id
            )
            self.store.remember_version(one, recipe, ingredients, sweep="parent")
            self.store.commit_report(
                replace(snapshot.report, request=replace(snapshot.report.request, model=model))
            )
        return version

    def look(self, name: str) -> Lineage:
        found = lineage(name, self)
        assert from_document(Lineage, to_document(found)) == found, "programs read it"
        return found
