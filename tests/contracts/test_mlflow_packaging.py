"""A packaged soup is the soup: the same bits, the same outputs, through MLflow's own loaders."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow.pyfunc
import mlflow.pytorch
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from torch import nn

from stockpot.entities import Candidate, Checkpoint, Run, WeightsFormat, WeightsSource, digest_of_bytes
from stockpot.errors import StockpotError, TrackingError
from stockpot.soup import canonical_names
from stockpot.tracking import MlflowTracker
from stockpot.tracking.mlflow_packaging import SPARE, _holds, _module_and_class, _require_room
from stockpot.tracking.tensor_trees import resized

OWN = [f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow.__version__}"]


class Small(nn.Module):
    """Shared weights, an unused layer, an integer buffer: what an export may lose."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(2, 2)
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.second(torch.relu(self.first(x)))
        return outputs


class Branching(nn.Linear):
    """A branch on data: torch.export refuses it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(left) - self.layer(right)
        return outputs


class NamedPair(Pair):
    def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:  # type: ignore[override] # MLflow exports by position only
        return super().forward(left, right)


class BranchingTask:
    def __init__(self, width: str) -> None:
        self.width = int(width)

    def model(self) -> nn.Module:
        return Branching(self.width, 2)


class NamedPairTask:
    def model(self) -> nn.Module:
        return NamedPair()


class Lightning(nn.Module):
    """All names start with ``model.``, which the canonical file leaves out."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.model = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.model(x)
        return outputs


class TiedBranching(Branching):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.same = self.weight


class LightningTask:
    def model(self) -> nn.Module:
        return Lightning(TiedBranching())


def branching() -> nn.Module:
    return Branching(4, 2)


class RandomTask:
    def model(self) -> nn.Module:
        return nn.Sequential(Branching(4, 2), nn.Linear(2, 2))


@dataclass
class Workshop:
    """Packages modules as a soup of one experiment."""

    tracker: MlflowTracker
    client: MlflowClient
    experiment_id: str
    folder: Path
    left_out: tuple[str, ...] = ()
    """Of the ingredient's requirements, when something was packaged last."""

    def package(
        self,
        module: nn.Module,
        example: Any,
        *,
        like: str | None = None,
        architecture: tuple[str, Mapping[str, str]] = ("nowhere:Task", {}),
        dtype: torch.dtype | None = None,
        left_out: Sequence[str] = (),
    ) -> tuple[str, Path, str]:
        """Kind, folder and LoggedModel id. The canonical file is of this dtype and lacks these names."""
        run_id = self.client.create_run(self.experiment_id).info.run_id
        model_id = self.client.create_logged_model(self.experiment_id, "soup", run_id).model_id
        weights = self.folder / "canonical"
        tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        names = canonical_names(tensors)
        stored = {names[name]: tensor for name, tensor in tensors.items() if name not in left_out}
        save_file({k: v.to(dtype) for k, v in stored.items()}, weights, metadata={"format": "pt"})
        into = self.folder / model_id
        packaged = self.tracker.package(
            module,
            weights,
            example,
            into,
            model_id=model_id,
            like=candidate(like),
            architecture=architecture,
        )
        assert (into / "model.safetensors").read_bytes() == weights.read_bytes()
        self.left_out = packaged.left_out
        return packaged.kind, into, model_id


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("packaging")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    experiment_id = client.create_experiment("sweep", str(folder / "artifacts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)  # for MLflow's own functions
        yield Workshop(MlflowTracker(uri), client, experiment_id, folder)


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.manual_seed(0)


def candidate(model_id: str | None) -> Candidate:
    digest = digest_of_bytes(b"")
    run = Run("run", "run", "0", "FINISHED", 0, {}, {}, {})
    source = WeightsSource("run", WeightsFormat.PT2, "model/data/model.pt2", "", model_id, None)
    return Candidate(run, source, digest, Checkpoint(digest, 0, (), digest))


def test_an_exported_soup_holds_its_bits_and_outputs_through_an_alias(workshop: Workshop) -> None:
    module = Small()
    kind, folder, model_id = workshop.package(module, torch.rand(9, 4))
    assert kind == "pt2"
    workshop.tracker.upload(model_id, folder)
    workshop.client.create_registered_model("bits")
    workshop.client.create_model_version("bits", f"models:/{model_id}", model_id=model_id)
    workshop.tracker.set_alias("bits", "challenger", "1")

    loaded = mlflow.pytorch.load_model("models:/bits@challenger")
    canonical = load_file(folder / "model.safetensors")
    held = loaded.state_dict()
    assert {name: held[name].numpy().tobytes() for name in canonical} == {
        name: tensor.numpy().tobytes() for name, tensor in canonical.items()
    }
    for size in (1, 7):
        batch = torch.rand(size, 4)
        torch.testing.assert_close(loaded(batch), module(batch), rtol=1e-4, atol=1e-5)
    card = mlflow.models.get_model_info("models:/bits@challenger")
    assert card.model_id == model_id
    assert [spec.shape for spec in card.signature.inputs.inputs] == [(-1, 4)]


def test_the_interface_of_an_ingredient_carries_over(workshop: Workshop) -> None:
    example = torch.rand(3, 4).numpy()
    with mlflow.start_run(experiment_id=workshop.experiment_id):
        logged = mlflow.pytorch.log_model(
            Small(),
            name="ingredient",
            input_example=example,
            pip_requirements=["torch==2.99.1", "einops==0.8"],
        )
    _, folder, _ = workshop.package(Small(), torch.zeros(2, 4), like=logged.model_id)
    card = mlflow.models.Model.load(str(folder))
    assert card.signature == logged.signature
    # What was tried here is what is asked for, and the model imports no einops.
    assert (folder / "requirements.txt").read_text().split() == OWN
    assert workshop.left_out == ("einops==0.8",)
    kept: Any = card.load_input_example(str(folder))
    assert kept.tolist() == example.tolist()


def test_the_interface_of_another_architecture_does_not(workshop: Workshop) -> None:
    with mlflow.start_run(experiment_id=workshop.experiment_id):
        logged = mlflow.pytorch.log_model(
            nn.Linear(3, 3), name="other", input_example=torch.rand(2, 3).numpy(), pip_requirements=["einops"]
        )
    kind, folder, _ = workshop.package(Small(), torch.rand(2, 4), like=logged.model_id)
    assert kind == "pt2"
    assert "einops" not in (folder / "requirements.txt").read_text()


def test_an_example_of_one_still_makes_a_model_for_any_batch(workshop: Workshop) -> None:
    kind, folder, _ = workshop.package(Small(), torch.rand(1, 4))
    assert kind == "pt2"
    assert mlflow.pytorch.load_model(str(folder))(torch.rand(5, 4)).shape == (5, 4)


def test_inputs_by_position_are_exported(workshop: Workshop) -> None:
    kind, folder, _ = workshop.package(Pair(), (torch.rand(3, 4), torch.rand(3, 4)))
    assert kind == "pt2"
    assert mlflow.pytorch.load_model(str(folder))(torch.rand(5, 4), torch.rand(5, 4)).shape == (5, 2)


def test_a_full_disk_is_told_before_torch_would_end_the_process(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(StockpotError, match="No space left on device") as told:
        workshop.package(Small(), torch.rand(3, 4))
    assert "free some space" in told.value.mend


def test_room_is_asked_for_the_modules_own_weights_beside_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module may hold 32 bits of what the file holds in 16."""
    module = nn.Linear(100, 100)
    file = tmp_path / "weights"
    save_file({name: tensor.bfloat16() for name, tensor in module.state_dict().items()}, file)
    free = SimpleNamespace(free=SPARE + 4 * 10_100 + file.stat().st_size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    _require_room(module, file, tmp_path / "package")
    free.free -= 1
    with pytest.raises(StockpotError, match="No space left on device"):
        _require_room(module, file, tmp_path / "package")


def test_half_precision_is_exported(workshop: Workshop) -> None:
    module = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)).to(torch.bfloat16)
    kind, _, _ = workshop.package(module, torch.arange(6).reshape(3, 2))
    assert kind == "pt2"


def test_a_wrapped_module_is_exported(workshop: Workshop) -> None:
    module = Lightning(Small())
    kind, folder, _ = workshop.package(module, torch.rand(3, 4))
    assert kind == "pt2"
    assert "first.weight" in load_file(folder / "model.safetensors")
    held = mlflow.pytorch.load_model(str(folder)).state_dict()
    assert held["model.first.weight"].equal(module.state_dict()["model.first.weight"])


@pytest.mark.parametrize("left_out", [(), ("model.same",), ("model.weight",)])
def test_a_wrapped_module_is_rebuilt(workshop: Workshop, left_out: Sequence[str]) -> None:
    module = Lightning(TiedBranching())
    kind, folder, _ = workshop.package(
        module, torch.rand(3, 4), architecture=(f"{__name__}:LightningTask", {}), left_out=left_out
    )
    assert kind.startswith("pyfunc: ")
    batch = torch.rand(5, 4)
    outputs = mlflow.pyfunc.load_model(str(folder)).predict(batch.numpy())
    torch.testing.assert_close(torch.from_numpy(outputs), module(batch).detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_16_bit_soup_in_a_32_bit_module_is_exported(workshop: Workshop, dtype: torch.dtype) -> None:
    module = Pair()
    module.load_state_dict({name: tensor.to(dtype) for name, tensor in module.state_dict().items()})
    kind, _, _ = workshop.package(module, (torch.rand(3, 4), torch.rand(3, 4)), dtype=dtype)
    assert kind == "pt2"


def test_an_export_in_a_narrower_dtype_does_not_hold_the_soup() -> None:
    stored = torch.ones(3)
    assert _holds(stored.double(), stored)
    assert not _holds(stored.half(), stored)
    assert not _holds(stored, stored.int())
    assert not _holds(-torch.zeros(3), torch.zeros(3, dtype=torch.float16))


def test_a_model_of_the_arrays_task_is_rebuilt_without_its_data(workshop: Workshop) -> None:
    gone = {"data": str(workshop.folder / "gone.npz"), "model": f"{__name__}:branching"}
    module = branching()
    kind, folder, _ = workshop.package(module, torch.rand(3, 4), architecture=("arrays", gone))
    assert kind.startswith("pyfunc: ")
    batch = torch.rand(5, 4)
    outputs = mlflow.pyfunc.load_model(str(folder)).predict(batch.numpy())
    torch.testing.assert_close(torch.from_numpy(outputs), module(batch).detach())


def test_what_a_rebuilt_model_needs_is_told_where_it_is_missing(workshop: Workshop) -> None:
    task = (f"{__name__}:BranchingTask", {"width": "no number"})
    with pytest.raises(TrackingError, match=r"BranchingTask with \{'width': 'no number'\}"):
        workshop.package(Branching(4, 2), torch.rand(3, 4), architecture=task)


def test_a_model_that_cannot_be_exported_is_code_plus_safetensors(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    module = Branching(4, 2)
    task = (f"{__name__}:BranchingTask", {"width": "4"})
    kind, folder, _ = workshop.package(module, torch.rand(3, 4), architecture=task)
    assert kind.startswith("pyfunc: ")
    assert "\n" not in kind
    assert [file.name for file in folder.rglob("*") if file.suffix in {".safetensors", ".pt2", ".pkl"}] == [
        "model.safetensors"
    ]
    assert not [*folder.rglob("*.pyc")]
    batch = torch.rand(5, 4)
    loaded = mlflow.pyfunc.load_model(str(folder))
    torch.testing.assert_close(torch.from_numpy(loaded.predict(batch.numpy())), module(batch).detach())


def test_inputs_by_name_are_kept_by_name(workshop: Workshop) -> None:
    module = NamedPair()
    batch = {"left": torch.rand(3, 4), "right": torch.rand(3, 4)}
    kind, folder, _ = workshop.package(module, batch, architecture=(f"{__name__}:NamedPairTask", {}))
    assert kind.startswith("pyfunc: ")
    outputs = mlflow.pyfunc.load_model(str(folder)).predict({name: t.numpy() for name, t in batch.items()})
    torch.testing.assert_close(torch.from_numpy(outputs), module(**batch).detach())


class Texts(nn.Module):
    """Takes a dict of texts of any length, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 3)

    def forward(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        states = self.embed(input_ids) * attention_mask.unsqueeze(-1)
        return {"logits": states.mean(1), "states": states}


class TextsTask:
    def model(self) -> nn.Module:
        return Texts()


class Mean(nn.Module):
    """Over the positions of a sequence; of one length the sum, as a graph cannot tell."""

    def __init__(self, special: int) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.special = special

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.sum(dim=1) if x.shape[1] == self.special else x.mean(dim=1))
        return out


@pytest.mark.parametrize(("special", "length"), [(0, -1), (6, 6)])
def test_an_exported_model_takes_other_lengths_where_its_graph_does(
    workshop: Workshop, special: int, length: int
) -> None:
    kind, folder, _ = workshop.package(Mean(special), torch.rand(3, 6, 4))
    assert kind == "pt2"
    loaded = mlflow.pyfunc.load_model(str(folder))
    assert [spec.shape for spec in loaded.metadata.signature.inputs.inputs] == [(-1, length, 4)]
    assert loaded.predict(torch.rand(2, 9 if length == -1 else 6, 4).numpy()).shape == (2, 2)


class Segmenter(nn.Module):
    """Says something of each pixel: two outputs by name, as torchvision's models of this kind do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.out, self.aux = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.backbone(x))
        sizes = x.shape[-2:]
        return {
            name: nn.functional.interpolate(head(features), size=sizes, mode="bilinear")
            for name, head in (("out", self.out), ("aux", self.aux))
        }


def conv(*, pooled: bool) -> nn.Module:
    """Of images of any size, or of 8 by 8 pixels."""
    pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
    head = nn.Linear(4 if pooled else 256, 2)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), head)


@pytest.mark.parametrize(("size", "other"), [((8, 6), (16, 18)), ((300, 400), (150, 300))])
def test_another_size_is_tried_of_which_large_images_hold_a_part(
    size: tuple[int, int], other: tuple[int, int]
) -> None:
    images = torch.rand(3, 1, *size).numpy()
    found = resized({"x": images})
    assert found is not None
    assert found["x"].shape == (2, 1, *other)
    assert resized((images, images[:, 0])) is None


@pytest.mark.parametrize("pooled", [True, False])
def test_an_exported_model_takes_images_of_other_sizes_where_its_module_does(
    workshop: Workshop,
    pooled: bool,  # noqa: FBT001 - a value to compare with
) -> None:
    module = conv(pooled=pooled)
    kind, folder, _ = workshop.package(module, torch.rand(3, 3, 8, 8))
    assert kind == "pt2"
    loaded = mlflow.pyfunc.load_model(str(folder))
    shapes = [(-1, 3, -1, -1)] if pooled else [(-1, 3, 8, 8)]
    assert [spec.shape for spec in loaded.metadata.signature.inputs.inputs] == shapes
    asked = torch.rand(5, 3, 11, 6) if pooled else torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(torch.from_numpy(loaded.predict(asked.numpy())), module(asked).detach())


def test_several_outputs_are_served_by_name_through_both_flavours(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Segmenter()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    kind, folder, _ = workshop.package(module, torch.rand(3, 3, 8, 8))
    assert kind == "pt2"
    assert [file.name for file in (folder / "code").rglob("*")] == ["exported_graph.py"], (
        "and nothing compiled"
    )
    asked = torch.rand(5, 3, 12, 10)
    served = mlflow.pyfunc.load_model(str(folder)).predict(asked.numpy())
    exported = mlflow.pytorch.load_model(str(folder))(asked)
    for name, wanted in module(asked).items():
        torch.testing.assert_close(torch.from_numpy(served[name]), wanted.detach())
        torch.testing.assert_close(exported[name], wanted)


def test_a_model_of_texts_takes_other_lengths_than_the_examples(workshop: Workshop) -> None:
    module = Texts()

    def batch(size: int, length: int) -> dict[str, torch.Tensor]:
        numbers = torch.arange(size * length).reshape(size, length) % 11
        return {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}

    kind, folder, _ = workshop.package(module, batch(3, 6), architecture=(f"{__name__}:TextsTask", {}))
    assert kind.startswith("pyfunc: ")
    loaded = mlflow.pyfunc.load_model(str(folder))
    signature = loaded.metadata.signature
    shapes = [spec.shape for part in (signature.inputs, signature.outputs) for spec in part.inputs]
    assert shapes == [(-1, -1), (-1, -1), (-1, 3), (-1, -1, 3)]
    for asked in (batch(1, 4), batch(5, 9)):
        outputs = loaded.predict({name: tensor.numpy() for name, tensor in asked.items()})
        for name, wanted in module(**asked).items():
            torch.testing.assert_close(torch.from_numpy(outputs[name]), wanted.detach())


def test_code_that_rebuilds_another_model_is_refused(workshop: Workshop) -> None:
    with pytest.raises(TrackingError):
        workshop.package(Branching(4, 2), torch.rand(3, 4), architecture=(f"{__name__}:RandomTask", {}))


def test_an_entry_points_name_becomes_what_it_stands_for() -> None:
    assert _module_and_class("arrays") == "stockpot.tasks.arrays:ArrayClassification"
    assert _module_and_class("my.module:Task") == "my.module:Task"


def test_importing_the_trackers_is_cheap() -> None:
    program = (
        "import sys, stockpot.tracking; print({'mlflow', 'torch', 'numpy'} & sys.modules.keys() or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


PROGRAM = """
import logging, sys
from stockpot.tracking.mlflow_calls import logging_left_alone
assert "mlflow.pytorch" not in sys.modules
with logging_left_alone():
    import mlflow.pytorch
print(logging.getLogger().handlers)
"""


@pytest.mark.slow
def test_mlflow_gives_no_handler_to_the_logging_of_the_program_around_it() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
