"""What a check tells of a sweep: by listings and headers alone, and with a command to go on with."""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from stockpot.entities import ExclusionReason, SoupRequest, WeightsSource
from stockpot.errors import NothingToSoup
from stockpot.soup import CheckpointCache
from stockpot.store.memory import MemoryStore
from stockpot.tasks.identity import TASKS, installed
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.check import SweepCheck, check_sweep
from stockpot.workflow.gathering.proposal import BY_ARCHITECTURE, REGRESSION, SENTENCES
from stockpot.workflow.gathering.supply import Supply

REQUEST = SoupRequest(model="MODEL", task="MODULE:CLASS", experiment="/Users/me/reviews", partial=True)
TORCH = b"PK\x03\x04 and the rest of an archive"
SKLEARN = b"flavors: {sklearn: {}, python_function: {}}"


def _weights(**tensors: Tensor) -> bytes:
    return save(tensors or {"w": torch.ones(2, 3)}, metadata={"format": "pt"})


def _config(architecture: str, **more: object) -> bytes:
    return json.dumps({"architectures": [architecture], **more}).encode()


class Sweep(MemoryTracker):
    """Runs with these files. Nothing is ever downloaded."""

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self._experiment = self.add_experiment("/Users/me/reviews")
        self._supply = Supply(self, MemoryStore(), CheckpointCache(cache))

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        raise AssertionError(f"{source.path} was to be downloaded to {into}")

    def run(self, files: Mapping[str, bytes], **about: Any) -> str:
        name = about.pop("name", f"tune-{len(self.runs_kept)}")
        run_id = self.add_run(self._experiment, name, **about)
        for path, content in files.items():
            self.add_file(run_id, path, content)
        return run_id

    def check(self, **changes: Any) -> SweepCheck:
        request = SoupRequest(**{**vars(REQUEST), **changes})
        return check_sweep(request, self, self._supply, Silent())


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Empty at first."""
    return Sweep(tmp_path)


SHARDS = {
    "model-00001-of-00002.safetensors": _weights(a=torch.ones(2)),
    "model-00002-of-00002.safetensors": _weights(b=torch.ones(3)),
    "model.safetensors.index.json": json.dumps(
        {
            "metadata": {"total_size": 20},
            "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
        }
    ).encode(),
}


@pytest.mark.parametrize(
    ("files", "form", "tensors"),
    [
        ({"model.safetensors": _weights()}, "safetensors", 1),
        (SHARDS, "safetensors in shards", 2),
        ({"data/model.pt2": b"an archive"}, "pt2", None),
        ({"epoch=1.ckpt": TORCH}, "torch file", None),
    ],
)
def test_each_form_is_told_and_souped_without_a_download(
    sweep: Sweep, files: Mapping[str, bytes], form: str, tensors: int | None
) -> None:
    for _ in range(3):
        sweep.run(files)
    found = sweep.check()
    assert [weights.held for weights in found.weights] == [{form: 1}] * 3
    assert all(weights.taken for weights in found.weights)
    (group,) = found.groups
    assert (group.used, group.tensors, len(group.runs)) == (True, tensors, 3)
    assert found.candidates == 3
    assert found.command.startswith("stockpot soup --experiment /Users/me/reviews --model Users-me-reviews ")
    assert any("no header that can be read" in note for note in found.notes) == (tensors is None)
    found.require_enough()


def test_runs_of_one_name_are_told_apart_by_their_ids(sweep: Sweep) -> None:
    """A script that sets the seed lets MLflow draw the same name for each run."""
    seeded = [sweep.run({"model.safetensors": _weights()}, name="lucky-slug-1") for _ in range(2)]
    bare = [sweep.run({}, name="lucky-slug-1"), sweep.run({}, name="other")]
    found = sweep.check()
    told = [f"lucky-slug-1 ({run_id})" for run_id in seeded]
    assert [weights.run_name for weights in found.weights] == told
    assert list(found.groups[0].runs) == told
    assert {one.run_name for one in found.exclusions} == {f"lucky-slug-1 ({bare[0]})", "other"}


def test_of_a_store_that_hands_out_no_parts_only_small_files_beside_the_weights_are_downloaded(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(source: WeightsSource, into: Path) -> Path:
        fetched.append(source.path)
        return MemoryTracker.fetch(sweep, source, into)

    monkeypatch.setattr(sweep, "head", lambda *_: None)
    monkeypatch.setattr(sweep, "fetch", fetch)
    for _ in range(2):
        sweep.run(
            {"w.safetensors": _weights(), "config.json": _config("GPT2LMHeadModel"), "vocab.json": b"{}"}
        )
    found = sweep.check()
    assert set(fetched) == {"config.json", "vocab.json"}
    assert " --task causal-lm " in found.command
    assert any("no header that can be read" in note for note in found.notes)


@pytest.mark.parametrize(
    ("files", "form", "reason", "said"),
    [
        (
            {"model/data/model.pth": b"\x80"},
            "pickled module",
            ExclusionReason.PICKLE,
            "pickles are never run",
        ),
        (
            {"ckpt/__0_0.distcp": b"x"},
            "part of a distributed checkpoint",
            ExclusionReason.PICKLE,
            "several processes wrote a part each",
        ),
        (
            {"out/adapter_model.safetensors": _weights(), "out/adapter_config.json": b"{}"},
            "adapter by PEFT",
            ExclusionReason.INCOMPATIBLE,
            "peft_type is 'None', not LORA",
        ),
    ],
    ids=["pickle", "part", "adapter"],
)
def test_what_stands_in_the_way_is_told_with_the_form_and_ends_in_the_error_of_a_soup(
    sweep: Sweep, files: Mapping[str, bytes], form: str, reason: ExclusionReason, said: str
) -> None:
    for _ in range(2):
        sweep.run(files)
    found = sweep.check()
    assert [(weights.held, weights.taken) for weights in found.weights] == [({form: 1}, "")] * 2
    assert {exclusion.reason for exclusion in found.exclusions} == {reason}
    assert all(said in exclusion.detail for exclusion in found.exclusions)
    assert found.command == ""
    with pytest.raises(NothingToSoup, match="no usable run") as caught:
        found.require_enough()
    assert caught.value.exit_code == 4


def test_models_of_other_libraries_are_told_beside_those_that_are_souped(sweep: Sweep) -> None:
    for _ in range(2):
        sweep.run({"model.safetensors": _weights()})
    sweep.add_model(sweep.run({}), "forest", {"MLmodel": SKLEARN, "model.pkl": b"\x80"})
    found = sweep.check()
    assert [*found.weights[-1].held] == ["a model of another library"]
    assert (found.runs, found.candidates) == (3, 2)


def test_runs_are_grouped_by_their_headers_and_the_largest_group_is_used(sweep: Sweep) -> None:
    for shape in (3, 4, 3, 3):
        sweep.run({"model.safetensors": _weights(w=torch.ones(2, shape), n=torch.tensor(1))})
    first, second = sweep.check().groups
    assert (first.used, first.runs, first.parameters) == (True, ("tune-0", "tune-2", "tune-3"), 7)
    assert (second.used, second.runs, second.dtypes) == (False, ("tune-1",), ("F32", "I64"))
    (stranger,) = sweep.check().exclusions
    assert "other shapes: w [2, 4] instead of [2, 3]" in stranger.detail


def _two_checkpoints(sweep: Sweep, *names: str, **more: bytes) -> None:
    for _ in range(2):
        sweep.run({name: _weights() for name in names} | more)


def test_the_best_by_the_tools_word_is_taken_and_the_word_named(sweep: Sweep) -> None:
    state = b'{"best_model_checkpoint": "out/checkpoint-5"}'
    folders = ("checkpoint-5", "checkpoint-9")
    _two_checkpoints(
        sweep,
        *(f"{folder}/model.safetensors" for folder in folders),
        **{f"{folder}/trainer_state.json": state for folder in folders},
    )
    found = sweep.check()
    assert {w.taken for w in found.weights} == {"checkpoint-5/model.safetensors"}
    assert {w.why for w in found.weights} == {"trainer_state.json tells that it is the best"}
    assert "--weights" not in found.command


@pytest.mark.parametrize(
    ("names", "word", "why"),
    [
        (
            ("step-5.safetensors", "step-9.safetensors"),
            "last",
            "its path or its step tells that it is the last",
        ),
        (("best.safetensors", "step-9.safetensors"), "best", "it is called best"),
    ],
)
def test_where_no_tool_recorded_a_best_the_command_says_which_checkpoint(
    sweep: Sweep, names: tuple[str, ...], word: str, why: str
) -> None:
    _two_checkpoints(sweep, *names)
    found = sweep.check()
    assert {w.why for w in found.weights} == {why}
    assert f" --weights {word} " in found.command
    assert any("no tool recorded the best checkpoint of 2 runs" in note for note in found.notes)
    named = sweep.check(weights="step-*")
    assert {(w.taken, w.why) for w in named.weights} == (
        {("step-9.safetensors", "--weights names it")} if word == "best" else {("", "")}
    )


def test_two_checkpoints_that_nothing_tells_apart_are_left_to_a_pattern(sweep: Sweep) -> None:
    _two_checkpoints(sweep, "a.safetensors", "b.safetensors")
    with pytest.raises(NothingToSoup) as caught:
        sweep.check().require_enough()
    assert caught.value.mend.startswith("--weights PATTERN")


def test_why_one_of_several_files_is_taken_is_told_for_tags_and_forms(sweep: Sweep) -> None:
    files = {"a.safetensors": _weights(), "b.ckpt": TORCH}
    sweep.run(files, tags={"stockpot.weights": "b.ckpt"})
    sweep.run(files)
    told = [(w.taken, w.why, w.held) for w in sweep.check().weights]
    held = {"safetensors": 1, "torch file": 1}
    assert told == [
        ("b.ckpt", "the run's tag stockpot.weights names it", held),
        ("a.safetensors", "the others are files by torch.save, or pickles", held),
    ]


def test_a_sweep_that_still_runs_is_told_and_the_command_takes_a_part(sweep: Sweep) -> None:
    for status in ("FINISHED", "FINISHED", "RUNNING"):
        sweep.run({"model.safetensors": _weights()}, status=status)
    found = sweep.check()
    assert found.command.endswith(" --partial")
    assert any("not finished: 1 run" in note for note in found.notes)


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (_config("BertForSequenceClassification"), "text-classification"),
        (_config("BertForSequenceClassification", id2label={"0": "LABEL_0"}), "regression"),
        (_config("BertForSequenceClassification", id2label=dict.fromkeys("012")), "text-classification"),
        (_config("RobertaForTokenClassification"), "token-classification"),
        (_config("LlamaForCausalLM"), "causal-lm"),
        (_config("GPT2LMHeadModel"), "causal-lm"),
        (_config("ViTForImageClassification"), "image-classification"),
    ],
)
def test_the_logged_configuration_tells_the_task(sweep: Sweep, config: bytes, task: str) -> None:
    beside = "preprocessor_config.json" if task.startswith("image") else "tokenizer.json"
    for _ in range(2):
        sweep.run({"out/model.safetensors": _weights(), "out/config.json": config, f"out/{beside}": b"{}"})
    assert sweep.check().command.endswith(f" --task {task} --task-arg data=FOLDER")


def test_a_model_by_sentence_transformers_is_told_by_its_modules(sweep: Sweep) -> None:
    files = {"out/model.safetensors": _weights(), "out/config.json": _config("BertModel")}
    for _ in range(2):
        sweep.run({**files, "out/modules.json": b"[]", "out/1_Pooling/config.json": b"{}"})
    assert sweep.check().command.endswith(" --task sentence-similarity --task-arg data=FOLDER")


def test_every_task_that_is_proposed_is_installed() -> None:
    assert {task for _, task in BY_ARCHITECTURE} | {REGRESSION, SENTENCES} <= installed(TASKS).keys()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "stockpot task new PATH"),
        (b"{", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "names no architecture"),
        (b'{"architectures": [5]}', "names no architecture"),
        (_config("T5ForConditionalGeneration"), "the architecture T5ForConditionalGeneration"),
        (_config("BertForCausalLM", auto_map={"AutoModel": "x--y"}), "code of its own"),
        (_config("BertForCausalLM", quantization_config={"bits": 4}), "quantised"),
        (_config("BertForSequenceClassification", problem_type="multi_label_classification"), "at once"),
    ],
)
def test_where_no_task_without_code_is_for_it_the_way_to_ones_own_is_named(
    sweep: Sweep, config: bytes | None, said: str
) -> None:
    for _ in range(2):
        sweep.run({"model.safetensors": _weights()} | ({"config.json": config} if config else {}))
    found = sweep.check()
    assert found.command.endswith(" --task MODULE:CLASS")
    assert any(said in note for note in found.notes)
    assert "stockpot task new PATH" in found.notes[-1]


def test_what_the_logged_folder_lacks_is_asked_for(sweep: Sweep) -> None:
    for _ in range(2):
        sweep.run({"model.safetensors": _weights(), "config.json": _config("BertForSequenceClassification")})
    found = sweep.check()
    assert found.command.endswith(" --task-arg data=FOLDER --task-arg model=MODEL_FOLDER")
    assert "no tokenizer lies beside config.json" in found.notes[-1]


@pytest.mark.parametrize(
    ("dtype", "make", "asked"),
    [
        ("bfloat16", torch.Tensor.float, True),
        ("bfloat16", torch.Tensor.half, True),
        ("bfloat16", torch.Tensor.bfloat16, False),
        ("float32", torch.Tensor.bfloat16, False),
    ],
)
def test_weights_of_another_precision_than_the_configurations_get_a_model_that_takes_them(
    sweep: Sweep, dtype: str, make: Callable[[Tensor], Tensor], *, asked: bool
) -> None:
    config = _config("LlamaForCausalLM", torch_dtype=dtype)
    for _ in range(2):
        weights = _weights(w=make(torch.ones(2)))
        sweep.run({"model.safetensors": weights, "config.json": config, "tokenizer.json": b"{}"})
    assert ("--task-arg dtype=float32" in sweep.check().command) == asked


def test_the_command_is_one_that_a_shell_takes(sweep: Sweep) -> None:
    for lr in ("it's", "it's", "b"):
        sweep.run({"model.safetensors": _weights()}, params={"lr": lr})
    found = sweep.check(filter='params.lr = "it\'s"')
    words = shlex.split(found.command)
    assert words[words.index("--filter") + 1] == 'params.lr = "it\'s"'
    assert found.runs == 2


def test_an_empty_sweep_and_one_of_one_run_say_why_they_are_no_soup(sweep: Sweep) -> None:
    with pytest.raises(NothingToSoup, match="has no runs"):
        sweep.check().require_enough()
    sweep.run({"model.safetensors": _weights()})
    with pytest.raises(NothingToSoup, match="one usable run"):
        sweep.check().require_enough()


def _notes_of(sweep: Sweep, *about: dict[str, Any]) -> list[str]:
    for more in about:
        sweep.run({"model.safetensors": _weights()}, **more)
    return [note for note in sweep.check().notes if "domain" in note]


def test_what_runs_tell_of_domains_is_told_before_anybody_asks(sweep: Sweep) -> None:
    told = ({"tags": {"stockpot.domain": name}} if name else {} for name in ("owls", "owls", "mice", ""))
    (note,) = _notes_of(sweep, *told)
    assert note.startswith("runs tell domains in stockpot.domain: owls (2 runs), mice (1 run), * (1 run);")


def test_runs_that_are_all_of_all_data_tell_no_domains(sweep: Sweep) -> None:
    about = {"tags": {"stockpot.domain": "*"}}
    kinds = ({"params": {"dataset": name}} | about for name in ("owls", "mice", "owls"))
    assert not _notes_of(sweep, *kinds)


def test_where_runs_may_tell_their_domain_is_told(sweep: Sweep) -> None:
    params = [{"dataset": name, "lr": str(place)} for place, name in enumerate(("owls", "mice", "owls"))]
    (note,) = _notes_of(sweep, *({"params": some} for some in params))
    assert note.startswith("runs were trained on different data, by params.dataset: mice, owls.")
    assert "--domain-from params.dataset" in note
    for place, name in enumerate(("sky", "sea", "sky")):
        sweep.add_dataset(f"run-{place}", f"d{place}", name)
    (note,) = _notes_of(sweep)
    assert "by inputs: sea, sky" in note, "what MLflow was told is surer than a parameter's name"


@pytest.mark.parametrize(
    "values",
    [("owls", "owls", "owls"), ("owls", "mice", ""), ("owls", "mice", "sky")],
    ids=["all alike", "not of each run", "another of each run"],
)
def test_parameters_that_tell_no_domains_are_left_alone(sweep: Sweep, values: tuple[str, ...]) -> None:
    assert not _notes_of(sweep, *({"params": {"dataset": value} if value else {}} for value in values))


def test_runs_that_all_used_the_same_data_sets_tell_no_domains(sweep: Sweep) -> None:
    for place in range(3):
        sweep.run({"model.safetensors": _weights()})
        for name in ("owls", "mice"):
            sweep.add_dataset(f"run-{place}", name, name)
    assert not _notes_of(sweep)
