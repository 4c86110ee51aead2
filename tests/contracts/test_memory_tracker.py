"""The tracker in memory keeps what every tracker promises."""

from collections.abc import Sequence

import pytest

from stockpot.errors import NotPermitted
from stockpot.testing.tracker_backend import Backend, Logged, plant, publication_of
from stockpot.testing.tracker_contract import TrackerContract
from stockpot.tracking import MemoryTracker


class MemoryBackend(MemoryTracker):
    @property
    def tracker(self) -> MemoryTracker:
        return self

    def logged(self, run_id: str) -> Logged:
        kept = self.runs_kept[run_id]
        return Logged(
            name=kept.run.name,
            status=kept.run.status,
            parent=kept.run.tags.get("mlflow.parentRunId"),
            tags=kept.run.tags,
            params=kept.run.params,
            metrics=[(m.name, m.value) for m in kept.measurements],
            datasets=sorted({m.split for m in kept.measurements}),
            inputs=sorted(kept.inputs),
            outputs=sorted(kept.outputs),
            files=sorted(kept.files),
        )

    def content(self, run_id: str, path: str) -> bytes:
        return self.runs_kept[run_id].files[path]

    def everything(self, experiment_id: str) -> Sequence[str]:
        kept = [k for k in self.runs_kept.values() if k.run.experiment_id == experiment_id]
        runs = [f"run {k.run.name}" for k in kept]
        artifacts = [f"artifact {k.run.name}/{path}" for k in kept for path in k.files]
        return sorted([*runs, *artifacts, *(f"model {name}" for name in self.versions_kept)])

    def versions(self, model: str) -> Sequence[str]:
        return [version.version for version in self.versions_kept.get(model, [])]


class TestMemoryTracker(TrackerContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return MemoryBackend()


def test_a_tracker_that_may_not_be_written_refuses_every_write() -> None:
    backend = MemoryBackend()
    sweep = plant(backend, 2)
    publication = publication_of(backend, sweep)
    backend.writable = False
    with pytest.raises(NotPermitted):
        backend.prove_writable("model", sweep.experiment_id)
    with pytest.raises(NotPermitted):
        backend.create_run(publication)
