"""One odd run never ends a sweep: it is excluded with its reason and its mend, and the rest is souped."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from stockpot.cli import main
from stockpot.entities import ExclusionReason, SoupRequest, Sweep
from stockpot.errors import BadRequest, NothingToSoup, TrackingError
from stockpot.ports import Watcher
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import TinyTask, dense, weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.gathering.arrivals import Arrivals, read_all
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.walk import in_turn, walk

Damage = Callable[[Path], object]


def _to_missing(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nowhere.safetensors")


def _to_a_strangers_file(file: Path) -> None:
    secret = file.parent.parent / "secret.txt"
    secret.write_text("password")
    file.unlink()
    file.symlink_to(secret)


def _to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folders_in_a_circle(file: Path) -> None:
    file.unlink()
    (file.parent / "again").symlink_to(file.parent, target_is_directory=True)


def _newline(file: Path) -> None:
    file.rename(file.with_name("best\nmodel.safetensors"))


def _no_text(file: Path) -> None:
    file.rename(os.fsdecode(os.fsencode(file.parent) + b"/model\xff.safetensors"))


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def _longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def _not_finite(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4] + struct.pack("<f", float("nan")))


def _integers(file: Path) -> None:
    file.write_bytes(save({**weights(seed=9), "steps": torch.tensor(7)}))


DAMAGES: list[Damage] = [
    _to_missing,
    _to_a_strangers_file,
    _to_itself,
    _pipe,
    _folders_in_a_circle,
    _newline,
    _no_text,
    _empty,
    _torn,
    _not_finite,
    _integers,
]


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def _sweep(request: SoupRequest, watch: Watcher | None = None) -> Sweep:
    place = Workplace()
    fits = place.bench(request).fits
    prospects = gather(request, place.tracker, place.supply, fits, watch or Silent())
    return read_all(Arrivals(prospects, place.supply, fits, Silent()))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_whatever_lies_among_a_runs_artifacts_only_that_run_is_excluded(
    tiny_sweep: SoupRequest, tmp_path: Path, damage: Damage
) -> None:
    run, *others = Workplace().tracker.runs(tiny_sweep.selector)
    damage(tmp_path / "artifacts" / run.run_id / "artifacts" / "model.safetensors")
    sweep = _sweep(tiny_sweep)
    assert [candidate.run for candidate in sweep.candidates] == others
    (exclusion,) = sweep.exclusions
    assert exclusion.run_id == run.run_id
    assert exclusion.detail
    assert exclusion.mend
    assert "password" not in exclusion.detail


def test_a_name_with_a_newline_is_read_where_it_is_the_parent_folders(
    tiny_sweep: SoupRequest, tmp_path: Path
) -> None:
    run = next(Workplace().tracker.runs(tiny_sweep.selector))
    (tmp_path / "artifacts" / run.run_id / "artifacts" / "notes\n.txt").write_text("hello")
    assert len(_sweep(tiny_sweep).candidates) == 5


@pytest.mark.parametrize("change", [Path.unlink, _torn, _longer])
def test_a_file_that_changes_before_its_download_excludes_its_run(
    tiny_sweep: SoupRequest, tmp_path: Path, change: Damage
) -> None:
    place = Workplace()
    fits = place.bench(tiny_sweep).fits
    prospects = gather(tiny_sweep, place.tracker, place.supply, fits, Silent())
    odd = prospects.found[2].run.run_id
    change(tmp_path / "artifacts" / odd / "artifacts" / "model.safetensors")
    sweep = read_all(Arrivals(prospects, place.supply, fits, Silent()))
    (exclusion,) = sweep.exclusions
    assert exclusion.run_id == odd
    assert exclusion.mend


def test_a_run_that_only_holds_others_together_is_told_as_a_group_with_nothing_to_mend(
    tiny_sweep: SoupRequest, mlflow_uri: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    leaf = client.get_run(next(Workplace().tracker.runs(tiny_sweep.selector)).run_id)
    tags = {"mlflow.parentRunId": tiny_sweep.sweep}
    group = client.create_run(leaf.info.experiment_id, run_name="group", tags=tags).info.run_id
    client.set_terminated(group)
    client.set_tag(leaf.info.run_id, "mlflow.parentRunId", group)
    sweep = _sweep(tiny_sweep)
    assert len(sweep.candidates) == 5
    (exclusion,) = sweep.exclusions
    assert (exclusion.run_id, exclusion.reason, exclusion.mend) == (group, ExclusionReason.GROUP, "")
    assert exclusion.detail == "it has no weights of its own, and 1 run below it"


@pytest.mark.parametrize("location", ["foo://me:S3cret@host/x", "mlflow-artifacts:/x"])
def test_runs_whose_artifacts_lie_where_nobody_can_read_are_excluded_and_the_rest_is_souped(
    tiny_sweep: SoupRequest, mlflow_uri: str, location: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    tags = {"mlflow.parentRunId": tiny_sweep.sweep}
    odd = client.create_run(client.create_experiment("elsewhere", location), tags=tags).info.run_id
    client.set_terminated(odd)
    sweep = _sweep(tiny_sweep)
    assert len(sweep.candidates) == 5
    (exclusion,) = sweep.exclusions
    assert (exclusion.run_id, exclusion.reason) == (odd, ExclusionReason.NOT_READ)
    assert "--filter" in exclusion.mend


def test_of_a_parent_that_nobody_ended_it_is_said_that_more_runs_may_come(
    tiny_sweep: SoupRequest, mlflow_uri: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    client.update_run(tiny_sweep.sweep or "", status="RUNNING")
    leaf = client.get_run(next(Workplace().tracker.runs(tiny_sweep.selector)).run_id)
    tags = {"mlflow.parentRunId": tiny_sweep.sweep}
    group = client.create_run(leaf.info.experiment_id, run_name="group", tags=tags).info.run_id
    client.set_tag(leaf.info.run_id, "mlflow.parentRunId", group)
    told = Told()
    assert len(_sweep(tiny_sweep, told).candidates) == 5
    (note,) = told.lines
    assert note.startswith(
        f"the sweep's parent run, sweep ({tiny_sweep.sweep}), is RUNNING: more runs may come"
    )
    client.update_run(leaf.info.run_id, status="RUNNING")
    with pytest.raises(BadRequest, match="not finished: 1 of the sweep's 6 runs"):
        _sweep(tiny_sweep)


def test_a_disk_without_room_ends_the_walk(tiny_sweep: SoupRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stockpot.tracking.mlflow_weights.download", full)
    with pytest.raises(TrackingError, match="No space left"):
        _sweep(tiny_sweep)


@pytest.mark.slow
def test_tied_tensors_that_differ_exclude_their_run_and_the_rest_is_souped(
    mlflow_uri: str, experiment: str, home: Path
) -> None:
    from mlflow import MlflowClient

    assert not home.exists()
    odd = weights("tied", seed=9)
    odd["head.weight"] = odd["head.weight"] + torch.ones(16, 8)
    runs = {"untied": odd, **{f"good{seed}": weights("tied", seed=seed) for seed in range(3)}}
    request = SoupRequest(
        model="tied",
        task="stockpot.testing.tiny:TinyTask",
        task_args={"kind": "tied", "n": "40"},
        sweep=plant_sweep(MlflowClient(mlflow_uri), experiment, runs),
    )
    outcome = walk(request, Workplace(), in_turn, Silent())
    (exclusion,) = outcome.report.exclusions
    assert (exclusion.run_name, exclusion.reason) == ("untied", ExclusionReason.INCOMPATIBLE)
    assert "embed.weight and head.weight are one tensor in the model, but hold different values" in (
        exclusion.detail
    )
    assert exclusion.mend
    assert {candidate.run_name for candidate in outcome.report.candidates} == {"good0", "good1", "good2"}


class Counting(TinyTask):
    """Its model counts its steps in a buffer."""

    def model(self) -> torch.nn.Module:
        """With the buffer."""
        module = dense()
        module.register_buffer("num_updates", torch.tensor(0))
        return module


def test_integers_that_differ_are_named_with_both_values(
    mlflow_uri: str, experiment: str, home: Path
) -> None:
    from mlflow import MlflowClient

    assert not home.exists()
    runs = {f"r{i}": {**weights(seed=i), "num_updates": torch.tensor(100 * i)} for i in range(3)}
    request = SoupRequest(
        model="counting",
        task=f"{__name__}:Counting",
        sweep=plant_sweep(MlflowClient(mlflow_uri), experiment, runs),
    )
    with pytest.raises(NothingToSoup) as caught:
        _sweep(request)
    assert "num_updates holds 100 instead of 0" in str(caught.value)
    assert "persistent=False" in caught.value.mend


@pytest.mark.slow
def test_runs_of_scikit_learn_are_counted_in_one_line_without_advice(
    tiny_sweep: SoupRequest, mlflow_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As MLflow's own documentation logs them, beside the sweep's."""
    import mlflow
    from sklearn.linear_model import LogisticRegression

    mlflow.set_experiment("sweeps")
    forms = {"pickled": "cloudpickle", "newer": "skops"}
    for name, form in forms.items():
        with mlflow.start_run(run_name=name, tags={"mlflow.parentRunId": tiny_sweep.sweep or ""}):
            model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
            mlflow.sklearn.log_model(model, name="model", serialization_format=form, pip_requirements=[])
    task = ["--task", tiny_sweep.task, "--task-arg", "n=80"]
    with pytest.raises(SystemExit, match="0"):
        main(["soup", "--sweep", tiny_sweep.sweep or "", "--model", "tiny", *task, "--dry-run"])
    told = " ".join(capsys.readouterr().out.split())
    assert "5 candidates" in told
    assert "2 runs a model of another library: it logged no torch weights, but a model of sklearn: " in told
    assert "To mend it" not in told
