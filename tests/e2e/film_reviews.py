"""A tiny BERT that tells good reviews from bad ones, and the reviews."""

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "the", "a", "very", "not"]
GOOD = ("good film", "not bad", "the very good film", "a film not very bad")
BAD = ("bad film", "not good", "the very bad film", "a film not very good")
NEW = ["a very good film not very bad", "bad", "the film"]
"""Texts of other lengths, and another number of them, than any batch held."""


def write_base(folder: Path, layers: int = 1) -> Path:
    """The model and its tokenizer, as ``save_pretrained`` writes them."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    names: dict[str, Any] = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), num_hidden_layers=layers, max_position_embeddings=16, **sizes, **names
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_data(folder: Path) -> Path:
    """A held-out split, and another to report on."""
    folder.mkdir()
    rows = [{"text": t, "label": "good"} for t in GOOD] + [{"text": t, "label": "bad"} for t in BAD]
    for split, order in {"validation": 1, "test": -1}.items():
        text = "".join(f"{json.dumps(row)}\n" for row in (rows * 3)[::order])
        (folder / f"{split}.jsonl").write_text(text)
    return folder
