"""Sweeps of models with BatchNorm, which an average of statistics would ruin: from training to an answer."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load, load_file
from tests.e2e.batch_norm_task import SIZES, SmallResNet, pictures
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from stockpot import SoupRequest, calls
from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import OverlayRule, Register, SoupOutcome, SoupState, digest_of_bytes, tags
from stockpot.errors import BadRequest
from stockpot.testing.listener import Listener
from stockpot.testing.sweeps import plant_sweep
from stockpot.wiring import Workplace
from stockpot.workflow.trace import rebuild

if TYPE_CHECKING:
    from mlflow import MlflowClient

SWEEP = ((0.05, 0.0), (0.05, 0.02), (0.2, 0.01), (0.6, 0.0))
"""Learning rates and weight decays. Before a BatchNorm, weights of any size give one answer; these differ in
size, so that the average of the variances is far from the variance of the average.
"""
ASK = """
import sys, json, mlflow, torch
uri, file = sys.argv[1:]
inputs = torch.load(file)
model = mlflow.pytorch.load_model(uri)
model = model.module() if hasattr(model, "module") else model
print(json.dumps({
    "torch": model(inputs).tolist(),
    "pyfunc": mlflow.pyfunc.load_model(uri).predict(inputs.numpy()).tolist(),
}))
"""


def fit(module: nn.Module, rate: float, decay: float, epochs: int, seed: int) -> nn.Module:
    inputs, labels = pictures("train")
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    module.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(inputs), generator=order), 64):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(module(inputs[batch]), labels[batch]))
            optimizer.step()
    return module


def accuracy(module: nn.Module, split: str) -> float:
    inputs, labels = pictures(split)
    with torch.inference_mode():
        return float((module.eval()(inputs).argmax(1) == labels).double().mean())


def average(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    means = {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}
    return {name: mean.to(states[0][name].dtype) for name, mean in means.items()}


@pytest.fixture(scope="module")
def states() -> list[dict[str, Tensor]]:
    """Of a sweep from one start. Not all are trained equally long: their counters differ."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        start = fit(SmallResNet(), 0.05, 0.0, 5, seed=0).state_dict()
        found = []
        for seed, (rate, decay) in enumerate(SWEEP, start=1):
            module = SmallResNet()
            module.load_state_dict(start)
            found.append(fit(module, rate, decay, 4 + seed % 2, seed).state_dict())
    return found


@pytest.fixture
def request_(
    states: list[dict[str, Tensor]],
    mlflow_uri: str,
    experiment: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> SoupRequest:
    from mlflow import MlflowClient

    assert not home.exists()
    client = MlflowClient(mlflow_uri)
    runs = {f"tune-{place}": state for place, state in enumerate(states)}
    return SoupRequest(
        model="waves",
        sweep=plant_sweep(client, experiment, runs),
        task="tests.e2e.batch_norm_task:Waves",
        register=Register.ALL,
    )


@pytest.mark.slow
def test_a_soup_that_collapses_with_averaged_statistics_is_registered_with_its_own_and_rebuilt_to_the_bit(
    request_: SoupRequest,
    states: list[dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = Listener()
    outcome = calls.soup(request_, flow=False, watch=listener)
    told = "the model has BatchNorm: each soup gets statistics on split train (n=512), estimated anew"
    assert listener.said.count(told) == 1
    best, *soups = outcome.report.rows
    [uniform] = [row for row in soups if "uniform" in row.methods]
    collapsed, ours = SmallResNet(), SmallResNet()
    for module in (collapsed, ours):
        module.load_state_dict(average(states))
    update_bn(torch.split(pictures("train")[0], 64), ours)
    assert accuracy(collapsed, "test") < best.scores["test"] - 0.1
    assert uniform.scores["test"] > best.scores["test"] - 0.02
    assert uniform.scores["test"] == pytest.approx(accuracy(ours, "test"), abs=0.05)

    place = Workplace()
    overlay = place.store.overlay(uniform.recipe.digest)
    assert overlay is not None
    rule = uniform.recipe.overlay
    assert isinstance(rule, OverlayRule)
    assert (rule.split, rule.n) == ("train", 512)
    assert best.recipe.overlay is None
    [soup] = [s for s in outcome.soups if s.recipe == uniform.recipe.digest]
    version = place.tracker.version(soup.uri)
    assert version.tags[tags.STATISTICS] == "statistics on split train (n=512)"
    assert version.tags[tags.OVERLAY] == digest_of_bytes(overlay)
    page = mlflow_client().get_model_version("waves", version.version).description
    assert "Its BatchNorm has statistics on split train (n=512), estimated anew." in (page or "")

    [weights] = [w for w in place.tracker.version_weights(version) if w.path == "model.safetensors"]
    registered = load_file(place.tracker.fetch(weights, fresh(tmp_path / "fetched")))
    laid = load(overlay)
    assert laid.keys() == {n for n in registered if "running" in n or "num_batches" in n}
    expected = {**average(states), **laid}
    for name, tensor in registered.items():
        assert torch.allclose(tensor, expected[name], rtol=1e-5, atol=1e-6), name
    assert all(torch.equal(registered[name], tensor) for name, tensor in laid.items())

    ours.load_state_dict(registered)
    new = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    torch.save(new, tmp_path / "new.pt")
    asked = subprocess.run(
        [sys.executable, "-c", ASK, soup.uri, str(tmp_path / "new.pt")],
        cwd=fresh(tmp_path / "elsewhere"),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=True,
        capture_output=True,
        text=True,
    )
    with torch.inference_mode():
        wanted = ours.eval()(new)
    for flavour, answer in json.loads(asked.stdout.splitlines()[-1]).items():
        assert torch.allclose(torch.tensor(answer), wanted, atol=1e-4), flavour

    again = calls.soup(replace(request_, model="other"), flow=False)
    assert (again.evaluations, again.passes) == (0, 0), "statistics are remembered as scores are"
    assert {s.checkpoint for s in again.soups} == {s.checkpoint for s in outcome.soups}

    for store in ("same", "empty"):
        if store == "empty":
            monkeypatch.setenv("STOCKPOT_HOME", str(tmp_path / "another"))
        there = Workplace()
        assert (there.store.overlay(uniform.recipe.digest) is None) == (store == "empty")
        rebuild(soup.uri, there.tracker, there.supply, tmp_path / f"{store}.safetensors")
        assert (tmp_path / f"{store}.safetensors").read_bytes() == Path(
            place.tracker.fetch(weights, fresh(tmp_path / f"for {store}"))
        ).read_bytes()


@pytest.mark.slow
def test_a_store_that_estimated_other_bits_rebuilds_and_adopts_the_version_with_those_that_it_holds(
    request_: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(request_, methods=("uniform",), points=0)
    outcome = calls.soup(request, flow=False)
    [soup], recipe = outcome.soups, outcome.report.rows[1].recipe
    held = Workplace().store.overlay(recipe.digest)
    assert held is not None
    monkeypatch.setenv("STOCKPOT_HOME", str(tmp_path / "a colleague's"))
    place = Workplace()
    other = bytearray(held)
    other[-4] ^= 1  # the last bit of one number, as another processor sums it
    place.store.resolve_overlay(recipe, bytes(other))
    built = rebuild(soup.uri, place.tracker, place.supply, tmp_path / "soup.safetensors")
    assert built.digest == soup.checkpoint
    for points in (1, 1, 0):  # what the page does not show yet; what the store knows; the very first request
        [adopted] = calls.soup(replace(request, points=points), flow=False).soups
        assert (adopted.uri, adopted.state) == (soup.uri, SoupState.ADOPTED)
        assert adopted.checkpoint == soup.checkpoint
        assert "holds other BatchNorm statistics than those of these scores" in adopted.why
        version = place.tracker.version(soup.uri)
        assert version.tags[tags.OVERLAY] == digest_of_bytes(held), "it tells of what the version holds"
    assert "other BatchNorm statistics" in (mlflow_client().get_model_version("waves", "1").description or "")


@pytest.mark.slow
def test_two_devices_answer_as_one_and_the_plain_search_agrees(
    request_: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    alone = calls.soup(replace(request_, verify_exact=True), flow=False, watch=listener)
    assert any("the plain search agrees" in line for line in listener.said)
    monkeypatch.setenv("STOCKPOT_HOME", f"{os.environ['STOCKPOT_HOME']}-of-two")
    monkeypatch.setenv("STOCKPOT_DEVICE", "cpu,cpu")
    both = calls.soup(replace(request_, model="both"), flow=False)
    assert [row.scores for row in both.report.rows] == [row.scores for row in alone.report.rows]
    assert [s.checkpoint for s in both.soups] == [s.checkpoint for s in alone.soups]


@pytest.mark.slow
def test_a_split_that_is_reported_on_or_missing_is_refused_and_a_dry_run_counts_the_statistics(
    request_: SoupRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for refused in ("test", "shifted"):
        with pytest.raises(BadRequest, match="statistics_on must be neither"):
            replace(request_, statistics_on=refused, shifts=("shifted",))
    plan = calls.plan(request_)
    assert plan.statistics_passes == plan.selection_passes == len(SWEEP) - 1 + 1
    words = [
        "soup",
        "--model",
        "waves",
        "--sweep",
        request_.sweep or "",
        "--task",
        request_.task,
        "--no-flow",
    ]
    monkeypatch.delitem(SIZES, "train")
    with pytest.raises(SystemExit, match="3"):
        main(words)
    said = capsys.readouterr().err
    assert "there is no split 'train': train is none of validation, test" in said
    assert "--statistics-on validation" in said
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--dry-run", "--statistics-on", "validation"])
    out = " ".join(capsys.readouterr().out.split())
    assert "each soup gets statistics on split validation (n=512)" in out
    assert "at most 4 for statistics." in out


def fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def mlflow_client() -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient()


@pytest.mark.slow
def test_a_residual_network_of_transformers_is_souped_without_code(
    mlflow_uri: str,
    experiment: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow
    import numpy as np
    from PIL import Image
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    assert not home.exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for number, split in enumerate(("train", "validation", "test")):
        for image in range(12):
            kind = tmp_path / "data" / split / ["cat", "dog"][image % 2]
            kind.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(100 * number + image).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(kind / f"{image}.png")
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_experiment(experiment)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        start = ResNetForImageClassification(config).state_dict()
        for seed in range(3):
            torch.manual_seed(seed)
            model = ResNetForImageClassification(config)
            model.load_state_dict(start)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
                for _ in range(seed + 1):
                    model.train()(torch.randn(8, 3, 16, 16))
            model.save_pretrained(tmp_path / f"{seed}")
            ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / f"{seed}")
            with mlflow.start_run(run_name=f"tune-{seed}"):
                mlflow.log_artifacts(str(tmp_path / f"{seed}"), "model")
    words = ["--experiment", experiment, "--task", "image-classification", "--model", "pets", "--no-flow"]
    words += ["--task-arg", f"data={tmp_path / 'data'}", "--method", "uniform", "--register", "all"]
    with pytest.raises(SystemExit) as ended:
        main(["soup", *words, "--json"])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert "statistics on split train (n=12)" in told.err
    outcome = from_document(SoupOutcome, json.loads(told.out))
    [soup] = outcome.soups
    place = Workplace()
    laid = place.store.overlay(soup.recipe)
    assert laid is not None
    found = mlflow.transformers.load_model(soup.uri, return_type="components")["model"].state_dict()
    assert len(load(laid)) == 3 * 6, "of the embedder, each of two blocks twice, and a shortcut"
    assert all(torch.equal(found[name], tensor) for name, tensor in load(laid).items())


@pytest.mark.slow
def test_barriers_are_those_of_averages_with_statistics_of_their_own(request_: SoupRequest) -> None:
    outcome = calls.soup(replace(request_, methods=("uniform",)), flow=False)
    around = calls.report("models:/waves/1", barriers=True, influence=True).page.neighbourhood
    (row,) = outcome.report.rows[1:]
    assert isinstance(row.recipe.overlay, OverlayRule)
    pairs = len(row.recipe.ingredients) * (len(row.recipe.ingredients) - 1) // 2
    assert len(around.barriers) == pairs
    differences = [one.difference for one in around.barriers if one.difference is not None]
    assert len(differences) == pairs
    assert min(differences) > -0.1, "with averaged statistics the averages collapse"
    without = [one.without for one in around.influences if one.without is not None]
    assert len(without) == len(row.recipe.ingredients)
    assert min(without) > row.scores["validation"] - 0.1
