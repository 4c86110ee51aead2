"""Models of other libraries, and models that are code, as MLflow serves them: in a process of its own."""

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from stockpot.errors import Incompatible
from stockpot.tracking import serving_process
from stockpot.tracking.mlflow_serving import ServedModel, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
CODE = """
import fcntl, os, sys, time
import mlflow, numpy as np
from mlflow.pyfunc import PythonModel

class Odd(PythonModel):
    def predict(self, context, model_input, params=None):
        print("chatter on stdout")
        if isinstance(model_input, dict):
            return {"sum": model_input["a"] + model_input["b"]}
        match int(model_input[0, 0]):
            case 1: raise ValueError("no")
            case 2: os._exit(3)
            case 3: time.sleep(60)
            case 4: return ["text"] * len(model_input)
            case 5: return np.array([{"x": 1}])
            case 7:
                held = open("held", "w")
                fcntl.flock(held, fcntl.LOCK_EX)
                if os.fork() == 0:
                    time.sleep(100)
            case 6:
                ours = [os.path.exists(os.path.join(entry, "mlflow_serving.py")) for entry in sys.path]
                given = [name in os.environ for name in ("SECRET", "PATH")]
                return {"environment": np.array([given]), "modules": np.array([[any(ours)]])}
        return model_input * 2

mlflow.models.set_model(Odd())
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import mlflow
    import pandas as pd  # type: ignore[import-untyped]  # it has no types of its own
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    root = tmp_path_factory.mktemp("models")
    labels = (X[:, 0] > 0).astype(int)
    names = pd.DataFrame(X.astype(float), columns=["a", "b", "c"])
    plain, named = LogisticRegression().fit(X, labels), LogisticRegression().fit(names, labels)
    mlflow.sklearn.save_model(
        plain,
        root / "array",
        signature=infer_signature(X.astype(float), plain.predict_proba(X)),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn", "never-heard-of"],
    )
    mlflow.sklearn.save_model(
        named,
        root / "columns",
        signature=infer_signature(names, named.predict(names)),
        pip_requirements=["scikit-learn"],
    )
    (root / "code.py").write_text(CODE)
    mlflow.pyfunc.save_model(root / "code", python_model=str(root / "code.py"), pip_requirements=["numpy"])
    return {name: root / name for name in ("array", "columns", "code")}


@pytest.fixture(scope="module")
def code(folders: dict[str, Path]) -> Iterator[ServedModel]:
    with served(folders["code"]) as model:
        yield model


def test_a_model_of_scikit_learn_takes_arrays_in_the_type_of_its_signature(folders: dict[str, Path]) -> None:
    import mlflow

    with served(folders["array"]) as model:
        software = dict(model.software)
        assert software["never-heard-of"] == "not installed"
        assert software["scikit-learn"][0].isdecimal()
        assert {"python", "mlflow", "numpy"} <= set(software)
        found = model(X)
        with pytest.raises(Incompatible, match="is float64, and the task gives its model int64"):
            model(X.astype(np.int64))
        with pytest.raises(Incompatible, match="it takes one array, and the task gives its model x, y"):
            model({"x": X, "y": X})
    wanted = mlflow.pyfunc.load_model(str(folders["array"])).predict(X.astype(float))
    assert np.array_equal(found, wanted)


def test_named_columns_take_columns_of_these_names_and_no_nameless_array(folders: dict[str, Path]) -> None:
    with served(folders["columns"]) as model:
        found = model({"c": X[:, 2], "a": X[:, 0], "b": X[:, 1]})
        assert found.shape == (40,)
        assert ((X[:, 0] > 0) == (found == 1)).mean() > 0.9
        with pytest.raises(Incompatible, match="it takes a, b, c, and the task gives its model one array"):
            model(X)
        with pytest.raises(Incompatible, match="one number per example"):
            model({"a": X, "b": X, "c": X})


def test_what_a_model_says_comes_back_in_its_type_also_by_name_whatever_it_prints(code: ServedModel) -> None:
    large = np.zeros((300, 4000), np.float32) + 0.25
    assert np.array_equal(code(large), large * 2)
    found = code({"a": np.arange(3), "b": np.arange(3)})
    assert {name: array.tolist() for name, array in found.items()} == {"sum": [0, 2, 4]}


@pytest.mark.parametrize(
    ("first", "why"),
    [(1, "it raised ValueError: no"), (4, "are no numbers"), (5, "are no numbers")],
)
def test_a_model_that_fails_is_told_and_goes_on(code: ServedModel, first: int, why: str) -> None:
    with pytest.raises(Incompatible, match=why):
        code(np.full((2, 2), first))
    assert np.array_equal(code(np.full((2, 2), 9)), np.full((2, 2), 18))


def test_it_is_given_none_of_our_variables_nor_our_modules_by_their_bare_names(
    code: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "word")
    with ServedModelClosing(code._folder) as model:
        found = model(np.full((1, 1), 6))
    assert found["environment"].tolist() == [[False, True]]
    assert found["modules"].tolist() == [[False]]


class ServedModelClosing(ServedModel):
    """For a `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.parametrize(("first", "why"), [(2, "it ended"), (3, "nothing came for")])
def test_a_process_that_ends_or_is_silent_is_told(folders: dict[str, Path], first: int, why: str) -> None:
    with ServedModelClosing(folders["code"], silence=40) as model:
        assert model(np.full((1, 1), 9)).tolist() == [[18]]
        model._silence = 2.0
        begun = time.monotonic()
        with pytest.raises(Incompatible, match=f"the process that served it ended, or said .*{why}"):
            model(np.full((1, 1), first))
        assert time.monotonic() - begun < 30


def test_what_it_has_started_ends_with_it_and_nobody_waits_for_that(folders: dict[str, Path]) -> None:
    with served(folders["code"]) as model:
        model(np.full((1, 1), 7))  # a process of its own, with a lock and our pipe, sleeps
        begun = time.monotonic()
    with (folders["code"].parent / "held").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize("said", [b"PK\x03\x04" + bytes(40), b"no archive", b""])
def test_an_answer_that_is_none_is_told(said: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A zip without an end, for example, is no ValueError to Python."""
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.stdin.buffer.read(8); said = {said!r}\n"
        "sys.stdout.buffer.write(len(said).to_bytes(8, 'big') + said); sys.stdout.flush(); sys.stdin.read()"
    )
    monkeypatch.setattr(serving_process, "__file__", str(program))
    with (
        served(tmp_path) as model,
        pytest.raises(Incompatible, match="the process that served it ended, or said"),
    ):
        model(X)


def test_a_folder_that_is_no_model_is_told_and_its_process_is_gone(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: nowhere}}\n")
    with served(tmp_path) as model:
        with pytest.raises(Incompatible, match="it cannot be loaded here: "):
            model(X)
        process = model._process
    assert process is not None
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
