"""A plain function is a task: what it needs, what it is called by, and what is wrong with it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stockpot.entities import Digest, Recipe, Score, Trial, digest_of_bytes
from stockpot.errors import BadTask
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.evaluation.task_contract import TaskOnTrial, look
from stockpot.tasks.loading import load_task, task_identity, task_source
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.testing.tiny import weights

MODULE = """
import torch
from stockpot.testing.tiny import TinyTask, dense as make_model

def data(split, n):
    task = TinyTask(n=n)
    return task.collate(list(task.examples(split)))

def score(model, split, n="20"):
    x, labels = data(split, n)
    return {returned}

def other(model, split):
    return score(model, split)
"""
LIKELIHOOD = "-torch.nn.functional.cross_entropy(model(x), labels, reduction='none')"
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(3)]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A fresh module in the working directory; its name, unique per test."""
    name = f"scoring_{abs(hash(request.node.nodeid))}"
    monkeypatch.chdir(tmp_path)
    write(name, LIKELIHOOD)
    return name


def write(module: str, returned: str, more: str = "") -> None:
    Path(f"{module}.py").write_text(MODULE.replace("{returned}", returned) + more)
    sys.modules.pop(module, None)


def bench(reference: str, args: dict[str, str] | None = None, outputs: Any = None) -> TorchBench:
    task = load_task(reference, args or {})
    states: dict[Digest, Any] = {digest: weights(seed=seed) for seed, digest in enumerate(DIGESTS)}
    identity = task_identity(task, task_source(task, reference))
    checkpoints = MadeCheckpoints(states.__getitem__)
    return TorchBench(
        task, identity=identity, task_args={}, checkpoints=checkpoints, device="cpu", outputs=outputs
    )


def expected(recipe: Recipe, n: int = 20) -> list[float]:
    """By the plain definition: the mean of the weights, one pass."""
    from stockpot.testing.tiny import TinyTask, dense

    states = [weights(seed=DIGESTS.index(digest)) for digest in recipe.checkpoints]
    model = dense()
    model.load_state_dict({name: sum(s[name] for s in states) / len(states) for name in states[0]})
    task = TinyTask(n=str(n))
    x, labels = task.collate(list(task.examples("validation")))
    with torch.no_grad():
        found: list[float] = (-torch.nn.functional.cross_entropy(model(x), labels, reduction="none")).tolist()
    return found


def test_a_function_scores_each_example_in_one_call_for_a_pass(module: str) -> None:
    write(module, f"(calls.append(split), {LIKELIHOOD})[1]", "\ncalls = []\n")
    made = bench(f"{module}:score", {"n": "300"})  # of which a batch holds 256
    evaluator = made.evaluator("validation")
    calls = sys.modules[module].calls
    assert calls == ["validation"], "to learn how many examples there are"
    recipes = [*(Recipe.mean([digest]) for digest in DIGESTS), Recipe.mean(DIGESTS)]
    evaluator.evaluate([Trial(recipes[0])])
    assert len(calls) == 2
    for recipe, outcome in zip(recipes, evaluator.evaluate([Trial(r) for r in recipes]), strict=True):
        assert isinstance(outcome, Score)
        assert outcome.examples == pytest.approx(expected(recipe, 300), abs=1e-5)
    assert made.unit == "", "it has no bounds"


@pytest.mark.parametrize("form", ["({}).tolist()", "({}).numpy()", "({}).double()", "list({})"])
def test_lists_arrays_and_tensors_are_scores(module: str, form: str) -> None:
    write(module, form.format(LIKELIHOOD.replace("model(x)", "model(x).detach()")))
    (outcome,) = bench(f"{module}:score").evaluator("validation").evaluate([Trial(Recipe.mean(DIGESTS))])
    assert isinstance(outcome, Score)
    assert outcome.examples == pytest.approx(expected(Recipe.mean(DIGESTS)), abs=1e-5)


def test_scores_are_kept_for_no_ensemble(module: str) -> None:
    outputs = RememberedOutputs()
    made = bench(f"{module}:score", outputs=outputs)
    evaluator = made.evaluator("validation")
    recipe = Recipe.mean(DIGESTS[:1])
    evaluator.evaluate([Trial(recipe)])
    assert outputs.get(recipe.digest, evaluator.protocol.digest, outputs=True) is None


def test_what_the_model_is_called_with_is_what_it_takes(module: str) -> None:
    made = bench(f"{module}:score")
    example = made.example("validation", 30)
    assert example.shape == (30, 8)
    assert made.module_with(Recipe.mean(DIGESTS))(example).shape == (30, 4)
    write(module, "(model[0](x).sum() * 0 + torch.zeros(20))")
    with pytest.raises(BadTask, match="does not call the model") as caught:
        bench(f"{module}:score").example("validation", 2)
    assert caught.value.mend


def test_functions_data_and_arguments_are_told_apart(module: str) -> None:
    score, other = bench(f"{module}:score"), bench(f"{module}:other")
    questions = [made.evaluator("validation").protocol.question for made in (score, other)]
    assert questions[0].task == f"{module}:score"
    assert questions[0].digest != questions[1].digest
    assert questions[0].n == 20
    assert questions[0].dataset == bench(f"{module}:score").evaluator("validation").protocol.dataset
    assert questions[0].dataset != score.evaluator("test").protocol.dataset
    write(module, LIKELIHOOD, '\ndef digest(split):\n    return "mine"\n\nversion = "7"\nunit = "nats"\n')
    named = bench(f"{module}:score")
    assert named.evaluator("validation").protocol.dataset == digest_of_bytes(b"mine")
    assert named.evaluator("validation").protocol.question.task_version.startswith("7+")
    assert named.unit == "nats"


def test_other_data_are_another_dataset_though_nobody_names_them(module: str) -> None:
    before = bench(f"{module}:score").evaluator("validation").protocol.dataset
    write(module, LIKELIHOOD.replace("labels", "(labels + 1) % 4"))
    assert bench(f"{module}:score").evaluator("validation").protocol.dataset != before


def test_a_function_keeps_the_contract_of_tasks(module: str) -> None:
    found = list(look(TaskOnTrial(lambda: load_task(f"{module}:score", {}), module, "validation")))
    assert [one.fault for one in found if one.fault] == []


@pytest.mark.parametrize(
    ("reference", "args", "fault"),
    [
        ("lonely:score", {}, r"its module has no make_model\(\)"),
        ("MODULE:data", {"split": "x"}, "does not take these arguments"),
        ("MODULE:make_model", {}, "has no make_model"),
        ("MODULE:score", {"m": "2"}, "does not take these arguments: got an unexpected keyword argument 'm'"),
    ],
)
def test_a_function_that_is_no_task_is_told_why(
    module: str, reference: str, args: dict[str, str], fault: str
) -> None:
    Path("lonely.py").write_text("def score(model, split):\n    return [1.0]\n")
    with pytest.raises(BadTask, match=fault) as caught:
        load_task(reference.replace("MODULE", module), args)
    assert caught.value.mend


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        ("model(x)", r"returned scores of shape \[20, 4\]"),
        ("model(x).mean()", r"returned scores of shape \[\]"),
        ("None", "raised"),
        ("model(x, 7)", "score raised TypeError for split 'validation'"),
    ],
)
def test_what_a_function_must_not_return_is_refused(module: str, returned: str, fault: str) -> None:
    write(module, returned)
    with pytest.raises(BadTask, match=fault):
        bench(f"{module}:score").evaluator("validation")


def test_a_split_that_is_not_there_is_told(module: str) -> None:
    with pytest.raises(BadTask, match="there is no split 'nowhere'"):
        bench(f"{module}:score").evaluator("nowhere")


def test_another_number_of_scores_is_refused(module: str) -> None:
    write(module, "torch.zeros(20 + len(calls.append(0) or calls))", "\ncalls = []\n")
    evaluator = bench(f"{module}:score").evaluator("validation")
    with pytest.raises(BadTask, match="22 scores of split 'validation', and 21 before"):
        evaluator.evaluate([Trial(Recipe.mean(DIGESTS))])
