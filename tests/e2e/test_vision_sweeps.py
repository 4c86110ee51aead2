"""A sweep of ViT, whose files have other names than its modules: from the check to a version that
transformers loads in another process.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import SoupOutcome

ASK = """
import sys, json, mlflow
model = mlflow.transformers.load_model(sys.argv[1], return_type="components")["model"]
print(json.dumps({name: tensor.tolist() for name, tensor in model.state_dict().items()}))
"""


def pictures(folder: Path) -> None:
    from PIL import Image

    for number, split in enumerate(("validation", "test")):
        for image in range(8):
            kind = folder / split / ["dark", "light"][image % 2]
            kind.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(100 * number + image).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(kind / f"{image}.png")


@pytest.mark.slow
def test_a_vision_transformer_is_souped_without_code_and_keeps_the_names_of_its_files(
    mlflow_uri: str,
    experiment: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    assert not home.exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pictures(tmp_path / "data")
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16}
    names: dict[str, Any] = {"id2label": {0: "dark", 1: "light"}, "label2id": {"dark": 0, "light": 1}}
    config = ViTConfig(image_size=8, patch_size=4, num_attention_heads=2, **sizes, **names)
    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_experiment(experiment)
    states, files = [], []
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = ViTForImageClassification(config)
        for run in range(3):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
            folder = tmp_path / f"{run}"
            model.save_pretrained(folder)
            ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
            with mlflow.start_run(run_name=f"tune-{run}"):
                mlflow.log_artifacts(str(folder), "model")
            states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            files.append(load_file(folder / "model.safetensors"))
    assert states[0].keys() != files[0].keys()

    with pytest.raises(SystemExit, match="0"):
        main(["check", "--experiment", experiment, "--json"])
    proposed = json.loads(capsys.readouterr().out)["command"].replace("FOLDER", str(tmp_path / "data"))
    _, *words = shlex.split(proposed)
    with pytest.raises(SystemExit) as ended:
        main([*words, "--no-flow", "--json", "--method", "uniform", "--register", "all"])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert "not registered as" not in told.err
    outcome = from_document(SoupOutcome, json.loads(told.out))
    [soup] = outcome.soups
    [row] = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert len(row.recipe.checkpoints) == len(states)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, soup.uri],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = {name: torch.tensor(values) for name, values in json.loads(asked.stdout).items()}
    assert loaded.keys() == states[0].keys()
    for name, tensor in loaded.items():
        assert torch.allclose(tensor, torch.stack([s[name] for s in states]).mean(0), rtol=1e-6, atol=1e-7)
    found = load_file(mlflow.artifacts.download_artifacts(f"{soup.uri}/model.safetensors"))
    assert found.keys() == files[0].keys(), "its file has the names of the sweep's files"
    for name, tensor in found.items():
        assert torch.allclose(tensor, torch.stack([f[name] for f in files]).mean(0), rtol=1e-6, atol=1e-7)
