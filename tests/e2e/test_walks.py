"""Whole walks over sweeps of several kinds, with real MLflow, store and models, without Prefect."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from stockpot.documents import from_document
from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Ensemble,
    ExclusionReason,
    Packaged,
    Recipe,
    SoupOutcome,
    SoupRequest,
    SoupState,
)
from stockpot.errors import BadCheckpoint, BadRequest, RegistryConflict, StoreError, TrackingError
from stockpot.testing.tiny import dense, weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.trace import rebuild
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

Plant = Callable[[str, Mapping[str, Mapping[str, Tensor]]], SoupRequest]


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def plant(client: "MlflowClient", experiment: str, home: Path) -> Plant:
    def planted(kind: str, runs: Mapping[str, Mapping[str, Tensor]]) -> SoupRequest:
        from stockpot.testing.sweeps import plant_sweep

        return SoupRequest(
            model="tiny",
            sweep=plant_sweep(client, experiment, runs),
            task="stockpot.testing.tiny:TinyTask",
            task_args={"kind": kind, "n": "40"},
            margin=-100.0,
        )

    assert not home.exists()
    return planted


def _walk(request: SoupRequest) -> SoupOutcome:
    return walk(request, Workplace(), in_turn, Silent())


class Counted:
    """A SHA-256 that tells which digests it gave."""

    def __init__(self, sha256: Any, given: Counter[str]) -> None:
        self._sha256, self._given = sha256, given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sha256, name)

    def hexdigest(self) -> str:
        found: str = self._sha256.hexdigest()
        self._given[found] += 1
        return found


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each content was hashed, by its digest."""
    given: Counter[str] = Counter()

    def counted(make: Callable[..., Any]) -> Callable[..., Counted]:
        return lambda *arguments, **more: Counted(make(*arguments, **more), given)

    for name in ("sha256", "new"):  # the second is what hashlib.file_digest asks for
        monkeypatch.setattr(hashlib, name, counted(getattr(hashlib, name)))
    return given


@pytest.mark.slow
def test_a_soup_is_hashed_when_it_is_built_and_when_it_came_back_and_a_candidate_once_per_build(
    plant: Plant, hashes: Counter[str]
) -> None:
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    outcome = _walk(request)
    expected = {soup.checkpoint: 2 for soup in outcome.soups if soup.checkpoint}
    assert expected
    for (
        candidate
    ) in outcome.report.candidates:  # as they were logged, and in canonical form: here the same bytes
        builds = [row for row in outcome.report.rows if row.recipe.is_soup]
        used = sum(candidate.checkpoint in row.recipe.checkpoints for row in builds)
        expected[candidate.checkpoint] = 2 + used
    assert {digest: hashes[digest.removeprefix("sha256:")] for digest in expected} == expected


@pytest.mark.slow
def test_a_machine_with_a_cache_of_its_own_finds_the_outputs_that_another_one_shared(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_OUTPUTS", f"memory://{tmp_path.name}")
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    here = _walk(replace(request, methods=("greedy",))).report
    assert here.ensembles[0].label == "ensemble of the greedy soup"
    monkeypatch.setenv("STOCKPOT_CACHE", str(tmp_path / "elsewhere"))
    with monkeypatch.context() as alone:
        alone.delenv("STOCKPOT_OUTPUTS")
        report = _walk(replace(request, model="other", methods=("uniform",))).report
        assert "no row for the ensemble of the uniform soup" in report.notes[0]
        same = _walk(replace(request, model="other", methods=("greedy",))).report
        assert (same.ensembles, same.notes) == (here.ensembles, here.notes), "they are committed"
    there = _walk(replace(request, model="third", methods=("uniform",))).report
    assert there.ensembles[0].label == "ensemble of the uniform soup"
    assert there.notes == here.notes


@pytest.mark.slow
def test_the_greedy_ensemble_is_that_of_a_plain_loop_over_the_candidates_outputs(plant: Plant) -> None:
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(6)})
    request = replace(request, task_args={"kind": "dense", "n": "80"}, shifts=("shifted",))
    place = Workplace()
    outcome = walk(request, place, in_turn, Silent())
    bench = place.bench(request)
    x, y = bench.workspace.task.collate(list(bench.workspace.task.examples("validation")), "all")
    with torch.no_grad():
        outputs = [
            bench.module_with(Recipe.mean([point.checkpoint]))(x) for point in outcome.report.candidates
        ]

    def score(members: list[int]) -> float:
        mean = torch.stack([outputs[place] for place in members]).mean(dim=0)
        return math.fsum((mean.argmax(dim=1) == y).tolist()) / len(y)

    ranked = [score([place]) for place in range(6)]
    assert ranked == sorted(ranked, reverse=True)
    kept, best, steps = [0], ranked[0], []
    for place_ in range(1, 6):
        found = score([*kept, place_])
        steps.append((found, found >= best))
        if found >= best:
            kept, best = [*kept, place_], found
    assert {accepted for _, accepted in steps} == {True, False}

    search, row = outcome.report.selections[-1], outcome.report.ensembles[-1]
    members = [outcome.report.candidates[place_].checkpoint for place_ in kept]
    assert search.method == row.label == "greedy ensemble"
    assert [(step.score, step.kept) for step in search.steps[6:]] == steps
    assert row.recipe == search.recipe == Ensemble.of(members)
    assert (row.scores["validation"], row.inference_cost) == (best, len(kept))
    assert row.versus_best.keys() == {"test", "shifted", MEAN_OF_SHIFTS}
    assert place.store.recipe(row.recipe.digest) == row.recipe
    assert row.recipe.digest not in {soup.recipe for soup in outcome.soups}
    again = walk(request, place, in_turn, Silent())
    assert (again.evaluations, again.report) == (0, outcome.report)


@pytest.mark.parametrize(
    "kind", ["tied", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("conv", "attention"))]
)
def test_models_of_every_kind_are_souped_and_registered(plant: Plant, kind: str) -> None:
    import mlflow.pytorch
    from safetensors.torch import load_file

    outcome = _walk(plant(kind, {f"tune-{seed}": weights(kind, seed=seed) for seed in range(3)}))
    assert outcome.soups
    for soup in outcome.soups:
        assert soup.checkpoint
        state = mlflow.pytorch.load_model(soup.uri).state_dict()
        built = load_file(Workplace().cache.path(soup.checkpoint))
        assert all(torch.equal(state[name], tensor) for name, tensor in built.items())


@pytest.mark.slow
def test_half_precision_weights_stay_half_precision_in_the_soups_file(plant: Plant) -> None:
    import mlflow.pytorch
    from safetensors.torch import load_file

    runs = {
        f"tune-{seed}": {name: tensor.half() for name, tensor in weights("dense", seed=seed).items()}
        for seed in range(3)
    }
    outcome = _walk(plant("dense", runs))
    assert outcome.soups
    for soup in outcome.soups:
        assert soup.checkpoint
        tensors = Workplace().cache.checkpoint(soup.checkpoint).tensors
        assert {tensor.dtype for tensor in tensors} == {"F16"}
        built = load_file(Workplace().cache.path(soup.checkpoint))
        state = mlflow.pytorch.load_model(soup.uri).state_dict()
        assert all(torch.equal(state[name], tensor.float()) for name, tensor in built.items())


@pytest.mark.slow
def test_a_wrapped_model_keeps_its_own_names_where_it_is_registered(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pytorch

    (tmp_path / "wrapped_task.py").write_text(
        "import torch\n"
        "from stockpot.testing.tiny import TinyTask, dense\n"
        "class Wrapped(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = dense()\n"
        "    def forward(self, x):\n"
        "        return self.model(x)\n"
        "class WrappedTask(TinyTask):\n"
        "    def model(self):\n"
        "        return Wrapped()\n"
    )
    monkeypatch.chdir(tmp_path)
    runs = {
        f"tune-{seed}": {f"model.{name}": tensor for name, tensor in weights("dense", seed=seed).items()}
        for seed in range(3)
    }
    outcome = _walk(replace(plant("dense", runs), task="wrapped_task:WrappedTask"))
    state = mlflow.pytorch.load_model(outcome.soups[0].uri).state_dict()
    assert all(name.startswith("model.") for name in state)


def test_what_real_sweeps_hold_is_excluded_by_name(
    plant: Plant, client: "MlflowClient", experiment: str, tmp_path: Path
) -> None:
    from stockpot.testing.sweeps import plant_run

    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    where = found.experiment_id
    parent = request.sweep or ""
    nan = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights("dense").items()}
    norm = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.ones(2)}
    plant_run(client, where, parent, "nan", nan)
    plant_run(client, where, parent, "norm", {**weights("dense", seed=9), **norm})
    plant_run(client, where, parent, "twin", weights("dense", seed=1))
    plant_run(client, where, parent, "other", weights("conv"))
    two = plant_run(client, where, parent, "two files", weights("dense", seed=5))
    (tmp_path / "last.safetensors").write_bytes(b"")
    client.log_artifact(two, str(tmp_path / "last.safetensors"))
    failed = plant_run(client, where, parent, "failed", weights("dense", seed=6))
    client.set_terminated(failed, "FAILED")
    outcome = _walk(request)
    assert {e.run_name: e.reason for e in outcome.report.exclusions} == {
        "nan": ExclusionReason.NOT_FINITE,
        "norm": ExclusionReason.INCOMPATIBLE,
        "twin": ExclusionReason.DUPLICATE,
        "other": ExclusionReason.INCOMPATIBLE,
        "two files": ExclusionReason.AMBIGUOUS_WEIGHTS,
        "failed": ExclusionReason.NOT_FINISHED,
    }
    assert len(outcome.report.candidates) == 3


def test_a_model_that_cannot_be_exported_is_registered_as_code_and_weights_and_says_so(
    plant: Plant, client: "MlflowClient", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    (tmp_path / "branching_task.py").write_text(
        "import torch\n"
        "from stockpot.testing.tiny import TinyTask, dense\n"
        "class Branching(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.body = dense()\n"
        "    def forward(self, x):\n"
        "        return self.body(x) if x.sum().item() > -1e9 else self.body(-x)\n"
        "class BranchingTask(TinyTask):\n"
        "    def model(self):\n"
        "        return Branching()\n"
    )
    monkeypatch.chdir(tmp_path)
    runs = {
        f"tune-{seed}": {f"body.{name}": tensor for name, tensor in weights("dense", seed=seed).items()}
        for seed in range(3)
    }
    outcome = _walk(replace(plant("dense", runs), task="branching_task:BranchingTask"))
    soup = outcome.soups[0]
    name, version = soup.uri.removeprefix("models:/").split("/")
    assert "code plus safetensors" in (client.get_model_version(name, version).description or "")
    example = torch.randn(7, 8)
    place = Workplace()
    bench = place.bench(outcome.report.request)
    recipe = next(row.recipe for row in outcome.report.rows if row.recipe.digest == soup.recipe)
    with torch.inference_mode():
        expected = bench.module_with(recipe)(example)
    predicted = torch.as_tensor(mlflow.pyfunc.load_model(soup.uri).predict(example.numpy()))
    torch.testing.assert_close(predicted, expected)


def test_rebuild_refuses_an_altered_artifact_and_writes_nothing(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    outcome = _walk(plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)}))
    for file in (tmp_path / "artifacts").rglob("model.safetensors"):
        if "models" not in file.parts:
            save_file(weights("dense", seed=99), file, metadata={"format": "pt"})
    monkeypatch.setenv("STOCKPOT_HOME", str(tmp_path / "a-year-later"))
    place, out = Workplace(), tmp_path / "soup.safetensors"
    with pytest.raises(BadRequest, match="is a folder"):
        rebuild(outcome.soups[0].uri, place.tracker, place.supply, tmp_path)
    with pytest.raises(BadCheckpoint, match=r"cannot be made again: .* is not what it was") as told:
        rebuild(outcome.soups[0].uri, place.tracker, place.supply, out)
    assert "from a backup" in told.value.mend
    assert not out.exists()


@pytest.mark.slow
def test_rebuild_goes_by_the_version_and_not_by_a_document_that_was_changed(
    plant: Plant, client: "MlflowClient", tmp_path: Path
) -> None:
    outcome = _walk(plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)}))
    client.set_model_version_tag("tiny", "1", "stockpot.checkpoint", f"sha256:{'0' * 64}")
    place, out = Workplace(), tmp_path / "soup.safetensors"
    with pytest.raises(RegistryConflict, match=f"is sha256:{'0' * 64}, its stockpot.json tells of sha256:"):
        rebuild(outcome.soups[0].uri, place.tracker, place.supply, out)
    assert not out.exists()


def test_an_export_of_other_weights_becomes_no_version(
    plant: Plant, client: "MlflowClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    place, other = Workplace(), dense()
    package = place.tracker.package

    def wrong(*args: Any, **kwargs: Any) -> Packaged:
        packaged = package(*args, **kwargs)
        exported = torch.export.export(other, (torch.randn(2, 8),))
        torch.export.save(exported, args[3] / "data" / "model.pt2")
        return packaged

    monkeypatch.setattr(place.tracker, "package", wrong)
    with pytest.raises(RegistryConflict, match="differs in the exported model"):
        walk(request, place, in_turn, Silent())
    assert client.search_model_versions("name='tiny'") == []


def test_a_soup_whose_sums_overflow_is_reported_and_not_registered(
    plant: Plant, client: "MlflowClient", capsys: pytest.CaptureFixture[str]
) -> None:
    from stockpot.cli.printing import show_outcome

    runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)}
    for tensors in runs.values():
        tensors["2.bias"] = torch.full_like(tensors["2.bias"], 3e38)
    outcome = _walk(replace(plant("dense", runs), methods=("uniform",)))
    assert [(soup.state, soup.uri) for soup in outcome.soups] == [(SoupState.LEFT_OUT, "")]
    assert client.search_model_versions("name='tiny'") == []
    assert math.isnan(outcome.report.rows[1].scores["validation"])
    show_outcome(outcome, as_json=True)
    assert from_document(SoupOutcome, json.loads(capsys.readouterr().out)).registered == ()
    show_outcome(outcome, as_json=False)
    assert "not shown to be better" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("data/model.pt2", "MLmodel", "stockpot.json")
        ),
    ],
)
@pytest.mark.parametrize("lost", [False, True], ids=["changed", "lost"])
def test_an_upload_that_comes_back_changed_becomes_no_version(
    plant: Plant, client: "MlflowClient", monkeypatch: pytest.MonkeyPatch, file: str, *, lost: bool
) -> None:
    from safetensors.torch import save_file

    other = dense()
    other.load_state_dict(weights("dense", seed=99))

    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    place = Workplace()
    download = place.tracker.download

    def changed(model_id: str, into: Path) -> Path:
        folder = download(model_id, into)
        if lost:
            (folder / file).unlink()
        elif file in ("MLmodel", "stockpot.json"):
            (folder / file).write_text("{}")
        elif file == "data/model.pt2":
            torch.export.save(torch.export.export(other, (torch.randn(2, 8),)), folder / file)
        else:
            save_file(other.state_dict(), folder / file, metadata={"format": "pt"})
        return folder

    monkeypatch.setattr(place.tracker, "download", changed)
    with pytest.raises(RegistryConflict, match=f"something else came back\n  - {file} is") as raised:
        walk(request, place, in_turn, Silent())
    assert len(raised.value.faults) == 1
    assert client.search_model_versions("name='tiny'") == []
    assert _statuses(client) == ["FAILED"]


@pytest.mark.slow
def test_a_version_whose_answer_is_lost_is_adopted_and_its_run_is_no_failure(
    plant: Plant, client: "MlflowClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    request = replace(request, methods=("uniform",))
    place = Workplace()
    create = place.tracker.create_version

    def lost(*args: Any) -> Any:
        create(*args)
        raise TrackingError("no answer came")

    monkeypatch.setattr(place.tracker, "create_version", lost)
    with pytest.raises(TrackingError, match="no answer"):
        walk(request, place, in_turn, Silent())
    assert [soup.adopted for soup in _walk(request).soups] == [True]
    assert _statuses(client) == ["FINISHED"]


@pytest.mark.slow
def test_a_soup_that_other_processes_evict_while_it_is_registered_is_registered_all_the_same(
    plant: Plant, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    monkeypatch.setenv("STOCKPOT_HOME", str(home.with_name("undisturbed")))
    expected = [soup.checkpoint for soup in _walk(replace(request, model="other")).soups]
    monkeypatch.setenv("STOCKPOT_HOME", str(home))
    place = Workplace()

    def evicting(step: Callable[..., Any]) -> Callable[..., Any]:
        def work(*args: Any, **kwargs: Any) -> Any:
            for file in place.cache.folder.glob("*.safetensors"):
                file.unlink()
            return step(*args, **kwargs)

        return work

    for name in ("create_run", "package", "upload", "download"):
        monkeypatch.setattr(place.tracker, name, evicting(getattr(place.tracker, name)))
    soups = walk(request, place, in_turn, Silent()).soups
    assert [soup.checkpoint for soup in soups] == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "expected"), [("upload", {"1": None}), ("create_version", {"1": None, "2": "1"})]
)
def test_of_two_stores_that_register_one_soup_at_once_a_later_version_is_a_duplicate(
    plant: Plant,
    client: "MlflowClient",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    expected: Mapping[str, str | None],
) -> None:
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    request = replace(request, methods=("uniform",))
    place = Workplace()
    passed_on = getattr(place.tracker, step)
    theirs = list[SoupOutcome]()

    def late(*args: Any) -> Any:
        with monkeypatch.context() as colleague:
            colleague.setenv("STOCKPOT_HOME", str(tmp_path / "colleague"))
            theirs.append(_walk(request))
        return passed_on(*args)

    monkeypatch.setattr(place.tracker, step, late)
    outcomes = [walk(request, place, in_turn, Silent()), *theirs]
    assert [[(s.uri, s.adopted) for s in o.soups] for o in outcomes] == [
        [("models:/tiny/1", True)],
        [("models:/tiny/1", False)],
    ]
    versions = client.search_model_versions("name='tiny'")
    assert {str(v.version): v.tags.get("stockpot.duplicate_of") for v in versions} == expected


def test_whoever_was_overtaken_while_it_packaged_uploads_nothing(
    plant: Plant, client: "MlflowClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    request = plant("dense", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)})
    request = replace(request, methods=("uniform",))
    place = Workplace()
    package, uploads = place.tracker.package, list[str]()

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        if kwargs["model_id"] is None:  # the rehearsal, before anything is registered
            return package(*args, **kwargs)
        (row,) = place.store.registrations(request.model)
        held = place.store.take_lease(row.lease, owner="another", seconds=1)
        place.store.release_lease(row.lease, owner=held.owner)
        return package(*args, **kwargs)

    monkeypatch.setattr(place.tracker, "package", overtaken)
    monkeypatch.setattr(place.tracker, "upload", lambda model_id, _: uploads.append(model_id))
    with pytest.raises(StoreError, match="took over"):
        walk(request, place, in_turn, Silent())
    assert uploads == []
    assert client.search_model_versions("name='tiny'") == []
    assert _statuses(client) == ["RUNNING"], "the run is the other's, who goes on with it"


def _statuses(client: "MlflowClient") -> list[str]:
    """Of the soups' runs."""
    experiment = client.get_experiment_by_name("sweeps")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], "tags.`stockpot.role` = 'soup'")
    return [run.info.status for run in runs]
