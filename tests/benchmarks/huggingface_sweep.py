"""`stockpot soup` of a sweep by the Hugging Face Trainer, and what it had to do at the least; one JSON line.

    python -m tests.benchmarks.huggingface_sweep [--runs 12] [--examples 1024]

Encoders of MiniLM's size (22M parameters: 6 layers, 384 wide, 30,522 words), each fine-tuned for a few steps
by a Trainer that logs to MLflow with ``report_to="mlflow"``. `command`: seconds of the whole command, in a
process of its own, from the finished sweep to the registered soup, the transformers flavour around it
included. `passes`: the forward passes that it did, over a split. `bare`: seconds of one, by a loop that keeps
batches and model in memory. `average`, `upload`: seconds of the soup's average from files, and of a copy of
its file that reaches the disk. The sweep lies in SQLite and local files.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

LENGTH, WORDS, BATCH = 32, 30_522, 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
CLASSES = ("bad", "good")


def texts(count: int, seed: int) -> list[dict[str, str]]:
    """Texts of half the words; most words of one have an even number where it is good."""
    drawn, rows = np.random.default_rng(seed), []
    for number in range(count):
        odd = (drawn.random(LENGTH - 2) < 0.3) != number % 2
        words = 2 * drawn.integers((WORDS - len(SPECIAL)) // 2, size=LENGTH - 2) + odd
        rows.append({"text": " ".join(f"w{word}" for word in words), "label": CLASSES[1 - number % 2]})
    return rows


def plant(folder: Path, runs: int, examples: int, width: int) -> None:
    """The model before its fine-tuning, the data, and the sweep."""
    import mlflow
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    base, data = folder / "base", folder / "data"
    base.mkdir()
    data.mkdir()
    vocabulary = [*SPECIAL, *(f"w{word}" for word in range(WORDS - len(SPECIAL)))]
    (base / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(vocab=str(base / "vocab.txt")).save_pretrained(base)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=width,
        num_hidden_layers=6,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        max_position_embeddings=2 * LENGTH,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
    )
    BertForSequenceClassification(config).save_pretrained(base)
    for seed, split in enumerate(("train", "validation", "test")):
        rows = "".join(f"{json.dumps(row)}\n" for row in texts(examples, seed))
        (data / f"{split}.jsonl").write_text(rows)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("bench", (folder / "artifacts").as_uri()))
    os.environ["HF_MLFLOW_LOG_ARTIFACTS"] = "1"
    for number in range(runs):
        with mlflow.start_run(run_name=f"seed={number}"):
            train(base, folder / "out", number)
        shutil.rmtree(folder / "out")


def train(base: Path, output: Path, seed: int) -> None:
    """A few steps, and a checkpoint."""
    from transformers import AutoTokenizer, BertForSequenceClassification, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [
        {**tokenizer(row["text"]), "labels": CLASSES.index(row["label"])} for row in texts(64, seed + 100)
    ]
    Trainer(
        BertForSequenceClassification.from_pretrained(base),
        TrainingArguments(
            str(output),
            seed=seed,
            learning_rate=1e-4 * (1 + seed % 3),
            max_steps=4,
            per_device_train_batch_size=16,
            save_steps=4,
            save_only_model=True,
            report_to="mlflow",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=examples,
        processing_class=tokenizer,
    ).train()


def command(folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds, and what it printed."""
    uri = f"sqlite:///{folder}/mlflow.db"
    surroundings = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_REGISTRY_URI": uri,
        "STOCKPOT_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    asked = ["soup", "--experiment", "bench", "--model", "bench", "--task", "text-classification"]
    asked += [
        "--task-arg",
        f"data={folder}/data",
        "--no-flow",
        "--json",
        "--points",
        "0",
        "--register",
        "all",
    ]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "stockpot", *asked],
        env={**os.environ, **surroundings},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return time.perf_counter() - begin, json.loads(done.stdout)


def bare(folder: Path, repeats: int) -> float:
    """The least seconds of a pass over the held-out split."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base").eval()
    rows = [json.loads(line)["text"] for line in (folder / "data" / "validation.jsonl").open()]
    parts = [rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH)]
    batches = [tokenizer(part, return_tensors="pt", padding=True) for part in parts]
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats):
            begin = time.perf_counter()
            for batch in batches:
                model(**batch)
            seconds.append(time.perf_counter() - begin)
    return min(seconds)


def averaged(folder: Path, outcome: dict[str, Any]) -> tuple[float, float]:
    """Seconds of the greedy soup's average into a file, all hashed, and of a copy of that file."""
    from stockpot.documents import from_document
    from stockpot.entities import SoupOutcome
    from stockpot.soup import CheckpointCache, build

    cache = CheckpointCache(folder / "home" / "cache")
    soups = [row.recipe for row in from_document(SoupOutcome, outcome).report.rows if row.recipe.is_soup]
    seconds = []
    for recipe in soups:
        begin = time.perf_counter()
        made = build(recipe, cache)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    with cache.path(made.digest).open("rb") as source, (folder / "copy").open("wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    return sum(seconds), time.perf_counter() - begin


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--width", type=int, default=384)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plant(folder, chosen.runs, chosen.examples, chosen.width)
        before = bare(folder, 2)
        seconds, outcome = command(folder)
        each = min(before, bare(folder, 2))
        average, upload = averaged(folder, outcome)
    figures = {"command": seconds, "passes": outcome["passes"], "bare": each}
    print(json.dumps(figures | {"average": average, "upload": upload, "runs": chosen.runs}))


if __name__ == "__main__":
    main()
