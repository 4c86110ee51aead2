"""Tasks that need no code, on real tiny models and tokenizers, against transformers in plain loops."""

import inspect
import json
import math
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as pq
from torch import Tensor, nn

from stockpot.errors import BadTask, UnknownPlugin
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.ports import Task
from stockpot.tasks.huggingface.causal import CausalLanguageModelling
from stockpot.tasks.huggingface.classification import TextClassification, TextRegression
from stockpot.tasks.huggingface.images import ImageClassification
from stockpot.tasks.huggingface.tokens import TokenClassification
from stockpot.tasks.identity import source_identity
from stockpot.tasks.loading import load_task

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "the", "a", "very", "not", "##ly"]
TEXTS = ["the good film", "a bad film", "very good", "not a very very bad film", "bad", "goodly film"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says, nothing is asked for."""

    def refuse(*_: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def model_folder(folder: Path, kind: str = "Bert", **settings: Any) -> str:
    """A folder as ``save_pretrained`` writes it, without weights."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    config.save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    names = ["input_ids", *(["token_type_ids"] if kind == "Bert" else []), "attention_mask"]
    transformers.BertTokenizer(vocab=str(vocabulary), model_input_names=names).save_pretrained(folder)
    return str(folder)


def lines(file: Path, rows: Rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def parquet(file: Path, rows: Rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def filled(task: Task) -> nn.Module:
    """The task's model with weights far enough from each other that answers differ."""
    torch.manual_seed(0)
    module = task.model()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def scored(task: Task, module: nn.Module, split: str, size: int) -> tuple[Tensor, Tensor]:
    """Outputs and scores of all examples, in batches of this size, the last one shorter."""
    examples = task.examples(split)
    outputs, scores = [], []
    with torch.inference_mode():
        for start in range(0, len(examples), size):
            batch = task.collate([examples[i] for i in range(start, min(start + size, len(examples)))])
            outputs.append(task.predict(module, batch))
            scores.append(task.score(outputs[-1], batch))
    return torch.cat(outputs), torch.cat(scores)


def faults_of(call: Callable[[], object]) -> str:
    with pytest.raises(BadTask) as caught:
        call()
    return str(caught.value)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    names: dict[str, Any] = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}
    return model_folder(tmp_path_factory.mktemp("bert"), **names)


REVIEWS: Rows = [{"text": text, "label": place % 2} for place, text in enumerate(TEXTS)]


def test_each_task_is_installed_under_its_name_and_wants_data_and_a_model() -> None:
    import importlib.metadata

    installed = {p.name: p for p in importlib.metadata.entry_points(group="stockpot.tasks")}
    for name, kind in {
        "text-classification": TextClassification,
        "regression": TextRegression,
        "token-classification": TokenClassification,
        "causal-lm": CausalLanguageModelling,
        "image-classification": ImageClassification,
    }.items():
        assert installed[name].load() is kind
        wanted = inspect.signature(kind).parameters
        assert [p for p in wanted if wanted[p].default is inspect.Parameter.empty] == ["data", "model"]
        source = source_identity(name)
        assert "stockpot.tasks.huggingface.data" in dict(source.modules)
        assert {"transformers", "torch"} <= dict(source.distributions).keys()
        assert not source.doubts


def test_accuracy_is_that_of_the_model_on_each_text_alone(bert: str, tmp_path: Path) -> None:
    lines(tmp_path / "validation.jsonl", REVIEWS)
    task = load_task("text-classification", {"data": str(tmp_path), "model": bert})
    module = filled(task)
    logits, scores = scored(task, module, "validation", 4)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert)
    with torch.inference_mode():
        alone = [module(**tokenizer(row["text"], return_tensors="pt")).logits[0] for row in REVIEWS]
    torch.testing.assert_close(logits, torch.stack(alone))
    right = [float(a.argmax() == r["label"]) for a, r in zip(alone, REVIEWS, strict=True)]
    assert scores.tolist() == right
    assert 0 < sum(right) < len(right)
    assert task.bounds == (0.0, 1.0)
    batch = task.collate([task.examples("validation")[3]])
    assert CheckedTask(task, "t").inputs(batch).keys() == {"input_ids", "token_type_ids", "attention_mask"}
    assert batch["input_ids"].shape == (1, 8)  # the longest one, with its two special tokens
    assert task.score(torch.tensor([[math.nan, 1.0]]), batch).isnan().all()


def test_a_text_is_cut_where_the_model_ends_or_where_asked(bert: str, tmp_path: Path) -> None:
    lines(tmp_path / "test.jsonl", [{"text": "very " * 40, "label": 0}])
    whole = TextClassification(data=str(tmp_path), model=bert)
    assert whole.examples("test")[0]["input_ids"].shape == (16,)
    cut = TextClassification(data=str(tmp_path), model=bert, max_length="5")
    assert cut.examples("test")[0]["input_ids"].tolist() == [2, 9, 9, 9, 3]
    assert cut.digest("test") != whole.digest("test")
    assert "max_length is 17, the model has 16 positions" in faults_of(
        lambda: TextClassification(data=str(tmp_path), model=bert, max_length="17")
    )
    small = model_folder(tmp_path / "small", vocab_size=9)
    said = faults_of(lambda: TextClassification(data=str(tmp_path), model=small).examples("test"))
    assert "its tokenizer gives token 9, and the model knows 9, from 0 on" in said
    roberta = model_folder(tmp_path / "roberta", "Roberta", pad_token_id=0)
    task = TextClassification(data=str(tmp_path), model=roberta)
    assert task.examples("test")[0]["input_ids"].shape == (15,)  # it counts from behind its padding token
    assert scored(task, filled(task), "test", 1)[0].isfinite().all()


def test_names_of_classes_are_the_models_or_the_arguments(bert: str, tmp_path: Path) -> None:
    named = [{"sentence": t, "label": "pos" if p % 2 else "neg"} for p, t in enumerate(TEXTS)]
    lines(tmp_path / "data" / "test.jsonl", named)
    wanted = [place % 2 for place in range(len(TEXTS))]
    task = TextClassification(data=str(tmp_path / "data"), model=bert)
    assert [int(e["labels"]) for e in task.examples("test")] == wanted
    plain = model_folder(tmp_path / "model", num_labels=2)
    said = faults_of(lambda: TextClassification(data=str(tmp_path / "data"), model=plain).examples("test"))
    assert "test.jsonl, row 2: label 'pos' is none of the model's classes" in said
    assert "LABEL_0 (0), LABEL_1 (1)" in said
    task = TextClassification(data=str(tmp_path / "data"), model=plain, labels="neg,pos")
    config: Any = task.model().config
    assert (config.id2label, config.label2id) == ({0: "neg", 1: "pos"}, {"neg": 0, "pos": 1})
    assert [int(e["labels"]) for e in task.examples("test")] == wanted
    said = faults_of(lambda: TextClassification(data=str(tmp_path), model=plain, labels="neg"))
    assert "labels names 1 classes, the model has 2" in said


def test_a_pair_of_texts_is_given_together(bert: str, tmp_path: Path) -> None:
    rows = [{"premise": "the film", "hypothesis": "good film", "label": 1}]
    lines(tmp_path / "test.jsonl", rows)
    [found] = TextClassification(data=str(tmp_path), model=bert).examples("test")
    assert found["input_ids"].tolist() == [2, 7, 6, 3, 4, 6, 3]
    assert found["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    task = TextClassification(data=str(tmp_path), model=bert, text="hypothesis", text_pair="premise")
    assert task.examples("test")[0]["input_ids"].tolist() == [2, 4, 6, 3, 7, 6, 3]
    alone = TextClassification(data=str(tmp_path), model=bert, text="hypothesis")
    assert alone.examples("test")[0]["input_ids"].tolist() == [2, 4, 6, 3]


def test_the_same_rows_have_one_digest_in_whatever_files_they_lie(bert: str, tmp_path: Path) -> None:
    lines(tmp_path / "a" / "test.jsonl", REVIEWS)
    parquet(tmp_path / "b" / "test.parquet", REVIEWS)
    parquet(tmp_path / "c" / "test-00000-of-00002.parquet", REVIEWS[:2])
    parquet(tmp_path / "c" / "test-00001-of-00002.parquet", REVIEWS[2:])
    parquet(tmp_path / "d" / "test" / "1.parquet", REVIEWS[:3])
    lines(tmp_path / "d" / "test" / "2.jsonl", REVIEWS[3:])
    (tmp_path / "d" / "README.md").write_text("of no split")
    other: Rows = [{"text": "the film", "label": 0, "split": "validation"}]
    parquet(tmp_path / "e.parquet", [*other, *({**row, "split": "test"} for row in REVIEWS)])
    lines(tmp_path / "f" / "test.jsonl", [{"id": 7, **row} for row in REVIEWS])
    named = [TextClassification(data=str(tmp_path / n), model=bert) for n in ("a", "b", "c", "d", "f")]
    digests = {task.digest("test") for task in named}
    digests.add(TextClassification(data=str(tmp_path / "e.parquet"), model=bert).digest("test"))
    digests.add(TextClassification(data=str(tmp_path / "a" / "test.jsonl"), model=bert).digest("test"))
    assert len(digests) == 1
    lines(tmp_path / "a" / "test.jsonl", [*REVIEWS[1:], REVIEWS[0]])
    lines(tmp_path / "b" / "test.jsonl", [{**REVIEWS[0], "label": 1}, *REVIEWS[1:]])
    (tmp_path / "b" / "test.parquet").unlink()
    changed = {TextClassification(data=str(tmp_path / n), model=bert).digest("test") for n in "ab"}
    assert len(changed | digests) == 3


def test_a_split_that_is_not_there_is_answered_with_those_that_are(bert: str, tmp_path: Path) -> None:
    lines(tmp_path / "validation.jsonl", REVIEWS)
    lines(tmp_path / "test.jsonl", [])
    task = TextClassification(data=str(tmp_path), model=bert)
    with pytest.raises(ValueError, match="no split 'train'; it has test, validation"):
        task.examples("train")
    with pytest.raises(BadTask, match="there is no split 'train'"):
        CheckedTask(task, "t").examples("train")
    lines(tmp_path / "empty" / "test.jsonl", [{"text": "good", "label": 0, "split": "validation"}])
    (tmp_path / "test").mkdir()
    assert "lies in several places" in faults_of(
        lambda: TextClassification(data=str(tmp_path), model=bert).examples("test")
    )
    (tmp_path / "test.jsonl").unlink()
    assert "has no .parquet or .jsonl file" in faults_of(
        lambda: TextClassification(data=str(tmp_path), model=bert).examples("test")
    )


def test_an_empty_split_says_so(bert: str, tmp_path: Path) -> None:
    parquet(tmp_path / "test.parquet", REVIEWS)
    table = pq.read_table(tmp_path / "test.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "test.parquet")
    lines(tmp_path / "validation.jsonl", [])
    kinds = (TextClassification, TextRegression, TokenClassification, CausalLanguageModelling)
    one = model_folder(tmp_path / "one", num_labels=1)
    for kind in kinds:
        task = kind(data=str(tmp_path), model=one if kind is TextRegression else bert)
        for split in ("test", "validation"):
            said = faults_of(lambda s=split, t=task: CheckedTask(t, "t").examples(s))  # type: ignore[misc]
            assert f"split {split!r} is empty" in said


def test_every_fault_of_a_split_is_told_with_its_file_and_row(bert: str, tmp_path: Path) -> None:
    rows: Rows = [
        {"text": "good", "label": 0},
        {"text": None, "label": 2},
        {"text": 7, "label": "neutral"},
        {"label": None},
    ]
    lines(tmp_path / "test.jsonl", rows)
    task = TextClassification(data=str(tmp_path), model=bert)
    with pytest.raises(BadTask, match=r"split 'test' of .* cannot be used") as caught:
        task.examples("test")
    assert caught.value.faults == (
        "test.jsonl, row 2: text is missing",
        "test.jsonl, row 3: text is a int, no text",
        "test.jsonl, row 4: text is missing",
        "test.jsonl, row 2: label 2 is none of the model's classes",
        "test.jsonl, row 3: label 'neutral' is none of the model's classes",
        "test.jsonl, row 4: label is missing",
    )
    assert "neg (0), pos (1)" in caught.value.mend
    lines(tmp_path / "columns.jsonl", [{"review": "good", "label": 0}])
    with pytest.raises(BadTask, match="--task-arg text=NAME") as caught:
        TextClassification(data=str(tmp_path), model=bert).examples("columns")
    assert "classes" not in caught.value.mend, "the labels were right"
    lines(tmp_path / "many.jsonl", [{"text": "good", "label": 9}] * 30)
    said = faults_of(lambda: TextClassification(data=str(tmp_path), model=bert).examples("many"))
    assert said.count("row") == 21 + said.count("rows") - 1
    assert "and 10 more faults" in said
    lines(tmp_path / "odd.jsonl", [{"x": "good", "y": 9}])
    said = faults_of(lambda: TextClassification(data=str(tmp_path), model=bert, group="z").examples("odd"))
    assert "no column is named text, sentence" in said
    assert "--task-arg label=NAME" in said
    assert "has no column 'z'" in said
    lines(tmp_path / "two.jsonl", [{"text": "good", "sentence": "bad", "label": 0}])
    said = faults_of(lambda: TextClassification(data=str(tmp_path), model=bert).examples("two"))
    assert "several columns may be the text: text, sentence" in said


def test_damaged_files_are_named(bert: str, tmp_path: Path) -> None:
    parquet(tmp_path / "test" / "1.parquet", REVIEWS)
    whole = (tmp_path / "test" / "1.parquet").read_bytes()
    (tmp_path / "test" / "2.parquet").write_bytes(whole[:-9])
    parquet(tmp_path / "test" / "3.parquet", [{"text": "good"}])
    (tmp_path / "test" / "4.jsonl").write_text('{"text": "good", "label": 1}\n{"text": \n[1]\n')
    (tmp_path / "test" / "5.jsonl").write_bytes(b"\xff\xfe")
    said = faults_of(lambda: TextClassification(data=str(tmp_path), model=bert).examples("test"))
    assert "2.parquet: cannot be read as parquet" in said
    assert "3.parquet: has no column label, which other files have" in said
    assert "4.jsonl, row 2: no JSON" in said
    assert "4.jsonl, row 3: a list, not an object with columns" in said
    assert "5.jsonl: cannot be read as text" in said
    (tmp_path / "test").rename(tmp_path / "old")
    damaged = bytearray(whole)
    damaged[10:200] = bytes(190)
    (tmp_path / "test.parquet").write_bytes(damaged)
    assert "cannot be read" in faults_of(
        lambda: TextClassification(data=str(tmp_path), model=bert).examples("test")
    )


def test_faulty_arguments_are_told_at_once_and_no_hub_is_asked(tmp_path: Path) -> None:
    said = faults_of(
        lambda: TextClassification(
            data=str(tmp_path),
            model="google-bert/bert-base-uncased",
            batch_size="0",
            max_length="x",
            dtype="int8",
        )
    )
    assert "batch_size must be a whole number above zero, got '0'" in said
    assert "max_length must be a whole number above zero, got 'x'" in said
    assert "dtype must be float32, float16, bfloat16, got 'int8'" in said
    assert f"data: {tmp_path} holds no split" in said
    assert "bert-base-uncased is no folder; nothing is downloaded" in said


def test_a_models_own_code_and_quantised_weights_are_refused(tmp_path: Path) -> None:
    data = str(lines(tmp_path / "test.jsonl", REVIEWS))

    def said(file: str, **settings: object) -> str:
        folder = model_folder(tmp_path / "model")
        known = json.loads((tmp_path / "model" / file).read_text())
        (tmp_path / "model" / file).write_text(json.dumps(known | settings))
        return faults_of(lambda: TextClassification(data=data, model=folder))

    own = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "evil.py").write_text("raise SystemExit('run')")
    assert "brings code of its own (auto_map), which is never run" in said("config.json", auto_map=own)
    assert "tokenizer_config.json brings code of its own" in said(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}
    )
    assert "quantised weights" in said("config.json", quantization_config={"quant_method": "gptq"})
    assert "several classes at once" in said("config.json", problem_type="multi_label_classification")
    assert "the task regression" in said("config.json", id2label={0: "score"}, label2id={"score": 0})
    assert "config.json cannot be used" in said("config.json", model_type="no-such-model")
    assert "config.json cannot be used" in said("config.json", hidden_size=15)
    assert "dtype is 'int8'" in said("config.json", dtype="int8")
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "it names no model_type" in faults_of(
        lambda: TextClassification(data=data, model=str(tmp_path / "model"))
    )
    (tmp_path / "model" / "config.json").unlink()
    assert "config.json cannot be used" in faults_of(
        lambda: TextClassification(data=data, model=str(tmp_path / "model"))
    )


def test_a_folder_without_a_tokenizer_says_how_to_save_one(tmp_path: Path) -> None:
    folder = Path(model_folder(tmp_path / "model"))
    for file in folder.iterdir():
        if file.name not in ("config.json", "tokenizer_config.json"):
            file.unlink()
    data = str(lines(tmp_path / "test.jsonl", REVIEWS))
    for _ in range(2):
        said = faults_of(lambda: TextClassification(data=data, model=str(folder)))
        assert "has no tokenizer that can be used: it knows no words" in said
        assert "tokenizer.save_pretrained" in said
        (folder / "tokenizer_config.json").unlink(missing_ok=True)
    model_folder(folder, "Llama", num_key_value_heads=1)
    (folder / "tokenizer.json").write_text("{}")
    said = faults_of(lambda: CausalLanguageModelling(data=data, model=str(folder)))
    assert "has no tokenizer that can be used" in said
    folder = Path(model_folder(tmp_path / "images", "ViT"))
    said = faults_of(lambda: ImageClassification(data=data, model=str(folder)))
    assert "has no image processor that can be used" in said
    assert "image_processor.save_pretrained" in said


def test_the_models_type_of_numbers_is_its_configurations_unless_asked(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", dtype="bfloat16")
    data = str(lines(tmp_path / "test.jsonl", REVIEWS))
    before = torch.get_default_dtype()
    for dtype, wanted in {"": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}.items():
        module = TextClassification(data=data, model=folder, dtype=dtype).model()
        assert {parameter.dtype for parameter in module.parameters()} == {wanted}
        assert not module.training
    assert torch.get_default_dtype() is before
    plain = model_folder(tmp_path / "plain")
    document = json.loads((tmp_path / "plain" / "config.json").read_text())
    document.pop("dtype", None)
    (tmp_path / "plain" / "config.json").write_text(
        json.dumps(document | {"attn_implementation": "a/kernel"})
    )
    module = TextClassification(data=data, model=plain).model()
    assert next(module.parameters()).dtype is torch.float32
    assert module.config._attn_implementation == "sdpa"  # type: ignore[union-attr]


def test_what_is_not_installed_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextClassification, "needs", ("transformers", "not_installed_here"))
    with pytest.raises(UnknownPlugin, match="needs not_installed_here") as caught:
        load_task("text-classification", {"data": "x", "model": "y"})
    assert caught.value.mend == "pip install 'stockpot[transformers]'"


def test_transformers_is_not_imported_before_a_task_is_made() -> None:
    modules = ("causal", "classification", "images", "tokens")
    code = "import sys, stockpot\n" + "".join(f"import stockpot.tasks.huggingface.{m}\n" for m in modules)
    subprocess.run(
        [sys.executable, "-c", f"{code}assert not {{'transformers', 'pyarrow', 'PIL'}} & set(sys.modules)"],
        check=True,
    )


def test_the_architecture_is_made_again_without_either_folder(bert: str, tmp_path: Path) -> None:
    data = str(lines(tmp_path / "test.jsonl", REVIEWS))
    task = TextClassification(data=data, model=bert, label="label")
    reference, args = TextClassification.rebuilt_from(data=data, model=bert, label="label")
    module, _, name = reference.partition(":")
    made: nn.Module = getattr(sys.modules[module], name)(**args)
    assert bert not in json.dumps(args)
    live = filled(task)
    made.load_state_dict(live.state_dict())
    batch = task.collate(list(task.examples("test")))
    assert torch.equal(task.predict(made, batch), task.predict(live, batch))


def test_examples_of_one_document_share_an_origin(bert: str, tmp_path: Path) -> None:
    rows = [{**row, "document": place // 2} for place, row in enumerate(REVIEWS)]
    lines(tmp_path / "test.jsonl", rows)
    task = TextClassification(data=str(tmp_path), model=bert, text="text", group="document")
    assert task.groups("test") == [0, 0, 1, 1, 2, 2]
    assert TextClassification(data=str(tmp_path), model=bert, text="text").groups("test") is None


def test_examples_are_of_the_domain_that_a_column_tells_or_their_folder(bert: str, tmp_path: Path) -> None:
    rows = [{**row, "domain": "ab"[place % 2]} for place, row in enumerate(REVIEWS)]
    lines(tmp_path / "told.jsonl", rows)
    lines(tmp_path / "untold.jsonl", [*rows[:2], REVIEWS[2]])
    for domain, place in (("sea", 0), ("sky", 1)):
        (tmp_path / "foldered" / domain).mkdir(parents=True)
        lines(tmp_path / "foldered" / domain / "x.jsonl", REVIEWS[place : place + 2])
        (tmp_path / "foldered" / domain / "._x.jsonl").write_bytes(b"left by some archivers")
    lines(tmp_path / "none.jsonl", REVIEWS)
    lines(tmp_path / "numbered.jsonl", [{**row, "domain": 7} for row in REVIEWS])
    task = TextClassification(data=str(tmp_path), model=bert, text="text")
    assert task.domains("told") == ["a", "b", "a", "b", "a", "b"]
    assert task.domains("foldered") == ["sea", "sea", "sky", "sky"]
    assert len(task.examples("foldered")) == 4
    assert task.domains("none") is None
    assert task.domains("numbered") is None, "another column of that name, of somebody who knows no domains"
    assert task.domains("untold") == ["a", "b", ""]


def test_regression_is_scored_by_minus_the_squared_error(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", num_labels=1)
    numbers = [0.5, -1, 2.25, 0, 3, 1e3]
    lines(tmp_path / "test.jsonl", [{"text": t, "score": n} for t, n in zip(TEXTS, numbers, strict=True)])
    task = load_task("regression", {"data": str(tmp_path / "test.jsonl"), "model": folder})
    assert task.bounds is None
    module = filled(task)
    outputs, scores = scored(task, module, "test", 4)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        alone = [module(**tokenizer(text, return_tensors="pt")).logits.item() for text in TEXTS]
    errors = [-((a - n) ** 2) for a, n in zip(alone, numbers, strict=True)]
    torch.testing.assert_close(scores, torch.tensor(errors, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert outputs.shape == (6,)
    bad: Rows = [{"text": "good", "label": "1"}, {"text": "bad", "label": float("nan")}]
    lines(tmp_path / "bad.jsonl", bad)
    said = faults_of(lambda: TextRegression(data=str(tmp_path), model=folder).examples("bad"))
    assert "bad.jsonl, row 1: label is '1', no finite number" in said
    assert "bad.jsonl, row 2: label is nan, no finite number" in said
    two = model_folder(tmp_path / "two")
    assert "has 2 outputs" in faults_of(lambda: TextRegression(data=str(tmp_path), model=two))
    assert task.score(torch.tensor([math.nan]), {"labels": torch.zeros(1)}).isnan().all()


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCES: Rows = [
    {"tokens": ["the", "goodly", "film"], "ner_tags": [0, 1, 2]},
    {"tokens": ["a", "bad"], "ner_tags": [3, 4]},
    {"tokens": ["very"], "ner_tags": [0]},
]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model_folder(tmp_path_factory.mktemp("tagger"), id2label=dict(enumerate(TAGS)))


def test_entities_are_counted_whole_by_the_first_part_of_each_word(tagger: str, tmp_path: Path) -> None:
    lines(tmp_path / "test.jsonl", SENTENCES)
    task = TokenClassification(data=str(tmp_path), model=tagger)
    examples = list(task.examples("test"))
    batch = task.collate(examples)
    asked = [-100, 0, 1, -100, 2, -100]  # goodly is two tokens
    assert batch["labels"].tolist() == [asked, [-100, 3, 4, -100, -100, -100], [-100, 0, *[-100] * 4]]
    assert "labels" not in task.inputs(batch)
    targets = task.targets(batch)

    def outputs(*answered: list[int]) -> Tensor:
        places = [[-1, *row, *[0] * (5 - len(row))] for row in answered]
        return nn.functional.one_hot(torch.tensor(places) % 5, 5).float()

    assert task.metric(outputs([0, 1, 9, 2], [3, 4], [0]), targets) == 1.0
    # Of two entities one is found whole, one has a word too few, and one is found where none is.
    some = outputs([0, 1, 9, 2], [3, 0], [1])
    assert task.metric(some, targets) == pytest.approx(2 * 1 / (2 + 3))
    assert task.score(some, batch).tolist() == [1.0, 0.5, 0.0]
    some[0, 3] = math.nan  # the second part of a word, which nobody asks
    assert task.metric(some, targets) == pytest.approx(0.4)
    some[0, 2, 1] = math.nan
    assert math.isnan(task.metric(some, targets))
    assert task.score(some, batch).isnan().tolist() == [True, False, False]
    nothing = targets[2:], outputs([0])
    assert math.isnan(task.metric(nothing[1], nothing[0]))


def test_tags_are_those_of_the_model_on_each_sentence_alone(tagger: str, tmp_path: Path) -> None:
    from seqeval.metrics import f1_score
    from transformers import AutoTokenizer

    named = [{**row, "ner_tags": [TAGS[t] for t in row["ner_tags"]]} for row in SENTENCES]
    parquet(tmp_path / "test.parquet", named * 20)
    task = load_task("token-classification", {"data": str(tmp_path), "model": tagger})
    module = filled(task)
    logits, scores = scored(task, module, "test", 7)
    tokenizer = AutoTokenizer.from_pretrained(tagger)
    found = []
    for row in SENTENCES:
        given = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
        with torch.inference_mode():
            answers = module(**given).logits[0].argmax(dim=1).tolist()
        firsts = [given.word_ids().index(word) for word in range(len(row["tokens"]))]
        found.append([TAGS[answers[place]] for place in firsts])
    wanted = [row["ner_tags"] for row in named]
    checked = CheckedTask(task, "t")
    targets = checked.targets(task.collate(list(task.examples("test"))), None, 60, "")
    assert checked.measures_whole
    assert checked.metric(logits, targets, "") == pytest.approx(f1_score(wanted * 20, found * 20))
    shares = [
        np.mean([a == b for a, b in zip(one, two, strict=True)])
        for one, two in zip(found, wanted, strict=True)
    ]
    np.testing.assert_allclose(scores, shares * 20, rtol=1e-6)


def test_classes_that_are_no_entities_are_counted_by_the_word(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", id2label={0: "NOUN", 1: "VERB"})
    rows = [{"words": ["the", "film"], "tags": ["NOUN", "VERB"]}, {"words": ["bad"], "tags": ["VERB"]}]
    lines(tmp_path / "test.jsonl", rows)
    task = TokenClassification(data=str(tmp_path), model=folder)
    targets = task.targets(task.collate(list(task.examples("test"))))
    outputs = torch.zeros(*targets.shape, 2)
    outputs[..., 1] = 1.0
    assert task.metric(outputs, targets) == pytest.approx(2 / 3)


def test_words_beyond_the_limit_are_not_asked_for_and_faulty_rows_are_named(
    tagger: str, tmp_path: Path
) -> None:
    lines(tmp_path / "test.jsonl", SENTENCES)
    task = TokenClassification(data=str(tmp_path), model=tagger, max_length="4")
    assert task.examples("test")[0]["labels"].tolist() == [-100, 0, 1, -100]
    bad: Rows = [
        {"tokens": ["the", "film"], "ner_tags": [0]},
        {"tokens": "the film", "ner_tags": [0, 0]},
        {"tokens": ["the"], "ner_tags": ["B-ORG"]},
        {"tokens": ["the"], "ner_tags": None},
    ]
    lines(tmp_path / "bad.jsonl", bad)
    with pytest.raises(BadTask) as caught:
        TokenClassification(data=str(tmp_path), model=tagger).examples("bad")
    assert caught.value.faults == (
        "bad.jsonl, row 1: ner_tags is no list with one class for each of 2 words",
        "bad.jsonl, row 2: tokens is no list of words",
        "bad.jsonl, row 3: ner_tags 'B-ORG' is none of the model's classes",
        "bad.jsonl, row 4: ner_tags is no list with one class for each of 1 words",
    )


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
def test_a_documents_score_is_its_log_likelihood(kind: str, tmp_path: Path) -> None:
    tied = {"tie_word_embeddings": True, "num_key_value_heads": 1} if kind == "Llama" else {}
    folder = model_folder(tmp_path / "model", kind, bos_token_id=2, eos_token_id=3, **tied)
    lines(tmp_path / "test.jsonl", [{"text": text} for text in TEXTS])
    task = load_task("causal-lm", {"data": str(tmp_path), "model": folder})
    assert task.bounds is None
    module = filled(task)
    assert not module.config.use_cache  # type: ignore[union-attr]
    probabilities, scores = scored(task, module, "test", 4)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            wanted.append(-module(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1))
    torch.testing.assert_close(scores, torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert ((probabilities > 0) & (probabilities <= 1)).all()
    asked = CheckedTask(task, "t")
    assert asked.log_likelihoods(probabilities, None, len(TEXTS), "").sum(dim=1).equal(scores)
    assert asked.unit == "nats"
    predicted = sum(len(tokenizer(text)["input_ids"]) - 1 for text in TEXTS)
    assert asked.beside("test", sum(wanted) / len(TEXTS)) == pytest.approx(
        {"perplexity": math.exp(-sum(wanted) / predicted)}
    )
    assert asked.beside("test", math.nan) == {}
    assert task.score(torch.tensor([[math.nan, 1.0]]), None).isnan().all()
    batch = task.collate([task.examples("test")[0]])
    assert CheckedTask(task, "t").inputs(batch).keys() == {"input_ids", "attention_mask"}


def test_a_text_of_which_no_token_is_left_is_named(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    folder = model_folder(tmp_path / "model", "GPT2", bos_token_id=2, eos_token_id=3)
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a word, no password
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    lines(tmp_path / "test.jsonl", [{"text": "good film"}, {"text": " "}])
    task = CausalLanguageModelling(data=str(tmp_path), model=folder)  # neither names a padding token
    assert "test.jsonl, row 2: has no tokens" in faults_of(lambda: task.examples("test"))
    lines(tmp_path / "labelled.jsonl", REVIEWS)
    assert "names a padding token" in faults_of(lambda: TextClassification(data=str(tmp_path), model=folder))


def test_a_decoder_that_chooses_classes_pads_as_its_tokenizer_does(tmp_path: Path) -> None:
    sizes = {"num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
    folder = model_folder(tmp_path / "model", "Llama", pad_token_id=None, **sizes)
    same = model_folder(tmp_path / "same", "Llama", pad_token_id=0, **sizes)
    data = str(lines(tmp_path / "data" / "test.jsonl", REVIEWS))
    task, told = (TextClassification(data=data, model=each, label="label") for each in (folder, same))
    module = filled(task)
    wanted = scored(told, filled(told), "test", 3)[0]
    torch.testing.assert_close(scored(task, module, "test", 3)[0], wanted)
    _, args = TextClassification.rebuilt_from(data=data, model=folder, label="label")
    assert json.loads(args["config"])["pad_token_id"] == module.config.pad_token_id == 0  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    import transformers

    folder = tmp_path_factory.mktemp("vit")
    sizes = {name: SIZES[name] for name in SIZES if name not in ("vocab_size", "max_position_embeddings")}
    names = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    transformers.ViTConfig(image_size=8, patch_size=4, **sizes, **names).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
    return str(folder)


def drawn(folder: Path) -> list[tuple[Path, int]]:
    from PIL import Image

    found = []
    for place in range(6):
        kind = ["cat", "dog"][place % 2]
        pixels = np.random.default_rng(place).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("L" if place == 3 else "RGB").save(folder / kind / f"{place}.png")
        found.append((folder / kind / f"{place}.png", place % 2))
    return sorted(found)


def test_images_of_folders_and_of_parquet_are_classified_alike(vit: str, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    images = drawn(tmp_path / "folders" / "validation")
    rows: Rows = [
        {"image": {"bytes": file.read_bytes(), "path": file.name}, "label": label} for file, label in images
    ]
    parquet(tmp_path / "parquet" / "validation-00000-of-00001.parquet", rows)
    task = load_task("image-classification", {"data": str(tmp_path / "folders"), "model": vit})
    other = ImageClassification(data=str(tmp_path / "parquet"), model=vit)
    assert isinstance(task, ImageClassification)
    assert task.digest("validation") == other.digest("validation")
    module = filled(task)
    logits, scores = scored(task, module, "validation", 4)
    assert torch.equal(scored(other, module, "validation", 4)[0], logits)
    processor = AutoImageProcessor.from_pretrained(vit, backend="pil")
    with torch.inference_mode():
        alone = [
            module(**processor(images=Image.open(file).convert("RGB"), return_tensors="pt")).logits[0]
            for file, _ in images
        ]
    torch.testing.assert_close(logits, torch.stack(alone))
    right = [float(a.argmax() == label) for a, (_, label) in zip(alone, images, strict=True)]
    assert scores.tolist() == right
    assert task.inputs(task.collate([task.examples("validation")[0]])).keys() == {"pixel_values"}
    half = ImageClassification(data=str(tmp_path / "folders"), model=vit, dtype="bfloat16")
    assert scored(half, filled(half), "validation", 3)[0].dtype is torch.bfloat16


def test_folders_of_no_class_and_files_that_are_no_images_are_named(vit: str, tmp_path: Path) -> None:
    drawn(tmp_path / "test")
    (tmp_path / "test" / "cat" / "9.png").write_bytes(b"no image")
    task = ImageClassification(data=str(tmp_path), model=vit)
    with pytest.raises(ValueError, match=r"test/cat/9\.png: no image that can be read"):
        _ = task.examples("test")[3]
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "bird")
    said = faults_of(lambda: ImageClassification(data=str(tmp_path), model=vit, group="x").examples("test"))
    assert "test/bird/0.png: the folder 'bird' is none of the model's classes" in said
    assert "group names a column, and folders of images have none" in said
    task = ImageClassification(data=str(tmp_path), model=vit, labels="bird,dog")
    assert [int(task.examples("test").labels[i]) for i in (0, -1)] == [0, 1]
    parquet(tmp_path / "other.parquet", [{"image": None, "label": 0}, {"image": {"path": "x"}, "label": 2}])
    said = faults_of(lambda: ImageClassification(data=str(tmp_path), model=vit).examples("other"))
    assert "other.parquet, row 1: image holds no bytes of an image" in said
    assert "other.parquet, row 2: image holds no bytes of an image" in said
    assert "other.parquet, row 2: label 2 is none of the model's classes" in said
