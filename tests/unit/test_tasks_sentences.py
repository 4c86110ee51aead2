"""Similarity of sentences without code, against transformers in plain loops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import modules_in
from stockpot.errors import BadTask
from stockpot.tasks.huggingface.sentences import SentenceSimilarity, embedder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "the", "a", "very", "not"]
ROWS = [
    {"sentence1": "the good film", "sentence2": "a very good film", "score": 0.9},
    {"sentence1": "bad", "sentence2": "the film not very good a", "score": -0.2},
    {"sentence1": "the film", "sentence2": "not bad", "score": 0.1},
]
NEW = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
OLD = "sentence_transformers.models.Pooling"
Change = Callable[[Path], object]


def modules(*kinds: str, paths: tuple[str, ...] = ("", "1_Pooling", "2_Normalize")) -> str:
    full = [kind if "." in kind else f"sentence_transformers.models.{kind}" for kind in kinds]
    found = enumerate(zip(full, paths, strict=False))
    return json.dumps([{"idx": i, "name": str(i), "path": path, "type": kind} for i, (kind, path) in found])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As ``SentenceTransformer.save_pretrained`` writes it, without weights."""
    from transformers import BertConfig, BertTokenizer

    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes).save_pretrained(made)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(made)
    (made / "modules.json").write_text(modules("Transformer", NEW))
    (made / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean", "include_prompt": true}')
    (made / "sentence_bert_config.json").write_text('{"max_seq_length": 7, "do_lower_case": false}')
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    text = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (tmp_path / "data" / "validation.jsonl").write_text(text)
    return tmp_path / "data"


def filled(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def alone(task: SentenceSimilarity, folder: Path, pooling: str) -> list[Tensor]:
    """The embedding of each sentence by itself, without padding, by hand."""
    from transformers import AutoTokenizer

    model: Any = filled(task.model())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in ROWS:
        for text in (row["sentence1"], row["sentence2"]):
            with torch.inference_mode():
                given = tokenizer(text, return_tensors="pt", truncation=True, max_length=7)
                tokens = model.model(**given)[0][0]
            pooled = {"mean": tokens.mean(0), "cls": tokens[0], "max": tokens.max(0).values}
            found.append(pooled[pooling])
    return found


@pytest.mark.parametrize(
    ("pooling", "config"),
    [
        ("mean", {"pooling_mode": "mean"}),
        ("mean", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}),
        ("cls", {"pooling_mode_cls_token": True}),
        ("max", {"pooling_mode": "max"}),
    ],
)
def test_the_score_is_minus_the_squared_error_of_the_cosine(
    pooling: str, config: dict[str, Any], folder: Path, data: Path
) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    task = SentenceSimilarity(data=str(data), model=str(folder))
    examples = task.examples("validation")
    batch = task.collate([examples[i] for i in range(3)])
    assert batch["input_ids"].shape[1] == 5
    assert batch["input_ids_2"].shape[1] == 7  # cut, as its settings say
    module = filled(task.model())
    with torch.inference_mode():
        cosines = task.predict(module, batch)
        embeddings = module(**task.inputs(batch))
    one = alone(task, folder, pooling)
    torch.testing.assert_close(embeddings, torch.stack(one[::2]), rtol=1e-4, atol=1e-5)
    pairs = zip(one[::2], one[1::2], strict=True)
    wanted = [nn.functional.cosine_similarity(a, b, dim=0) for a, b in pairs]
    torch.testing.assert_close(cosines, torch.stack(wanted), rtol=1e-4, atol=1e-5)
    scores = task.score(cosines, batch)
    labels = torch.tensor([row["score"] for row in ROWS], dtype=torch.float64)
    torch.testing.assert_close(scores, -((cosines.double() - labels) ** 2))
    assert task.unit == "squared cosine"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_largest_of_the_tokens_is_never_padding_in_half_precision(
    dtype: str, folder: Path, data: Path
) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "max"}))
    task = SentenceSimilarity(data=str(data), model=str(folder), dtype=dtype)
    examples = task.examples("validation")
    batch = task.inputs(task.collate([examples[i] for i in range(3)]))
    model: Any = filled(task.model())
    with torch.inference_mode():
        found, tokens = model(**batch), model.model(**batch).last_hidden_state
    kept = [row[mask.bool()] for row, mask in zip(tokens, batch["attention_mask"], strict=True)]
    assert found.dtype == getattr(torch, dtype)
    assert torch.equal(found, torch.stack([row.max(dim=0).values for row in kept]))


def test_a_normalised_model_is_rebuilt_from_texts_alone(folder: Path, data: Path) -> None:
    (folder / "modules.json").write_text(modules("Transformer", OLD, "Normalize"))
    task = SentenceSimilarity(data=str(data), model=str(folder))
    reference, args = SentenceSimilarity.rebuilt_from(str(folder), data=str(data))
    assert reference.endswith(":embedder")
    rebuilt = filled(embedder(**args))
    examples = task.examples("validation")
    batch = task.inputs(task.collate([examples[0], examples[1]]))
    with torch.inference_mode():
        found = rebuilt(**batch)
        torch.testing.assert_close(found, filled(task.model())(**batch))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def _foreign(folder: Path) -> None:
    (folder / "modules.json").write_text(modules("Transformer", "evil.models.Pooling"))


def _prefixed(folder: Path) -> None:
    (folder / "modules.json").write_text(modules("Transformer", "sentence_transformers_evil.Pooling"))


def _dense(folder: Path) -> None:
    (folder / "modules.json").write_text(modules("Transformer", "Pooling", "Dense"))


def _elsewhere(folder: Path) -> None:
    (folder / "modules.json").write_text(modules("Transformer", "Pooling", paths=("", "../1_Pooling")))


def _no_modules(folder: Path) -> None:
    (folder / "modules.json").write_text("{")


def _two_poolings(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": ["mean", "max"]}')


def _weighted(folder: Path) -> None:
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(both))


def _lower_case(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')


def _prompted(folder: Path) -> None:
    (folder / "config_sentence_transformers.json").write_text('{"default_prompt_name": "query"}')


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_foreign, "evil.models.Pooling: Transformer, Pooling"),
        (_prefixed, "are known"),
        (_dense, "models.Dense: Transformer, Pooling"),
        (_elsewhere, "other folders"),
        (_no_modules, "model: "),
        (_two_poolings, "none of mean, cls, max"),
        (_weighted, "none of mean, cls, max"),
        (_lower_case, "not known"),
        (_prompted, "prompt"),
    ],
)
def test_what_is_not_done_here_is_refused(change: Change, told: str, folder: Path, data: Path) -> None:
    change(folder)
    with pytest.raises(BadTask) as caught:
        SentenceSimilarity(data=str(data), model=str(folder))
    assert told in str(caught.value)


def test_rows_that_cannot_be_used_are_told(folder: Path, data: Path) -> None:
    rows = [{**ROWS[0], "score": 4.2}, {**ROWS[1], "score": 1}]
    (data / "test.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(BadTask, match=r"score goes up to 4\.2, a cosine to 1: divide by --task-arg scale="):
        SentenceSimilarity(data=str(data), model=str(folder)).examples("test")
    scaled = SentenceSimilarity(data=str(data), model=str(folder), scale="5").examples("test")
    assert [float(example["labels"]) for example in (scaled[0], scaled[1])] == pytest.approx([0.84, 0.2])
    (data / "test.jsonl").write_text('{"text": "a film", "score": 1}\n')
    with pytest.raises(BadTask, match="none with a second"):
        SentenceSimilarity(data=str(data), model=str(folder)).examples("test")
    with pytest.raises(BadTask, match="scale must be"):
        SentenceSimilarity(data=str(data), model=str(folder), scale="0")


def test_modules_are_told_by_kind_and_folder() -> None:
    text = modules("Transformer", NEW, "Normalize")
    assert modules_in(text) == (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
