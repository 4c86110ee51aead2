import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stockpot.errors import BadTask
from stockpot.tasks.arrays import ArrayClassification
from stockpot.tasks.loading import load_task
from stockpot.testing.tiny import TinyTask

MODEL = f"{__name__}:factory"


def factory() -> nn.Module:
    return nn.Linear(3, 4)


def no_module() -> str:
    return "weights"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[factory.__module__])


def saved(path: Path, **arrays: Any) -> str:
    file = path / "data.npz"
    np.savez(file, **arrays)
    return str(file)


def good(n: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"test_x": rng.normal(size=(n, 3)), "test_y": np.arange(n) % 4}


def test_the_built_in_task_is_a_task(tmp_path: Path) -> None:
    task = load_task("arrays", {"data": saved(tmp_path, **good()), "model": MODEL, "batch_size": "2"})
    assert task.bounds == (0.0, 1.0)
    assert isinstance(task.model(), nn.Linear)
    assert isinstance(task, ArrayClassification)
    assert task.batch_size == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_examples_come_in_the_order_of_the_file_as_float32_and_int64(tmp_path: Path, dtype: type) -> None:
    x: Any = np.arange(24).reshape(2, 3, 4).astype(dtype)
    task = ArrayClassification(saved(tmp_path, a_x=x, a_y=np.array([7, 1], np.uint8)), MODEL)
    examples = task.examples("a")
    images, labels = task.collate([examples[i] for i in range(len(examples))])
    assert images.dtype is torch.float32
    assert labels.dtype is torch.int64
    assert images.tolist() == x.tolist()
    assert labels.tolist() == [7, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_a_score_is_one_exactly_where_the_largest_output_is_the_class(pairs: list[tuple[int, int]]) -> None:
    predicted, actual = (torch.tensor(column) for column in zip(*pairs, strict=True))
    task = ArrayClassification.__new__(ArrayClassification)
    scores = task.score(nn.functional.one_hot(predicted, 4).float(), (torch.empty(0), actual))
    assert scores.tolist() == [float(p == a) for p, a in pairs]


def test_an_output_of_nan_is_no_answer() -> None:
    outputs = torch.tensor([[torch.nan, 1.0], [2.0, torch.nan], [3.0, 1.0]])
    task = ArrayClassification.__new__(ArrayClassification)
    scores = task.score(outputs, (torch.empty(0), torch.zeros(3, dtype=torch.int64)))
    assert scores.isnan().tolist() == [True, True, False]
    assert scores[2] == 1.0
    assert TinyTask().score(outputs, (torch.empty(0), torch.zeros(3))).isnan().tolist() == [True, True, False]


def test_predict_gives_one_row_of_outputs_per_example(tmp_path: Path) -> None:
    task = ArrayClassification(saved(tmp_path, **good(5)), MODEL)
    examples = task.examples("test")
    batch = task.collate([examples[i] for i in range(5)])
    assert task.score(task.predict(task.model(), batch), batch).shape == (5,)


def test_the_digest_changes_with_any_value_type_or_shape(tmp_path: Path) -> None:
    x, y = good(4)["test_x"], good(4)["test_y"]
    splits = {
        "same": (x, y),
        "again": (x.copy(order="F"), y),
        "value": (x + 1e-9, y),
        "label": (x, y[::-1]),
        "type": (x, y.astype(np.int32)),
        "shape": (x[:, None], y),
    }
    arrays = {
        f"{name}_{part}": array
        for name, pair in splits.items()
        for part, array in zip("xy", pair, strict=True)
    }
    task = ArrayClassification(saved(tmp_path, **arrays), MODEL)
    assert task.digest("same") == task.digest("again")
    assert len({task.digest(split) for split in ("same", "value", "label", "type", "shape")}) == 5


def test_examples_that_share_an_origin_share_a_group(tmp_path: Path) -> None:
    arrays = good(4) | {"a_x": np.zeros((2, 3)), "a_y": np.zeros(2, int), "a_group": np.array(["cat", "cat"])}
    task = ArrayClassification(saved(tmp_path, **arrays), MODEL)
    assert task.groups("a") == ["cat", "cat"]
    assert task.groups("test") is None


def test_examples_may_tell_their_domain(tmp_path: Path) -> None:
    arrays = good(4) | {
        "a_x": np.zeros((2, 3)),
        "a_y": np.zeros(2, int),
        "a_domain": np.array(["sea", "sky"]),
    }
    task = ArrayClassification(saved(tmp_path, **arrays), MODEL)
    assert task.domains("a") == ["sea", "sky"]
    assert task.domains("test") is None
    numbers = ArrayClassification(saved(tmp_path, **arrays | {"a_domain": np.array([1, 2])}), MODEL)
    with pytest.raises(BadTask) as error:
        numbers.examples("a")
    assert error.value.faults == ("a_domain must hold strings, got int64",)


def test_a_split_that_does_not_exist_is_answered_with_those_that_do(tmp_path: Path) -> None:
    task = ArrayClassification(saved(tmp_path, **good(), train_x=1, train_y=1), MODEL)
    with pytest.raises(ValueError, match="no split 'tset'; it has test, train"):
        task.examples("tset")


def test_every_fault_of_a_split_is_reported_at_once(tmp_path: Path) -> None:
    arrays = {"a_x": np.zeros((3, 2), complex), "a_y": np.zeros((2, 1)), "a_group": np.array([None] * 3)}
    task = ArrayClassification(saved(tmp_path, **arrays), MODEL)
    with pytest.raises(BadTask, match=r"split 'a' of .*data\.npz cannot be used") as error:
        task.examples("a")
    assert error.value.faults == (
        "a_group cannot be read: Object arrays cannot be loaded when allow_pickle=False",
        "a_x must hold floating point or uint8, got complex128",
        "a_y must hold integers, got float64",
        "a_y must have shape [n], got [2, 1]",
        "lengths differ: a_x has 3, a_y has 2",
    )


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"a_x": np.zeros((0, 2)), "a_y": np.zeros(0, int)}, "a_x is empty"),
        ({"a_x": np.zeros((1, 2))}, "a_y is missing"),
        ({"a_y": np.zeros(1, int)}, "a_x is missing"),
        ({"a_x": np.zeros(()), "a_y": np.zeros(1, int)}, "a_x must have shape [n, ...], got []"),
        ({"a_x": np.zeros((1, 2)), "a_y": np.array([-1])}, "a_y must count classes from 0, got -1"),
        (
            {"a_x": np.zeros((1, 2), np.int64), "a_y": np.zeros(1, int)},
            "a_x must hold floating point or uint8, got int64",
        ),
        (
            {"a_x": np.zeros((2, 2)), "a_y": np.zeros(2, int), "a_group": np.arange(3)},
            "lengths differ: a_x has 2, a_y has 2, a_group has 3",
        ),
    ],
)
def test_a_faulty_split_is_refused_by_name(tmp_path: Path, arrays: dict[str, Any], fault: str) -> None:
    task = ArrayClassification(saved(tmp_path, **arrays), MODEL)
    with pytest.raises(BadTask) as error:
        task.examples("a")
    assert fault in error.value.faults


def test_faulty_arguments_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadTask) as error:
        ArrayClassification(str(tmp_path / "none.npz"), f"{__name__}:factry", "some")
    missing, model, batch = error.value.faults
    assert str(tmp_path / "none.npz") in missing
    assert "factry" in model
    assert "batch_size" in batch


def test_a_factory_that_cannot_be_called_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTask, match="model must be a factory"):
        ArrayClassification(saved(tmp_path, **good()), f"{__name__}:MODEL")


def test_a_damaged_file_is_refused_by_its_path(tmp_path: Path) -> None:
    file = Path(saved(tmp_path, **good()))
    whole = file.read_bytes()
    for damaged in (b"", b"junk", whole[:40], whole[:-30], pickle.dumps({"test_x": 1})):
        file.write_bytes(damaged)
        with pytest.raises(BadTask, match=r"data\.npz cannot be read"):
            ArrayClassification(str(file), MODEL)


def test_a_flipped_bit_in_an_array_is_refused(tmp_path: Path) -> None:
    file = Path(saved(tmp_path, **good()))
    whole = bytearray(file.read_bytes())
    whole[200] ^= 1
    file.write_bytes(whole)
    with pytest.raises(BadTask, match="test_x cannot be read"):
        ArrayClassification(str(file), MODEL).examples("test")


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(BadTask, match="single array"):
        ArrayClassification(str(tmp_path / "one.npy"), MODEL)


def test_a_factory_that_returns_no_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTask, match="returned a str"):
        ArrayClassification(saved(tmp_path, **good()), f"{__name__}:no_module").model()
