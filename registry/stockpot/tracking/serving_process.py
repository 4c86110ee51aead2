"""The process that a pyfunc is loaded in: run as a program, and knowing nothing of Stockpot. It reads arrays
from stdin and writes what the model says to them to stdout: 8 bytes of length, then a file by `numpy.savez`.
"""

import io
import json
import os
import sys
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

ALONE = ""
"""The name of an array that has none."""
ONE = "one array"
"""What it is called."""


class Misfit(Exception):
    """Inputs that the model does not take, or predictions that are no numbers."""


def write(file: IO[bytes], arrays: Mapping[str, Any], fault: str = "") -> None:
    """A message: arrays by name, or what is wrong."""
    told = np.frombuffer(json.dumps({"names": list(arrays), "fault": fault}).encode(), np.uint8)
    content = io.BytesIO()
    np.savez(content, told, *arrays.values())
    file.write(len(content.getvalue()).to_bytes(8, "big") + content.getvalue())
    file.flush()


def unpacked(content: bytes) -> tuple[dict[str, Any], str]:
    """The arrays and the fault of a message. Unpickles nothing."""
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        told = json.loads(bytes(held["arr_0"]))
        arrays = {str(name): held[f"arr_{place}"] for place, name in enumerate(told["names"], start=1)}
        return arrays, str(told["fault"])


def fitted(arrays: Mapping[str, Any], schema: Any) -> Any:
    """The model's input as its signature has it. Names must agree, and numbers are of the same kind."""
    lone = arrays.get(ALONE)
    if schema is None:
        return arrays if lone is None else lone
    columns = not schema.is_tensor_spec()
    names = [spec.name or ALONE for spec in schema.inputs]
    if lone is not None and len(names) == 1 and not columns:
        arrays = {names[0]: lone}
    missing = [spec.name for spec in schema.inputs if spec.required and (spec.name or ALONE) not in arrays]
    if missing:
        takes, given = (", ".join(str(name) or ONE for name in each) for each in (names, arrays))
        raise Misfit(f"it takes {takes}, and the task gives its model {given}")
    if columns:
        import pandas as pd  # type: ignore[import-untyped]  # it has no types of its own

        wide = [name for name in names if name in arrays and arrays[name].ndim != 1]
        if wide:
            raise Misfit(f"its column {wide[0]} takes one number per example")
        wanted = {spec.name: spec.type.to_numpy() for spec in schema.inputs if spec.name in arrays}
        return pd.DataFrame({name: cast(name, arrays[name], kind) for name, kind in wanted.items()})
    wanted = {spec.name or ALONE: spec.type for spec in schema.inputs if (spec.name or ALONE) in arrays}
    found = {name: cast(name, arrays[name], kind) for name, kind in wanted.items()}
    return found[ALONE] if list(found) == [ALONE] else found


def cast(name: str, array: Any, wanted: Any) -> Any:
    """To the signature's type, of the same kind: a float stays one."""
    wanted = np.dtype(wanted)
    if array.dtype.kind != wanted.kind:
        raise Misfit(f"its input {name or ONE} is {wanted}, and the task gives its model {array.dtype}")
    return array.astype(wanted)


def numbers(predicted: Any) -> dict[str, Any]:
    """What a model predicted, as arrays of numbers."""
    if isinstance(predicted, Mapping):
        return {str(name): numbers(value)[ALONE] for name, value in predicted.items()}
    if hasattr(predicted, "detach"):  # a tensor of torch
        predicted = predicted.detach().cpu()
    found = np.asarray(predicted)
    if found.dtype.kind not in "fiub":
        raise Misfit(f"it predicts {type(predicted).__name__} of {found.dtype}, which are no numbers")
    return {ALONE: found}


def main(folder: str) -> None:
    """Serve the model in this folder until nothing more comes. What it prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked, model = sys.stdin.buffer, None
    while length := asked.read(8):
        try:
            arrays, _ = unpacked(asked.read(int.from_bytes(length, "big")))
            if model is None:
                import mlflow.pyfunc

                try:
                    model = mlflow.pyfunc.load_model(folder)
                except Exception as error:
                    raise Misfit(f"it cannot be loaded here: {type(error).__name__}: {error}") from error
            inputs = fitted(arrays, model.metadata.get_input_schema())
            found = numbers(model.predict(inputs))
        except Misfit as error:
            write(answers, {}, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a user's model raises
            write(answers, {}, f"it raised {type(error).__name__}: {error}")
        else:
            write(answers, found)


if __name__ == "__main__":
    main(sys.argv[1])
