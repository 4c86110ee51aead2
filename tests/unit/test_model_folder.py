"""A model's configuration and tokenizer from the sweep itself, for tasks that are made with them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from stockpot.entities import CONFIG, SoupRequest, SweepSelector, model_files
from stockpot.errors import BadRequest
from stockpot.soup import CheckpointCache
from stockpot.store.memory import MemoryStore
from stockpot.tasks.loading import lacks_model_folder
from stockpot.tracking.memory import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.gathering.model_folder import fetch_model_folder
from stockpot.workflow.gathering.supply import Supply

REQUEST = SoupRequest(model="m", task="text-classification", experiment="e")
WEIGHTS = save({"w": torch.zeros(2)})


def tracker_with(*runs: dict[str, bytes], models: bool = False) -> MemoryTracker:
    """A sweep whose runs logged these files."""
    tracker = MemoryTracker()
    experiment = tracker.add_experiment("e")
    for place, files in enumerate(runs):
        run = tracker.add_run(experiment, f"run {place}")
        if models:
            tracker.add_model(run, "model", files)
        else:
            for path, content in files.items():
                tracker.add_file(run, path, content)
    return tracker


def fetched(tracker: MemoryTracker, into: Path) -> Path:
    """The folder below one, beside which lies a cache."""
    supply = Supply(tracker, MemoryStore(), CheckpointCache(into / "cache"))
    (into / "models").mkdir(exist_ok=True)
    return fetch_model_folder(REQUEST, tracker, supply, Silent(), into / "models")


def test_it_is_what_lies_beside_the_first_weights_that_have_it(tmp_path: Path) -> None:
    bare = {"w.safetensors": WEIGHTS, "elsewhere/config.json": b"{}"}
    whole = {"best/w.safetensors": WEIGHTS, "best/config.json": b"{1}", "best/tokenizer.json": b"[]"}
    tracker = tracker_with(bare, {**whole, "best/evil.py": b"evil", "best/optimizer.pt": b"big"}, whole)
    folder = fetched(tracker, tmp_path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "config.json": b"{1}",
        "tokenizer.json": b"[]",
    }
    assert [made.name for made in (tmp_path / "models").iterdir()] == [folder.name]


def test_it_is_that_of_the_runs_that_are_averaged(tmp_path: Path) -> None:
    odd = {"w.safetensors": save({"w": torch.zeros(3)}), "config.json": b"{3}"}
    usual = {"w.safetensors": WEIGHTS, "config.json": b"{2}"}
    folder = fetched(tracker_with(odd, usual, usual), tmp_path)
    assert (folder / "config.json").read_bytes() == b"{2}"


def test_mlflows_flavour_keeps_the_tokenizer_elsewhere(tmp_path: Path) -> None:
    files = {
        "model/model.safetensors": WEIGHTS,
        "model/config.json": b"{}",
        "components/tokenizer/tokenizer.json": b"[]",
        "components/tokenizer/code.py": b"evil",
        "tokenizer.json": b"another",
    }
    tracker = tracker_with(files, files, models=True)
    folder = fetched(tracker, tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "tokenizer.json"]
    assert (folder / "tokenizer.json").read_bytes() == b"[]"


def test_its_name_tells_what_it_holds_and_a_second_time_makes_no_second(tmp_path: Path) -> None:
    one, other = ({"w.safetensors": WEIGHTS, "config.json": content} for content in (b"{}", b"{2}"))
    first = fetched(tracker_with(one, one), tmp_path)
    assert fetched(tracker_with(one, one), tmp_path) == first
    assert fetched(tracker_with(other, other), tmp_path) != first
    (first / "config.json").write_text("changed")
    (first / "more.json").write_text("by somebody")
    assert fetched(tracker_with(one, one), tmp_path) == first
    assert {file.name: file.read_bytes() for file in first.iterdir()} == {"config.json": b"{}"}


def test_a_sweep_without_one_says_what_to_name(tmp_path: Path) -> None:
    tracker = tracker_with({"w.safetensors": WEIGHTS}, {"w.safetensors": WEIGHTS}, {"config.json": b"{}"}, {})
    with pytest.raises(BadRequest, match=r"no run of the sweep logged a config\.json") as caught:
        fetched(tracker, tmp_path)
    assert "--task-arg model=FOLDER" in caught.value.mend
    assert not list((tmp_path / "models").iterdir())


def test_without_a_configuration_beside_the_weights_nothing_is_taken() -> None:
    tracker = tracker_with({"a/w.safetensors": WEIGHTS, "a/tokenizer.json": b"[]", "config.json": b"{}"})
    (run,) = tracker.runs(SweepSelector(experiment="e"))
    (source,) = tracker.weights(run)
    assert model_files(source, tracker.companions(source)) == {}
    assert CONFIG == "config.json"


def test_of_a_model_that_is_the_first_of_several_modules_their_configurations_are_taken(
    tmp_path: Path,
) -> None:
    names = ("model.safetensors", "config.json", "modules.json", "1_Pooling/config.json", "2_Dense/model.bin")
    files = {f"model.sentence_transformer/{name}": b"{}" for name in names}
    files["model.sentence_transformer/model.safetensors"] = WEIGHTS
    files["1_Pooling/config.json"] = b"another's"
    tracker = tracker_with(files, models=True)
    (run,) = tracker.runs(SweepSelector(experiment="e"))
    source = next(s for s in tracker.weights(run) if s.path.endswith(".safetensors"))
    found = model_files(source, tracker.companions(source))
    assert sorted(found) == ["1_Pooling/config.json", "config.json", "modules.json"]
    bare = {name.partition("/")[2]: content for name, content in files.items() if name.startswith("model.")}
    del bare["2_Dense/model.bin"]
    folder = fetched(tracker_with(bare, bare), tmp_path)
    assert (folder / "1_Pooling" / "config.json").read_bytes() == b"{}"
    (folder / "1_Pooling" / "config.json").write_text("changed")
    fetched(tracker_with(bare, bare), tmp_path)
    assert (folder / "1_Pooling" / "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("task", "args", "wanted"),
    [
        ("text-classification", {"data": "d"}, True),
        ("text-classification", {"data": "d", "model": "m"}, False),
        ("arrays", {"data": "d"}, False),
    ],
)
def test_a_task_says_that_it_is_made_with_such_a_folder(
    task: str,
    args: dict[str, str],
    wanted: bool,  # noqa: FBT001 - a value to compare with
) -> None:
    assert lacks_model_folder(task, args) is wanted
