"""A sweep of fine-tuned BERTs, from its runs to a version, without a line of the user's code."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import SoupOutcome
from stockpot.testing.sweeps import plant_sweep

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "the", "a", "very", "not"]
GOOD = ("good film", "not bad", "the very good film", "a film not very bad")
BAD = ("bad film", "not good", "the very bad film", "a film not very good")


def fine_tuned(folder: Path, rates: list[float]) -> dict[str, dict[str, Tensor]]:
    """The states of one BERT, trained for some steps at each of these rates."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes, **names)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = tokenizer([*GOOD[:3], *BAD[:3]], padding=True, return_tensors="pt")
    states = {}
    for rate in rates:
        model.load_state_dict(start)
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        for _ in range(8):
            optimizer.zero_grad()
            model(**batch, labels=torch.tensor([1, 1, 1, 0, 0, 0])).loss.backward()
            optimizer.step()
        states[f"rate={rate}"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return states


@pytest.mark.slow
def test_a_sweep_is_souped_by_naming_the_task_its_data_and_the_logged_folder(
    mlflow_uri: str, experiment: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow
    from mlflow import MlflowClient
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    assert not home.exists()
    states = fine_tuned(tmp_path / "model", [1e-3, 3e-3, 1e-2])
    sweep = plant_sweep(MlflowClient(mlflow_uri), experiment, states)
    (tmp_path / "data").mkdir()
    rows = [{"text": t, "label": "good"} for t in GOOD] + [{"text": t, "label": "bad"} for t in BAD]
    for split, order in {"validation": 1, "test": -1}.items():
        text = "".join(f"{json.dumps(row)}\n" for row in (rows * 3)[::order])
        (tmp_path / "data" / f"{split}.jsonl").write_text(text)
    task = ["text-classification", "--task-arg", f"data={tmp_path / 'data'}"]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("soup", "--sweep", sweep, "--model", "reviews", "--no-flow", "--json", "--verify-exact"),
                *("--task", *task, "--task-arg", f"model={tmp_path / 'model'}", "--task-arg", "batch_size=5"),
                *("--method", "uniform", "--register", "all"),
            ]
        )
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    outcome = from_document(SoupOutcome, json.loads(told.out))
    [soup] = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert len(soup.recipe.checkpoints) == 3

    average = {name: sum(state[name] for state in states.values()) / 3 for name in states["rate=0.01"]}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tmp_path / "model"))
    model.load_state_dict(average)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")

    def answers(text: str) -> Tensor:
        with torch.inference_mode():
            found: Tensor = model.eval()(**tokenizer(text, return_tensors="pt")).logits
            return found

    right = [answers(row["text"]).argmax().item() == (row["label"] == "good") for row in rows]
    assert soup.scores["test"] == sum(right) / len(right)

    new = "very very not bad film"  # as long as the longest text of the data
    version = mlflow.pyfunc.load_model("models:/reviews/1")
    given = {name: array.repeat(2, 0) for name, array in tokenizer(new, return_tensors="np").items()}
    found = version.predict(given)
    torch.testing.assert_close(torch.as_tensor(found["logits"]), answers(new).repeat(2, 1))
