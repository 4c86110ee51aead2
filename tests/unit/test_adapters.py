"""Adapters in a sweep: the base that each belongs to is found, and the same for all that are averaged."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from tests.soup.adapters import CONFIG, PREFIX, factors, product
from torch import Tensor

from stockpot.documents import from_document, to_document
from stockpot.entities import ExclusionReason, SoupRequest, Sweep, TensorSpec, WeightsSource
from stockpot.errors import NoBase, NothingToSoup, StockpotError
from stockpot.prose import visible
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.check import SweepCheck, check_sweep
from stockpot.workflow.gathering.arrivals import Arrivals, Prospects, read_all
from stockpot.workflow.gathering.exclusion_rules import OF_THE_CLASS
from stockpot.workflow.gathering.gather import find_prospects
from stockpot.workflow.gathering.model_folder import fetch_model_folder
from stockpot.workflow.gathering.places import Places, files_beside
from stockpot.workflow.gathering.supply import Supply

WEIGHTS = {"enc.q.weight": torch.arange(12.0).reshape(4, 3) / 7, "head.weight": torch.ones(2, 3)}


def write_base(folder: Path, weights: dict[str, Tensor] | None = None, **config: Any) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    folder.mkdir(parents=True)
    save_file(weights or WEIGHTS, folder / "model.safetensors")
    told = {"architectures": ["BertForSequenceClassification"], **config}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "vocab.txt").write_text("base")
    return folder


class Kitchen:
    """A sweep of adapters, and all that reads it."""

    def __init__(self, folder: Path) -> None:
        self.tracker = MemoryTracker()
        self.store = MemoryStore()
        self.cache = CheckpointCache(folder / "cache")
        self.uses: list[Path] = []
        self.base: str | None = None
        """What requests name: the base of the adapter that was logged last, if it lies on this machine."""
        self.experiment = self.tracker.add_experiment("e")

    @property
    def supply(self) -> Supply:
        return Supply(self.tracker, self.store, self.cache, uses=self.uses.append)

    def adapter(self, base: object, seed: int = 0, **more: Any) -> dict[str, Tensor]:
        """Log a run with an adapter; `files` lie beside it."""
        files = more.pop("files", {})
        tensors = more.pop("tensors", factors("enc.q", 4, 3, seed=seed))
        run = self.tracker.add_run(self.experiment, f"tune-{len(self.tracker.runs_kept)}")
        self.base = str(base) if isinstance(base, Path) else None
        told = {**CONFIG, "base_model_name_or_path": str(base), **more}
        self.tracker.add_file(run, "out/adapter_config.json", json.dumps(told).encode())
        content = save({PREFIX + name: tensor for name, tensor in tensors.items()})
        self.tracker.add_file(run, "out/adapter_model.safetensors", content)
        for name, text in files.items():
            self.tracker.add_file(run, f"out/{name}", text)
        found: dict[str, Tensor] = tensors
        return found

    def prospects(self, **asked: Any) -> Prospects:
        request = SoupRequest(model="m", task="t", experiment="e", **{"base": self.base, **asked})
        return find_prospects(request, self.tracker, self.supply, lambda _: (), Silent())

    def sweep(self, **asked: Any) -> Sweep:
        return read_all(Arrivals(self.prospects(**asked), self.supply, lambda _: (), Silent()))

    def check(self, **asked: Any) -> SweepCheck:
        request = SoupRequest(model="m", task="t", experiment="e", partial=True, **asked)
        return check_sweep(request, self.tracker, self.supply, Silent())


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local cache of Hugging Face with one model in it, of links, as their library lays it out."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    blobs = write_base(tmp_path / "blobs")
    model = tmp_path / "hub" / "models--org--tiny"
    snapshot = model / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0a1b")
    return snapshot


def test_adapters_become_candidates_merged_into_the_base_that_they_name(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base")
    logged = [kitchen.adapter(base, seed) for seed in range(3)]
    prospects = kitchen.prospects()
    assert prospects.notes == (
        f"3 runs hold LoRA adapters of the base {base}: each is merged into {base / 'model.safetensors'}",
    )
    assert {spec.name for prospect in prospects.found for spec in prospect.layout or ()} == {*WEIGHTS}
    sweep = kitchen.sweep()
    assert len(sweep.candidates) == 3
    for candidate, tensors in zip(sweep.candidates, logged, strict=True):
        found = load_file(kitchen.cache.path(candidate.checkpoint.digest))
        wanted = WEIGHTS["enc.q.weight"].double() + 3 * product(tensors, "enc.q")
        torch.testing.assert_close(found["enc.q.weight"].double(), wanted, rtol=1e-6, atol=1e-6)
    assert {*kitchen.uses} == {base / name for name in ("model.safetensors", "config.json", "vocab.txt")}


def test_a_candidate_can_be_written_down_and_read_again_from_its_run(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base")
    for seed in range(2):
        kitchen.adapter(base, seed)
    for candidate in kitchen.sweep().candidates:
        source = from_document(WeightsSource, to_document(candidate.source))
        assert source == candidate.source
        found = Kitchen(tmp_path / "elsewhere")
        found.tracker = kitchen.tracker
        read = found.supply.read(source)
        assert read.checkpoint == candidate.checkpoint


def test_what_was_merged_is_remembered_until_the_base_is_another(kitchen: Kitchen, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    for seed in range(2):
        kitchen.adapter(base, seed)
    first = kitchen.sweep()
    fetched: list[str] = []
    fetch = kitchen.tracker.fetch

    def watched(source: WeightsSource, into: Path) -> Path:
        fetched.append(source.path)
        return fetch(source, into)

    kitchen.tracker.fetch = watched  # type: ignore[method-assign]
    assert kitchen.sweep() == first
    assert fetched == []
    changed = {**WEIGHTS, "head.weight": torch.zeros(2, 3)}
    save_file(changed, base / "model.safetensors")
    digests = {candidate.checkpoint.digest for candidate in kitchen.sweep().candidates}
    assert not digests & {candidate.checkpoint.digest for candidate in first.candidates}


def test_a_base_is_found_in_the_local_cache_of_hugging_face(kitchen: Kitchen, hub: Path) -> None:
    for seed in range(2):
        kitchen.adapter("org/tiny", seed)
    kitchen.adapter("org/tiny", 3, revision="another")
    sweep = kitchen.sweep()
    assert len(sweep.candidates) == 2
    (absent,) = sweep.exclusions
    assert absent.reason is ExclusionReason.NO_BASE
    assert "its base, org/tiny at revision another, is not in the local cache" in absent.detail


NAMES = ["org/none", "", "../../etc", "a/b/c", "org/tiny\n", "\0", "~nobody-at-all/x", "x" * 5000]


@pytest.mark.parametrize("name", NAMES)
def test_a_base_that_is_not_here_is_one_line_that_names_it_and_the_option(
    kitchen: Kitchen, hub: Path, name: str
) -> None:
    for seed in range(2):
        kitchen.adapter(name, seed)
    found = kitchen.check()
    assert {exclusion.reason for exclusion in found.exclusions} == {ExclusionReason.NO_BASE}
    assert len({(exclusion.detail, exclusion.mend) for exclusion in found.exclusions}) == 1
    assert "--base FOLDER" in found.exclusions[0].mend
    assert (visible(name).strip() or "which is not named") in found.exclusions[0].detail
    request = SoupRequest(model="m", task="text-classification", experiment="e")
    with pytest.raises(NothingToSoup, match="adapter without its base") as caught:
        fetch_model_folder(request, kitchen.tracker, kitchen.supply, Silent(), hub)
    assert "--base FOLDER" in caught.value.mend


def test_the_base_that_is_asked_for_is_taken_whatever_the_adapters_call_it(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "mine")
    for seed in range(2):
        kitchen.adapter("org/gone\nforged: line", seed)
    found = kitchen.check(base=str(base))
    assert found.candidates == 2
    assert not any("\n" in note for note in found.notes)
    assert f" --base {base} " in found.command
    assert len(kitchen.sweep(base=str(base / "model.safetensors")).candidates) == 2


def test_a_base_with_more_than_the_adapted_class_has_is_told_with_the_lines_that_mend_it(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", {**WEIGHTS, "enc.pooler.weight": torch.ones(2, 2)})
    for seed in range(2):
        kitchen.adapter(base, seed)

    def fits(tensors: Sequence[TensorSpec]) -> list[str]:
        return [f"unexpected {spec.name}" for spec in tensors if spec.name not in WEIGHTS]

    request = SoupRequest(model="m", task="t", experiment="e", base=str(base))
    found = find_prospects(request, kitchen.tracker, kitchen.supply, fits, Silent())
    assert {exclusion.mend for exclusion in found.exclusions} == {OF_THE_CLASS}
    assert "unexpected enc.pooler.weight" in found.exclusions[0].detail


def test_a_base_that_a_run_logged_is_downloaded(kitchen: Kitchen) -> None:
    run = kitchen.tracker.add_run(kitchen.tracker.add_experiment("bases"), "base")
    kitchen.tracker.runs_kept["f" * 32] = kitchen.tracker.runs_kept.pop(run)
    moved = kitchen.tracker.runs_kept["f" * 32]
    object.__setattr__(moved.run, "run_id", "f" * 32)
    kitchen.tracker.add_file("f" * 32, "model.safetensors", save(WEIGHTS))
    for seed in range(2):
        kitchen.adapter("org/gone", seed)
    assert len(kitchen.sweep(base="f" * 32).candidates) == 2
    assert kitchen.uses == []


def test_adapters_of_another_base_are_excluded_the_smaller_group_of_them(
    kitchen: Kitchen, hub: Path, tmp_path: Path
) -> None:
    models = hub.parents[2]
    for name, head in (("same", torch.ones(2, 3)), ("other", torch.zeros(2, 3))):
        write_base(models / f"models--org--{name}/snapshots/main", {**WEIGHTS, "head.weight": head})
    for seed, base in enumerate(("org/other", "org/tiny", "org/same")):
        kitchen.adapter(base, seed)
    (excluded,) = kitchen.sweep().exclusions
    assert (excluded.run_name, excluded.reason) == ("tune-0", ExclusionReason.DIFFERENT_BASE)
    assert "its base is org/other, most adapters' is org/same" in excluded.detail
    assert excluded.mend.startswith("--any-base")
    assert len(kitchen.sweep(any_base=True).candidates) == 3
    # Where the base is asked for, nobody knows what the other names stood for.
    ours = str(write_base(tmp_path / "ours"))
    assert len(kitchen.prospects(base=ours).found) == 1
    assert len(kitchen.sweep(base=ours, any_base=True).candidates) == 3


@pytest.mark.parametrize("told", ["a base", "{base}", "{base}/model.safetensors"])
def test_a_path_that_an_adapter_tells_is_proposed_and_not_followed(
    kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    base = write_base(tmp_path / "a base")
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        kitchen.adapter(told.format(base=base), seed)
    base /= told.partition("}/")[2]
    sweep = kitchen.prospects()
    assert sweep.found == ()
    assert {exclusion.reason for exclusion in sweep.exclusions} == {ExclusionReason.NO_BASE}
    assert {exclusion.mend for exclusion in sweep.exclusions} == {f"if it is that one: --base '{base}'"}
    found = kitchen.check()
    assert f" --base '{base}' " in found.command
    assert any("nobody but you can know" in note for note in found.notes)
    assert len(kitchen.sweep(base=str(base)).candidates) == 2


def test_adapters_and_whole_models_of_one_architecture_are_averaged_together(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base")
    kitchen.adapter(base)
    run = kitchen.tracker.add_run(kitchen.experiment, "whole")
    kitchen.tracker.add_file(run, "model.safetensors", save(WEIGHTS))
    assert len(kitchen.sweep().candidates) == 2


def test_what_is_wrong_with_an_adapter_is_told_with_its_run(kitchen: Kitchen, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    for seed in range(2):
        kitchen.adapter(base, seed)
    kitchen.adapter(base, use_dora=True)
    broken = factors("enc.q", 4, 3)
    broken["enc.q.lora_A.weight"][0, 0] = math.nan
    kitchen.adapter(base, tensors=broken)
    kitchen.adapter(base, tensors=factors("enc.z", 4, 3))
    bare = kitchen.tracker.add_run(kitchen.experiment, "bare")
    kitchen.tracker.add_file(bare, "adapter_model.safetensors", save(broken))
    found = {exclusion.run_name: exclusion for exclusion in kitchen.sweep().exclusions}
    assert {name: exclusion.reason for name, exclusion in found.items()} == {
        "tune-2": ExclusionReason.INCOMPATIBLE,
        "tune-3": ExclusionReason.NOT_FINITE,
        "tune-4": ExclusionReason.INCOMPATIBLE,
        "bare": ExclusionReason.UNREADABLE,
    }
    assert "'use_dora' is set" in found["tune-2"].detail
    assert "base_model.model.enc.q.lora_A.weight" in found["tune-3"].detail
    assert "the base has no weights of these modules: enc.z" in found["tune-4"].detail
    assert "adapter_config.json is missing beside it" in found["bare"].detail
    assert str(kitchen.cache.folder) not in "".join(exclusion.detail for exclusion in found.values())


def test_a_base_that_cannot_be_used_is_named(kitchen: Kitchen, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {**WEIGHTS, "head.weight": torch.full((2, 3), math.nan)})
    for seed in range(2):
        kitchen.adapter(base, seed)
    prospects = kitchen.prospects()
    with pytest.raises(NoBase, match=r"its base .* cannot be used: NaN or infinity") as caught:
        kitchen.supply.read(prospects.found[0].source)
    assert "--base" in caught.value.mend


def test_adapters_in_another_precision_are_cast_when_they_are_merged(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base")
    for seed in range(2):
        kitchen.adapter(base, seed)
    sweep = kitchen.sweep(dtype="bfloat16")
    assert {spec.dtype for c in sweep.candidates for spec in c.checkpoint.tensors} == {"BF16"}
    assert {candidate.cast_from for candidate in sweep.candidates} == {("F32",)}


def test_a_models_folder_is_the_bases_with_the_tokenizer_that_was_logged(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base")
    kitchen.adapter(base)
    kitchen.adapter(base, 1, files={"tokenizer.json": b"own", "evil.py": b"evil"})
    request = SoupRequest(model="m", task="text-classification", experiment="e", base=str(base))
    folder = fetch_model_folder(request, kitchen.tracker, kitchen.supply, Silent(), tmp_path)
    assert {file.name: file.read_text() for file in folder.iterdir() if file.name != "config.json"} == {
        "vocab.txt": "base"
    }
    own = kitchen.prospects().found[1].source
    found = files_beside(own, Places(kitchen.tracker))
    assert {name: file.path for name, file in found.items()} == {
        "config.json": "config.json",
        "tokenizer.json": "out/tokenizer.json",
    }


@pytest.mark.parametrize(
    ("head", "outputs", "task"),
    [
        ("classifier", 3, "text-classification"),
        ("score", 1, "regression"),
        ("classifier.out_proj", 5, "text-classification"),
        ("pre_classifier", 0, "text-classification"),
    ],
)
def test_a_head_that_adapters_brought_tells_the_number_of_outputs(
    kitchen: Kitchen, tmp_path: Path, head: str, outputs: int, task: str
) -> None:
    base = write_base(tmp_path / "base", {"enc.q.weight": WEIGHTS["enc.q.weight"]})
    module = head.partition(".")[0]
    for seed in range(2):
        tensors = {**factors("enc.q", 4, 3, seed=seed), f"{head}.weight": torch.ones(outputs or 3, 3)}
        if "." in head:
            tensors["classifier.dense.weight"] = torch.ones(3, 3)
        kitchen.adapter(base, tensors=tensors, task_type="SEQ_CLS", modules_to_save=[module])
    assert f" --task {task} " in kitchen.check(base=str(base)).command
    request = SoupRequest(model="m", task=task, experiment="e", base=str(base))
    folder = fetch_model_folder(request, kitchen.tracker, kitchen.supply, Silent(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    names = {str(number): f"LABEL_{number}" for number in range(outputs)}
    assert config.get("id2label", {}) == names
    assert config.get("label2id", {}) == {name: int(number) for number, name in names.items()}


def test_a_check_proposes_the_task_that_the_bases_configuration_tells(
    kitchen: Kitchen, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base")
    for seed in range(2):
        kitchen.adapter(base, seed)
    found = kitchen.check()
    assert [(w.held, w.taken) for w in found.weights] == [
        ({"adapter by PEFT": 1}, "out/adapter_model.safetensors")
    ] * 2
    assert " --task text-classification --task-arg data=FOLDER" in found.command
    assert found.candidates == 2
    assert not list(kitchen.cache.folder.glob("*.safetensors"))


def test_an_adapter_whose_header_cannot_be_read_is_merged_when_it_arrives(
    kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_base(tmp_path / "base")
    for seed in range(2):
        kitchen.adapter(base, seed)
    wanted = kitchen.sweep()
    other = Kitchen(tmp_path / "other")
    other.tracker, other.base = kitchen.tracker, str(base)
    monkeypatch.setattr(other.tracker, "head", lambda *_: None)
    assert [prospect.layout for prospect in other.prospects().found] == [None, None]
    assert other.sweep().candidates == wanted.candidates


def test_a_base_in_shards_that_are_links_is_read(kitchen: Kitchen, tmp_path: Path) -> None:
    blobs, base = tmp_path / "blobs", tmp_path / "base"
    blobs.mkdir()
    base.mkdir()
    files = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    homes = dict(zip(WEIGHTS, files, strict=True))
    for name, file in homes.items():
        save_file({name: WEIGHTS[name]}, blobs / file)
    (blobs / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    for blob in blobs.iterdir():
        (base / blob.name).symlink_to(blob)
    for seed in range(2):
        kitchen.adapter(base, seed)
    assert len(kitchen.sweep().candidates) == 2


def test_a_base_that_went_away_is_named_when_its_soup_is_made_again(kitchen: Kitchen, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    for seed in range(2):
        kitchen.adapter(base, seed)
    one, _ = kitchen.sweep().candidates
    later = Kitchen(tmp_path / "later")
    later.tracker = kitchen.tracker
    supply = later.supply
    supply.offer([one])
    (base / "model.safetensors").rename(base / "elsewhere.safetensors")
    with pytest.raises(StockpotError, match=r"base/model\.safetensors"), supply.open(one.checkpoint.digest):
        pass
    (base / "elsewhere.safetensors").rename(base / "model.safetensors")
    with supply.open(one.checkpoint.digest) as file:
        assert file.tensors == one.checkpoint.tensors
