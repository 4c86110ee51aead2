"""A sweep logged by torch.save, as each tool lays it out: no pickle is run, and the way out is told."""

import argparse
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from stockpot.entities import ExclusionReason, SoupRequest, Sweep
from stockpot.soup import CONVERSION
from stockpot.testing.tiny import dense, weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.gathering.arrivals import Arrivals, read_all
from stockpot.workflow.gathering.gather import gather

if TYPE_CHECKING:
    from mlflow import MlflowClient

Log = Callable[[Path, dict[str, Tensor]], object]


def _lightning(folder: Path, state: dict[str, Tensor]) -> None:
    """As MLFlowLogger(log_model=True) lays it out; the module's attribute is ``model``."""
    at = folder / "model" / "checkpoints" / "epoch=3-step=8"
    at.mkdir(parents=True)
    inside = {f"model.{name}": tensor for name, tensor in state.items()}
    callbacks = {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5), "dirpath": at}}
    checkpoint = {"epoch": 3, "state_dict": inside, "callbacks": callbacks, "loops": {}, "lr_schedulers": []}
    hyper_parameters = {"hyper_parameters": argparse.Namespace(lr=0.1), "pytorch-lightning_version": "2.6.6"}
    torch.save(checkpoint | hyper_parameters, at / "epoch=3-step=8.ckpt")
    (at / "aliases.txt").write_text("['best']")


def _trainer(folder: Path, state: dict[str, Tensor]) -> None:
    """As transformers' Trainer lays it out without safetensors."""
    at = folder / "checkpoint-8"
    at.mkdir()
    torch.save(state, at / "pytorch_model.bin")
    parameters = [torch.nn.Parameter(tensor) for tensor in state.values()]
    torch.save(torch.optim.AdamW(parameters).state_dict(), at / "optimizer.pt")
    torch.save(argparse.Namespace(output_dir="x"), at / "training_args.bin")
    torch.save({"python": (3, tuple(range(625)), None)}, at / "rng_state.pth")


def _shards(folder: Path, state: dict[str, Tensor]) -> None:
    """As save_pretrained(safe_serialization=False) cuts weights."""
    homes = {name: f"pytorch_model-{i + 1:05}-of-{len(state):05}.bin" for i, name in enumerate(state)}
    for name, home in homes.items():
        torch.save({name: state[name]}, folder / home)
    index = {"metadata": {"total_size": 0}, "weight_map": homes}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _by_hand(folder: Path, state: dict[str, Tensor]) -> None:
    torch.save({"epoch": 3, "model_state_dict": state, "args": argparse.Namespace()}, folder / "best.pkl")


def _module(folder: Path, state: dict[str, Tensor]) -> None:
    model = dense()
    model.load_state_dict(state)
    torch.save(model, folder / "model.pt")


def _old(folder: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, folder / "model.pt", _use_new_zipfile_serialization=False)


def _plain(folder: Path, state: dict[str, Tensor]) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps(state))


def _parts(folder: Path, _: dict[str, Tensor]) -> None:
    (folder / "fsdp").mkdir()
    for rank in range(2):
        (folder / "fsdp" / f"__{rank}_0.distcp").write_bytes(b"part")


def _damaged(folder: Path, state: dict[str, Tensor]) -> None:
    _by_hand(folder, state)
    content = bytearray((folder / "best.pkl").read_bytes())
    content[content.index(next(iter(state.values())).numpy().tobytes()[:16])] ^= 1
    (folder / "best.pkl").write_bytes(content)


READ: list[Log] = [_lightning, _trainer, _shards, _by_hand]
EXCLUDED: dict[Log, tuple[ExclusionReason, str]] = {
    _module: (ExclusionReason.PICKLE, "of torch.nn.modules.container.Sequential"),
    _old: (ExclusionReason.PICKLE, "before torch 1.6"),
    _plain: (ExclusionReason.PICKLE, "a plain pickle"),
    _parts: (ExclusionReason.PICKLE, "several processes wrote a part each"),
    _damaged: (ExclusionReason.UNREADABLE, "another CRC"),
}


def name_of(log: Log) -> str:
    return str(getattr(log, "__name__"))  # noqa: B009 - for mypy, to which a callable has none


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


def _log(client: "MlflowClient", request: SoupRequest, folder: Path, log: Log, seed: int) -> str:
    parent = str(request.sweep)
    experiment = client.get_run(parent).info.experiment_id
    tags = {"mlflow.parentRunId": parent}
    run_id: str = client.create_run(experiment, run_name=name_of(log), tags=tags).info.run_id
    folder.mkdir()
    log(folder, dict(weights("dense", seed=seed)))
    client.log_artifacts(run_id, str(folder))
    client.set_terminated(run_id)
    return run_id


def _sweep(request: SoupRequest) -> Sweep:
    place = Workplace()
    fits = place.bench(request).fits
    prospects = gather(request, place.tracker, place.supply, fits, Silent())
    return read_all(Arrivals(prospects, place.supply, fits, Silent()))


def test_pickled_checkpoints_are_candidates_where_no_class_is_needed(
    tiny_sweep: SoupRequest, client: "MlflowClient", tmp_path: Path
) -> None:
    """A run that logged the same weights as safetensors is the same candidate."""
    runs = {
        _log(client, tiny_sweep, tmp_path / name_of(log), log, seed=10 + place): log
        for place, log in enumerate([*READ, *EXCLUDED])
    }
    (twin,) = (_log(client, tiny_sweep, tmp_path / "twin", log, 3) for log in READ[:1])
    sweep = _sweep(tiny_sweep)
    names = [candidate.run.name for candidate in sweep.candidates]
    assert sorted(names) == sorted([f"tune-{seed}" for seed in range(5)] + [name_of(log) for log in READ])
    found = {exclusion.run_id: exclusion for exclusion in sweep.exclusions}
    assert found.pop(twin).reason is ExclusionReason.DUPLICATE
    assert found.keys() == {run for run, log in runs.items() if log in EXCLUDED}
    for run, exclusion in found.items():
        reason, complaint = EXCLUDED[runs[run]]
        assert exclusion.reason is reason
        assert complaint in exclusion.detail
        assert exclusion.mend
    assert {exclusion.detail for exclusion in _sweep(tiny_sweep).exclusions} == {  # as it is remembered
        exclusion.detail for exclusion in sweep.exclusions
    }


@pytest.mark.slow
def test_the_lines_that_convert_a_run_make_it_a_candidate(
    tiny_sweep: SoupRequest, client: "MlflowClient", tmp_path: Path, mlflow_uri: str
) -> None:
    run = _log(client, tiny_sweep, tmp_path / "module", _module, seed=9)
    (exclusion,) = _sweep(tiny_sweep).exclusions
    assert exclusion.mend == CONVERSION
    _, *lines = exclusion.mend.splitlines()
    assert len(lines) <= 8
    code = "\n".join(lines).replace('"RUN ID", ...', repr(run)).replace("PATH", "model.pt")
    environment = {"MLFLOW_TRACKING_URI": mlflow_uri}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    sweep = _sweep(tiny_sweep)
    assert not sweep.exclusions
    assert run in {candidate.run.run_id for candidate in sweep.candidates}
