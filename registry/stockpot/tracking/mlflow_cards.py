"""What a soup takes over of an ingredient's MLflow model folder: how a model is called, and nothing else.

The folder is a stranger's. Only three of its files are read, each up to a size, by parsers that execute
nothing and open nothing else: ``MLmodel``, the input example that it names, and ``requirements.txt``. A
signature and an example are taken over where they say the same as what was found out here. A requirement is
never taken over: those that are left out are named.
"""

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from stockpot.prose import listed
from stockpot.tracking.mlflow_weights import download
from stockpot.tracking.model_cards import CARD, MOST_OF_A_CARD, document_of
from stockpot.tracking.requirements import distribution_of
from stockpot.tracking.tensor_trees import call, rows, tensors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

EXAMPLE = "input_example.json"
REQUIREMENTS = "requirements.txt"
MOST_BYTES: Mapping[str, int] = {CARD: MOST_OF_A_CARD, EXAMPLE: 1 << 18, REQUIREMENTS: 1 << 16}
"""A file of an ingredient that is larger is not downloaded."""
WRITTEN = frozenset({"python_function", "pytorch", "sentence_transformers", "transformers"})
"""MLflow's flavours that a soup may have."""
EXAMPLES_KEPT = 2
"""At least: torch.export makes a batch of one a constant."""
MOST_EXAMPLES_KEPT = 16
JSON_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\.json")


class Interface(NamedTuple):
    """How a model is called, and what it needs."""

    example: Any
    """An array, or arrays in a tuple or dict."""
    signature: ModelSignature
    requirements: Sequence[str]


def taken_over(folder: Path, module: "nn.Module", own: Interface) -> Interface:
    """`own`, with the example and the signature of the card in this folder, where those say no more.
    What is not there, or cannot be read or used, is left out.
    """
    try:
        return merged(folder, module, own)
    except Exception:  # noqa: BLE001 - a card that is incomplete, foreign or about another model
        return own


def left_out(folder: Path, own: Interface) -> Iterator[str]:
    """The lines of an ingredient's requirements that ask for something that the soup's do not."""
    file = folder / REQUIREMENTS
    if not file.is_file():
        return
    ours = {distribution_of(line) for line in own.requirements}
    for line in file.read_text(errors="replace").splitlines():
        if line.strip() and distribution_of(line, of_any_version=True) not in ours:
            yield line.strip()


def lost_flavours(folder: Path) -> str:
    """A clause on the flavours of this folder's card that no soup is written in; empty without any."""
    try:
        flavours = _document(folder / CARD).get("flavors")
    except (OSError, yaml.YAMLError, ValueError, TypeError):
        return ""
    lost = sorted({str(name) for name in flavours} - WRITTEN) if isinstance(flavours, Mapping) else []
    return f"Stockpot does not write MLflow's flavour {listed(lost, 3)} yet" if lost else ""


def fetch(client: "MlflowClient", location: str, into: Path) -> None:
    """Download the three files, as far as they are regular and small. `location`: where the folder is."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    listed = get_artifact_repository(location, tracking_uri=client.tracking_uri).list_artifacts(None)
    sizes = {file.path: file.file_size for file in listed if not file.is_dir}
    for name in (CARD, REQUIREMENTS):
        _fetch(client, location, name, name, sizes, into)
    example = _example_name(_document(into / CARD)) if (into / CARD).exists() else None
    if example is not None:
        _fetch(client, location, example, EXAMPLE, sizes, into)


def _fetch(
    client: "MlflowClient", location: str, name: str, kept: str, sizes: Mapping[str, int | None], into: Path
) -> None:
    size = sizes.get(name)
    if size is None or size > MOST_BYTES[kept] or not _is_regular(location, name):
        return
    file = download(client, f"{location.rstrip('/')}/{name}", into)
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MOST_BYTES[kept]:
        file.unlink(missing_ok=True)
    else:
        file.replace(into / kept)


def _is_regular(location: str, name: str) -> bool:
    """Whether a store that is a folder of this machine holds a file there, and no link to another one."""
    local: str | None = local_file_uri_to_path(location) if is_local_uri(location) else None  # type: ignore[no-untyped-call]
    if local is None:
        return True
    file = Path(local) / name
    return stat.S_ISREG(file.lstat().st_mode)


def merged(folder: Path, module: "nn.Module", own: Interface) -> Interface:
    """As `taken_over`, of files that are here. Raises whatever their parsers raise."""
    document = _document(folder / CARD)
    theirs = _signature(document)
    signature = theirs if theirs is not None and _says_the_same(theirs, own.signature) else own.signature
    example = _example(folder, document, theirs)
    if example is None or _elements(example) > _elements(own.example):
        return own._replace(signature=signature)
    kept = rows(example, min(max(EXAMPLES_KEPT, _length(example)), MOST_EXAMPLES_KEPT))
    call(module, tensors(kept))
    return own._replace(example=kept, signature=signature)


def _document(file: Path) -> Mapping[str, Any]:
    """An MLmodel file."""
    return document_of(file.read_text())


def _example_info(document: Mapping[str, Any]) -> Mapping[str, Any]:
    info = document.get("saved_input_example_info")
    return info if isinstance(info, Mapping) else {}


def _example_name(document: Mapping[str, Any]) -> str | None:
    """Of the file beside the card. A path is no name."""
    name = _example_info(document).get("artifact_path")
    return name if isinstance(name, str) and JSON_NAME.fullmatch(name) else None


def _signature(document: Mapping[str, Any]) -> ModelSignature | None:
    """Its inputs and outputs. Its parameters mean nothing to an exported model."""
    found = document.get("signature")
    if not isinstance(found, Mapping) or not isinstance(found.get("inputs"), str):
        return None
    parts = {name: found[name] for name in ("inputs", "outputs") if isinstance(found.get(name), str)}
    signature: ModelSignature = ModelSignature.from_dict({**parts, "params": None})
    return signature


def _says_the_same(theirs: ModelSignature, ours: ModelSignature) -> bool:
    """Whether it has the names, types and sizes that were found here, some sizes perhaps left open."""
    return _fits(theirs.inputs, ours.inputs) and _fits(theirs.outputs, ours.outputs)


def _fits(theirs: Schema | None, ours: Schema | None) -> bool:
    if theirs is None or ours is None or len(theirs.inputs) != len(ours.inputs):
        return theirs is ours
    return all(
        isinstance(one, TensorSpec)
        and isinstance(other, TensorSpec)
        and (one.name, one.type, len(one.shape)) == (other.name, other.type, len(other.shape))
        and all(a in (-1, b) for a, b in zip(one.shape, other.shape, strict=True))
        for one, other in zip(theirs.inputs, ours.inputs, strict=True)
    )


def _example(folder: Path, document: Mapping[str, Any], signature: ModelSignature | None) -> Any:
    """Arrays; None where there are none. Only a kind that is plain numbers, and under a name of our own."""
    if _example_info(document).get("type") != "ndarray" or not (folder / EXAMPLE).is_file():
        return None
    info = {"artifact_path": EXAMPLE, "type": "ndarray"}
    found: Any = Model(saved_input_example_info=info, signature=signature).load_input_example(str(folder))
    leaves = list(found.values()) if isinstance(found, dict) else [found]
    numbers = all(isinstance(leaf, np.ndarray) and leaf.ndim and leaf.dtype.kind in "biuf" for leaf in leaves)
    return found if leaves and numbers and all(map(len, leaves)) else None


def _length(example: Any) -> int:
    leaves = list(example.values()) if isinstance(example, Mapping) else [example]
    return min(map(len, leaves))


def _elements(example: Any) -> int:
    """Numbers in one row: a longer one may ask for any amount of memory."""
    one = rows(example, 1)
    leaves = one.values() if isinstance(one, Mapping) else one if isinstance(one, tuple) else (one,)
    return sum(torch.from_numpy(np.asarray(leaf)).numel() for leaf in leaves)
