"""A sweep whose runs were logged in several precisions."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from stockpot.cli import main
from stockpot.entities import Candidate, Dtype, ExclusionReason, SoupRequest, Sweep
from stockpot.testing.sweeps import plant_run
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.check import check_sweep
from stockpot.workflow.gathering.arrivals import Arrivals, read_all
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.walk import in_turn, walk


def _sweep(request: SoupRequest) -> Sweep:
    place = Workplace()
    fits = place.bench(request).fits
    prospects = gather(request, place.tracker, place.supply, fits, Silent())
    return read_all(Arrivals(prospects, place.supply, fits, Silent()))


@pytest.fixture
def mixed(tiny_sweep: SoupRequest, mlflow_uri: str, tmp_path: Path) -> SoupRequest:
    """Five runs in float32, two in bfloat16, one of these by torch.save."""
    client, parent = MlflowClient(mlflow_uri), str(tiny_sweep.sweep)
    experiment = client.get_run(parent).info.experiment_id
    halves = {name: tensor.bfloat16() for name, tensor in weights(seed=10).items()}
    plant_run(client, experiment, parent, "half", halves)
    tags = {"mlflow.parentRunId": parent}
    pickled = client.create_run(experiment, run_name="half by torch", tags=tags).info.run_id
    torch.save({name: tensor.bfloat16() for name, tensor in weights(seed=11).items()}, tmp_path / "model.pt")
    client.log_artifact(pickled, str(tmp_path / "model.pt"))
    client.set_terminated(pickled)
    return tiny_sweep


def _described(candidate: Candidate) -> tuple[str, str | None, tuple[str, ...] | None]:
    return candidate.run.name, candidate.source.cast, candidate.cast_from


def test_runs_of_another_precision_are_told_the_option_that_takes_them_in(mixed: SoupRequest) -> None:
    sweep = _sweep(mixed)
    assert {exclusion.run_name for exclusion in sweep.exclusions} == {"half", "half by torch"}
    for exclusion in sweep.exclusions:
        assert exclusion.reason is ExclusionReason.INCOMPATIBLE
        assert exclusion.mend.startswith("--dtype float32 ")
    place = Workplace()
    asked = replace(mixed, dtype=Dtype.FLOAT32)
    told = check_sweep(replace(asked, partial=True), place.tracker, place.supply, Silent())
    assert told.candidates == 7
    assert "--dtype float32" in told.command


@pytest.mark.slow
def test_a_soup_of_two_precisions_is_the_average_of_the_cast_weights(
    mixed: SoupRequest, tmp_path: Path
) -> None:
    request = replace(mixed, dtype=Dtype.BFLOAT16, methods=("uniform",), register="all", shifts=())  # type: ignore[arg-type]
    sweep = _sweep(request)
    cast = [(f"tune-{seed}", "BF16", ("F32",)) for seed in range(5)]
    assert list(map(_described, sweep.candidates)) == [
        *cast,
        ("half", None, None),
        ("half by torch", None, None),
    ]
    outcome = walk(request, Workplace(), in_turn, Silent())
    assert "cast from float32 to bfloat16, as asked: " in outcome.report.notes[-1]
    assert "tune-4" in outcome.report.notes[-1]
    [soup] = outcome.soups
    out = tmp_path / "soup.safetensors"
    for held in (Workplace().settings.cache_folder).glob("*.safetensors"):
        held.unlink()  # a rebuild has the runs' own files, and casts them again
    with pytest.raises(SystemExit, match="0"):
        main(["rebuild", soup.uri, "--out", str(out)])
    states = [weights(seed=seed) for seed in (*range(5), 10, 11)]
    for name, tensor in load_file(out).items():
        mean = sum(state[name].bfloat16().float() for state in states) * torch.tensor(1 / 7)
        assert torch.equal(tensor, torch.as_tensor(mean).bfloat16()), name
    again = walk(request, Workplace(), in_turn, Silent())
    assert again.evaluations == 0
    assert again.soups[0].uri == soup.uri


def test_numbers_too_large_exclude_their_run_alone(mixed: SoupRequest, mlflow_uri: str) -> None:
    client, parent = MlflowClient(mlflow_uri), str(mixed.sweep)
    experiment = client.get_run(parent).info.experiment_id
    large = weights(seed=12)
    large["0.weight"][0, 0] = 1e5
    plant_run(client, experiment, parent, "large", large)
    sweep = _sweep(replace(mixed, dtype=Dtype.FLOAT16))
    assert len(sweep.candidates) == 7
    [exclusion] = sweep.exclusions
    assert exclusion.run_name == "large"
    assert "too large for float16" in exclusion.detail
    assert "0.weight" in exclusion.detail
    assert "--dtype bfloat16" in exclusion.mend
