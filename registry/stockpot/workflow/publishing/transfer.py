"""What is uploaded for a soup arrives as it was sent, and holds the soup's very tensors."""

import filecmp
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Digest, Publication, TensorSpec, digest_of_file
from stockpot.errors import RegistryConflict
from stockpot.ports.signing import ADDED_BY_MLFLOW, SIGNATURE
from stockpot.soup import canonical_names, open_pt2, open_safetensors, open_sharded
from stockpot.workflow.gathering.only_weights import SOUP_FILE

if TYPE_CHECKING:
    from torch import Tensor

    from stockpot.soup.sharded_file import ShardedFile
    from stockpot.soup.weights_file import WeightsFile

EXPORTED = ("data/model.pt2", "model/model.safetensors", "model/model.safetensors.index.json")
"""Where MLflow's flavours keep the weights of a model folder."""


def require_same(package: Path, returned: Path, soup: Path, publication: Publication) -> None:
    """What came back is what was uploaded, file by file; and what was exported are the soup's tensors. A
    folder that is signed, now or by an earlier attempt, holds nothing else.

    Raises RegistryConflict, naming every file and tensor that differs.
    """
    faults = []
    for file in sorted(path for path in package.rglob("*") if path.is_file()):
        name = file.relative_to(package)
        if not (returned / name).is_file():
            faults.append(f"{name} is missing")
        elif not _arrived(file, returned / name, publication.checkpoint if str(name) == SOUP_FILE else None):
            faults.append(f"{name} is another")
    faults += differences(package, soup)
    strays = [] if faults or not (returned / SIGNATURE).is_file() else _strays(package, returned)
    if strays:
        raise RegistryConflict(
            f"an earlier attempt to register {publication.checkpoint} for {publication.model} left files "
            "that belong to no signature now",
            faults=strays,
            mend=f"delete the LoggedModel {publication.name} in MLflow, then run the same request again",
        )
    if faults:
        raise RegistryConflict(
            f"{publication.checkpoint} was uploaded for {publication.model}, something else came back",
            faults=faults,
            mend="look at the artifact store, then run the same request again",
        )


def _strays(package: Path, returned: Path) -> list[str]:
    found = sorted(file.relative_to(returned) for file in returned.rglob("*") if file.is_file())
    return [str(name) for name in found if str(name) != ADDED_BY_MLFLOW and not (package / name).exists()]


def differences(package: Path, soup: Path) -> list[str]:
    """Where the exported model does not hold the soup's very tensors."""
    found = [package / place for place in EXPORTED if (package / place).exists()]
    return [
        f"{name} differs in the exported model, {exported.name}"
        for exported in found
        for name in _differing(exported, soup)
    ]


def _arrived(sent: Path, returned: Path, known: Digest | None) -> bool:
    """Whether the file came back as it was. The soup was hashed when it was built, and is once more now."""
    if known is None:
        return filecmp.cmp(sent, returned, shallow=False)
    return known == digest_of_file(returned)


def _differing(exported: Path, soup: Path) -> list[str]:
    """Tensors of the soup that are others in an exported model. That may hold them in a wider dtype, of tied
    ones only one, and under other names, as transformers does: then one of equal values is looked for.
    """
    with _opened(exported) as theirs, open_safetensors(soup) as built:
        names = {c: name for name, c in canonical_names(spec.name for spec in theirs.tensors).items()}
        shapes = {spec.name: spec.shape for spec in theirs.tensors}

        def holds(name: str, tensor: "Tensor") -> bool:
            held = theirs.read(names[name])
            return held.equal(tensor.to(held.dtype))

        def is_held(spec: TensorSpec) -> bool:
            tensor = built.read(spec.name)
            if spec.name in names:
                return holds(spec.name, tensor)
            twins = [name for name in names if shapes[names[name]] == spec.shape]
            return any(holds(name, tensor) for name in twins)

        return [spec.name for spec in built.tensors if not is_held(spec)]


def _opened(exported: Path) -> "AbstractContextManager[WeightsFile | ShardedFile]":
    if exported.suffix == ".pt2":
        return open_pt2(exported)
    return (
        open_sharded(exported, open_safetensors) if exported.suffix == ".json" else open_safetensors(exported)
    )
