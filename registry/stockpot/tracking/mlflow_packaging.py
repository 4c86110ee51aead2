"""The MLflow model around a soup: exported where torch can, else code that loads its safetensors."""

import errno
import importlib
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.types import Schema, TensorSpec
from safetensors import safe_open

from stockpot.entities import CONFIG, MODULES, Packaged
from stockpot.errors import Incompatible, TrackingError
from stockpot.evaluation.weights.module_weights import stored_names
from stockpot.soup.disk_faults import disk_fault, is_the_machines
from stockpot.tracking.mlflow_cards import EXAMPLES_KEPT, Interface, left_out, lost_flavours, taken_over
from stockpot.tracking.mlflow_sentences import package_sentences
from stockpot.tracking.mlflow_transformers import package_transformers
from stockpot.tracking.requirements import requirements
from stockpot.tracking.tensor_trees import (
    BATCH_SIZES,
    agree,
    arrays,
    call,
    leaves,
    resized,
    rows,
    shortened,
    tensors,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from torch import nn

WEIGHTS_FILE = "model.safetensors"
CODE = Path(__file__).with_name("rebuilt_model.py")
GRAPH_CODE = Path(__file__).with_name("exported_graph.py")
SPARE = 1 << 20
"""Bytes of a package that are none of weights."""
GRAPH_LIBRARIES = frozenset({"aten", "prim", "prims", "higher_order"})
"""Namespaces of operators that come with torch. Another one is that of the package that registers it."""


def package(
    client: "MlflowClient",
    module: "nn.Module",
    weights: Path,
    example: Any,
    into: Path,
    *,
    model_id: str | None,
    theirs: Path,
    architecture: tuple[str, Mapping[str, str]],
) -> Packaged:
    """Write the model folder; `theirs` holds an ingredient's card and data files, as far as there are such:
    its interface is taken over where it fits. That folder is written to.

    Raises TrackingError where the folder's model does not do what the module does.
    """
    module = module.cpu().eval()
    soup = None if model_id is None else client.get_logged_model(model_id)
    instead = ""
    if (theirs / CONFIG).exists():
        several = (theirs / MODULES).exists()
        try:
            write = package_sentences if several else package_transformers
            write(theirs, weights, module, example, _card(soup), into)
        except Exception as error:
            if is_the_machines(error):  # a full disk says nothing about the model
                raise
            # transformers, and the tokenizers under it, raise anything.
            shutil.rmtree(into, ignore_errors=True)
            instead = _first_line(error)
        else:
            shutil.copyfile(weights, into / WEIGHTS_FILE)
            return Packaged("sentence_transformers" if several else "transformers")
    instead = instead or lost_flavours(theirs)
    own = _inferred(module, example)
    interface = taken_over(theirs, module, own)
    dropped = tuple(left_out(theirs, own))
    interface, why = _exported_for_most(module, weights, interface, soup, into)
    if why is None:
        shutil.copyfile(weights, into / WEIGHTS_FILE)
        return Packaged("pt2", dropped, instead)
    names = _names_in(weights, module)
    config = {**_maker(*architecture), "names": names}
    _write_code(weights, interface, _card(soup), into, config, _modules_of(module, config["maker"]))
    _check_code(module, interface, into, why)
    return Packaged(f"pyfunc: {why}", dropped, instead)


def exported(module: "nn.Module", weights: Path, example: Any, into: Path) -> Interface:
    """Write a module as pt2 alone, and load it again; how it is called. `weights`: its canonical file.

    Raises Incompatible where it cannot be exported, and why.
    """
    interface, why = _exported_for_most(module, weights, _inferred(module, example), None, into)
    if why is None:
        return interface
    raise Incompatible(
        f"the model cannot be exported: {why}",
        mend="change it until torch.export takes it, or serve one specialist alone, by its alias",
    )


def _exported_for_most(
    module: "nn.Module", weights: Path, interface: Interface, soup: "LoggedModel | None", into: Path
) -> tuple[Interface, str | None]:
    """Save as pt2 for inputs of any size that the module takes, else of the example's. How it is called, and
    why it cannot be used, if it cannot: nothing is left then.
    """
    names = _names_in(weights, module)
    opened = interface._replace(signature=_with_any_size(module, interface))
    # The module takes any size, its graph perhaps that of the example alone.
    for tried in (opened, interface) if opened.signature != interface.signature else (opened,):
        why = _export(module, weights, names, tried, _card(soup), into)
        if why is None:
            return tried, None
        shutil.rmtree(into, ignore_errors=True)
    return opened, why


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _card(soup: "LoggedModel | None") -> Model:
    if soup is None:
        return Model()
    return Model(
        artifact_path=soup.artifact_location,
        run_id=soup.source_run_id,
        model_uuid=soup.model_id,
        model_id=soup.model_id,
    )


def _names_in(weights: Path, module: "nn.Module") -> dict[str, str]:
    """For each of the module's tensors the name that it has in the canonical file."""
    with safe_open(weights, framework="pt") as file:
        return stored_names(module, set(file.keys()))


def _export(
    module: "nn.Module",
    weights: Path,
    names: Mapping[str, str],
    interface: Interface,
    card: Model,
    into: Path,
) -> str | None:
    """Save as pt2, and load it again. Why it cannot be used, if it cannot."""
    _require_room(module, weights, into)
    try:
        exported = _exported(module, interface, card, into)
        if operators := _operators_of(exported):
            shutil.rmtree(into)
            exported = _exported(module, interface._replace(requirements=requirements(operators)), card, into)
        return (
            _missing_weights(exported, weights, names)
            or _other_outputs(module, exported, interface)
            or _served_otherwise(module, interface, into)
        )
    except Exception as error:
        if is_the_machines(error):  # a full disk says nothing about the model
            raise
        return _first_line(error)


def _require_room(module: "nn.Module", weights: Path, into: Path) -> None:
    """Raises StockpotError where a disk is full: torch ends the whole process where it cannot close an
    archive. `weights`: a package holds them, and beside them the module's own, which may be wider.
    """
    held = sum(tensor.nbytes for tensor in module.state_dict().values())
    if shutil.disk_usage(into.parent).free < held + weights.stat().st_size + SPARE:
        raise disk_fault(into.parent, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def _exported(module: "nn.Module", interface: Interface, card: Model, into: Path) -> "nn.Module":
    mlflow.pytorch.save_model(
        module,
        into,
        mlflow_model=card,
        signature=interface.signature,
        input_example=interface.example,
        pip_requirements=list(interface.requirements),
        serialization_format="pt2",
    )
    if not _gives_one_tensor(module, interface):
        (into / "code").mkdir()
        shutil.copyfile(GRAPH_CODE, into / "code" / GRAPH_CODE.name)
        card.flavors["python_function"].update({"loader_module": GRAPH_CODE.stem, "code": "code"})
        card.save(str(into / "MLmodel"))
    loaded: nn.Module = mlflow.pytorch.load_model(str(into))
    return loaded


def _missing_weights(exported: "nn.Module", weights: Path, names: Mapping[str, str]) -> str | None:
    held = exported.state_dict()
    with safe_open(weights, framework="pt") as file:
        for name, stored in names.items():
            if name not in held or not _holds(held[name], file.get_tensor(stored)):
                return f"the exported model does not hold {name}"
    return None


def _other_outputs(module: "nn.Module", exported: "nn.Module", interface: Interface) -> str | None:
    asked = {f"batch size {size}": rows(interface.example, size) for size in BATCH_SIZES}
    shorter = shortened(interface.example)
    if shorter is not None and any(spec.shape[1] == -1 for spec in interface.signature.inputs.inputs):
        asked["another length of the examples"] = shorter
    other_size = resized(interface.example)
    if other_size is not None and any(spec.shape[2] == -1 for spec in interface.signature.inputs.inputs):
        asked["another size of images"] = other_size
    for told, example in asked.items():
        batch = tensors(example)
        if not agree(call(exported, batch), call(module, batch)):
            return f"the exported model's outputs differ at {told}"
    return None


def _served_otherwise(module: "nn.Module", interface: Interface, into: Path) -> str | None:
    """Several outputs are served by code of ours: whether that answers as the module does."""
    if _gives_one_tensor(module, interface):
        return None
    batch = rows(interface.example, max(BATCH_SIZES))
    found = _served(into).predict(_named(batch))
    same = agree(tensors(found), tensors(arrays(call(module, tensors(batch)))))
    return None if same else "the exported model is served with other outputs"


def _served(into: Path) -> Any:
    """The model as it is served. What Python compiles meanwhile is no part of its folder."""
    loaded = mlflow.pyfunc.load_model(str(into))
    for compiled in list(into.rglob("__pycache__")):
        shutil.rmtree(compiled)
    return loaded


def _gives_one_tensor(module: "nn.Module", interface: Interface) -> bool:
    return isinstance(call(module, tensors(rows(interface.example, 1))), torch.Tensor)


def _holds(held: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether they are the same bits, once the stored ones are in the model's dtype: a wider float may be."""
    if held.shape != stored.shape:
        return False
    if held.dtype != stored.dtype:
        floats = held.is_floating_point() and stored.is_floating_point()
        if not floats or torch.promote_types(held.dtype, stored.dtype) != held.dtype:
            return False
    pair = (held, stored.to(held.dtype))
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in pair))


def _write_code(
    weights: Path, interface: Interface, card: Model, into: Path, config: dict[str, Any], modules: set[str]
) -> None:
    mlflow.pyfunc.save_model(
        into,
        python_model=str(CODE),
        artifacts={"weights": str(weights)},
        model_config=config,
        mlflow_model=card,
        signature=interface.signature,
        input_example=_named(interface.example),
        pip_requirements=requirements(modules, "safetensors"),
    )
    # One copy of the weights is enough: the model loads the one beside its card.
    (into / "artifacts" / weights.name).rename(into / WEIGHTS_FILE)
    (into / "artifacts").rmdir()
    card.flavors["python_function"]["artifacts"]["weights"] = {"path": WEIGHTS_FILE, "uri": WEIGHTS_FILE}
    card.save(str(into / "MLmodel"))


def _check_code(module: "nn.Module", interface: Interface, into: Path, why: str) -> None:
    rebuilt = _served(into)
    for size in BATCH_SIZES:
        batch = rows(interface.example, size)
        wanted = tensors(arrays(call(module, tensors(batch))))
        if not agree(tensors(rebuilt.predict(_named(batch))), wanted):
            raise TrackingError(
                f"the model cannot be exported ({why}), and rebuilt from the task it has other outputs",
                mend="make the task's model() and predict() use one architecture, without randomness",
            )


def _inferred(module: "nn.Module", example: Any) -> Interface:
    kept = rows(arrays(example), EXAMPLES_KEPT)
    outputs = arrays(call(module, tensors(kept)))
    signature = infer_signature(_named(kept), outputs if isinstance(outputs, np.ndarray | dict) else None)
    return Interface(kept, signature, requirements(()))


def _with_any_size(module: "nn.Module", interface: Interface) -> ModelSignature:
    """The signature, with sizes of examples left open where the module takes others: a text of any length, an
    image of any height and width.
    """
    signature = interface.signature
    for change in (shortened, resized):
        other = change(interface.example)
        try:
            outputs = [] if other is None else leaves(arrays(call(module, tensors(other))))
        except Exception:  # noqa: BLE001 - whatever a module raises that takes one size alone
            outputs = []
        told = signature.outputs.inputs if signature.outputs is not None else []
        if outputs and [each.ndim for each in outputs] == [len(spec.shape) for spec in told]:
            signature = ModelSignature(
                _opened(signature.inputs, leaves(other)), _opened(signature.outputs, outputs)
            )
    return signature


def _opened(schema: Any, found: Sequence[np.ndarray]) -> Schema:
    """With the sizes open in which these arrays differ."""
    return Schema(
        [
            _spec(spec, [now if now == then else -1 for now, then in zip(one.shape, spec.shape, strict=True)])
            for spec, one in zip(schema.inputs, found, strict=True)
        ]
    )


def _spec(spec: TensorSpec, shape: list[int]) -> TensorSpec:
    return TensorSpec(spec.type, (-1, *shape[1:]), spec.name)


def _modules_of(module: "nn.Module", maker: str) -> set[str]:
    """Names of the Python modules that are imported where the model is made again."""
    return {maker.partition(":")[0], *(type(part).__module__ for part in module.modules())}


def _operators_of(exported: "nn.Module") -> set[str]:
    """Names of the packages, besides torch, whose operators an exported graph calls."""
    graphs = (part.graph for part in exported.modules() if isinstance(part, torch.fx.GraphModule))
    called = (node.target for graph in graphs for node in graph.nodes)
    return {t.namespace for t in called if isinstance(t, torch._ops.OpOverload)} - GRAPH_LIBRARIES  # noqa: SLF001 - torch has no public name for it


def _named(example: Any) -> Any:
    """MLflow's signatures know no tuples: positions become names."""
    return (
        {str(place): value for place, value in enumerate(example)} if isinstance(example, tuple) else example
    )


def _maker(task: str, args: Mapping[str, str]) -> dict[str, Any]:
    """What makes the module where it is loaded: what the task's class says, so that no data is needed
    there, else the task itself; ``make_model`` beside a task that is a function.
    """
    reference = _module_and_class(task)
    module, _, name = reference.partition(":")
    try:
        task_class = attrgetter(name)(importlib.import_module(module))
        if isinstance(task_class, FunctionType):
            return {"maker": f"{task_class.__module__}:make_model", "args": {}}
        rebuilt_from = task_class.rebuilt_from
    except (ImportError, AttributeError):
        return {"maker": reference, "args": dict(args)}
    maker, needed = rebuilt_from(**args)
    return {"maker": maker, "args": dict(needed)}


def _module_and_class(task: str) -> str:
    """An entry point's target: it need not be installed where the model is loaded."""
    return next((point.value for point in entry_points(group="stockpot.tasks", name=task)), task)
