"""Classification of images, or of rows of a table, that lie in one ``.npz`` file."""

import hashlib
import zipfile
import zlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stockpot.errors import BadTask, UnknownPlugin
from stockpot.tasks.arguments import how_to_mend
from stockpot.tasks.identity import loaded_identity, module_of
from stockpot.tasks.loading import load_object

Example = tuple[np.ndarray[Any, Any], np.integer[Any]]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Split(Sequence[Example]):
    """One split's examples in the order of the file: a map-style dataset."""

    x: np.ndarray[Any, Any]
    """``[n, ...]``, floating point or uint8."""
    y: np.ndarray[Any, Any]
    """``[n]``, integer: the class."""
    group: np.ndarray[Any, Any] | None
    """``[n]``: the origin of each example, where several share one."""
    domain: np.ndarray[Any, Any] | None = None
    """``[n]``: the domain of each example."""

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> Any:
        return self.x[index], self.y[index]


class ArrayClassification:
    """Accuracy of a model on arrays: an example scores 1 where the largest output is its class's.

    The file holds, for each split, ``<split>_x`` (``[n, ...]``, floating point or uint8, given to the
    model as float32, unscaled), ``<split>_y`` (``[n]``, integer) and, where several examples share an
    origin, ``<split>_group`` (``[n]``, integers or strings); where they are of several domains,
    ``<split>_domain`` (``[n]``, strings). It is read without pickle.

    Raises BadTask for a file, factory or batch size that cannot be used, with every fault.
    """

    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, data: str, model: str, batch_size: str = "256") -> None:
        """`data`: path of the npz; `model`: ``module:factory``, called without arguments."""
        faults: list[str] = []
        self._path = Path(data).absolute()
        try:
            self._names = _array_names(self._path)
        except BadTask as error:
            faults.append(error.what)
        try:
            self._factory = load_object(model)
            if not callable(self._factory):
                faults.append(f"model must be a factory, {model} is a {type(self._factory).__name__}")
        except UnknownPlugin as error:
            faults.append(error.what)
        if not batch_size.isdecimal() or int(batch_size) < 1:
            faults.append(f"batch_size must be a whole number above zero, got {batch_size!r}")
        if faults:
            raise BadTask("these --task-arg values cannot be used", faults=faults, mend=how_to_mend())
        self.batch_size = int(batch_size)
        # The scores depend on the architecture's code as much as on this module's.
        self.version = f"1+{loaded_identity([module_of(model)]).hash}"
        self._splits: dict[str, Split] = {}

    @staticmethod
    def rebuilt_from(data: str, model: str, batch_size: str = "256") -> tuple[str, dict[str, str]]:  # noqa: ARG004 - takes what the constructor takes
        """The factory and its arguments: a registered model that is rebuilt needs no data."""
        return model, {}

    def model(self) -> nn.Module:
        """Call the factory. Raises BadTask where it returns no module."""
        module = self._factory()
        if not isinstance(module, nn.Module):
            raise BadTask(
                f"the model factory returned a {type(module).__name__}", mend="return a torch.nn.Module"
            )
        return module

    def examples(self, split: str) -> Split:
        """The split's examples, read once.

        Raises ValueError for a split that the file does not have; BadTask with every fault of its arrays.
        """
        if split not in self._splits:
            self._splits[split] = self._load(split)
        return self._splits[split]

    def collate(self, examples: list[Example]) -> Batch:
        """``x`` as float32 ``[examples, ...]``, ``y`` as int64 ``[examples]``."""
        x = np.stack([x for x, _ in examples]).astype(np.float32, copy=False)
        return torch.from_numpy(x), torch.tensor([int(y) for _, y in examples])

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """``[examples, classes]``."""
        outputs: Tensor = model(batch[0])
        return outputs

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """1 where the largest output is the example's class's, else 0; NaN where an output is NaN."""
        right = (outputs.argmax(dim=1) == batch[1]).float()
        return right.masked_fill(outputs.isnan().any(dim=1), torch.nan)

    def digest(self, split: str) -> str:
        """Of the types, shapes and bytes of the split's examples."""
        examples = self.examples(split)
        content = hashlib.sha256()
        for array in (examples.x, examples.y):
            content.update(f"{array.dtype.str}{array.shape}".encode())
            content.update(np.ascontiguousarray(array).data)
        return f"sha256:{content.hexdigest()}"

    def groups(self, split: str) -> Sequence[Hashable] | None:
        """The origin of each example; None where the file names none."""
        group = self.examples(split).group
        origins: list[Hashable] | None = None if group is None else group.tolist()
        return origins

    def domains(self, split: str) -> Sequence[str] | None:
        """The domain of each example; None where the file names none."""
        domain = self.examples(split).domain
        labels: list[str] | None = None if domain is None else domain.tolist()
        return labels

    def _load(self, split: str) -> Split:
        if not self._names & {f"{split}_x", f"{split}_y"}:
            known = sorted({name.removesuffix("_x") for name in self._names if name.endswith("_x")})
            raise ValueError(f"{self._path} has no split {split!r}; it has {', '.join(known) or 'none'}")
        return _read_split(self._path, split)


# RuntimeError: encrypted, or packed in a way that zipfile does not know.
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _array_names(path: Path) -> frozenset[str]:
    try:
        # Opened here: numpy leaves a file open that it cannot read.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.lib.npyio.NpzFile):
                return frozenset(file.files)
    except _UNREADABLE as error:
        raise BadTask(f"{path} cannot be read as .npz: {type(error).__name__}: {error}") from error
    raise BadTask(f"{path} is a single array, not an .npz")


def _read_split(path: Path, split: str) -> Split:
    """Read and check the arrays of one split. Raises BadTask with every fault."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    faults = []
    with np.load(path, allow_pickle=False) as file:
        for name in (f"{split}_{part}" for part in ("x", "y", "group", "domain")):
            try:
                if name in file.files:
                    arrays[name] = file[name]
                elif not name.endswith(("_group", "_domain")):
                    faults.append(f"{name} is missing")
            except _UNREADABLE as error:
                faults.append(f"{name} cannot be read: {error}")
    faults += [fault for name, array in arrays.items() for fault in _array_faults(name, array)]
    lengths = {name: array.shape[0] for name, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) > 1:
        faults.append(f"lengths differ: {', '.join(f'{name} has {n}' for name, n in lengths.items())}")
    if faults:
        raise BadTask(f"split {split!r} of {path} cannot be used", faults=faults, mend=_SAVE.format(split))
    x, y, group, domain = (arrays.get(f"{split}_{part}") for part in ("x", "y", "group", "domain"))
    assert x is not None and y is not None  # noqa: S101, PT018 - else there are faults
    return Split(x, y, group, domain)


_SAVE = "save it again: numpy.savez(path, {0}_x=..., {0}_y=..., ...), all arrays of one length"


def _array_faults(name: str, array: np.ndarray[Any, Any]) -> Iterator[str]:
    part = name.rpartition("_")[2]
    kinds, wanted = {
        "x": ("f", "floating point or uint8"),
        "y": ("iu", "integers"),
        "group": ("iuUS", "integers or strings"),
        "domain": ("U", "strings"),
    }[part]
    if array.dtype.kind not in kinds and not (part == "x" and array.dtype == np.uint8):
        yield f"{name} must hold {wanted}, got {array.dtype}"
    if array.ndim == 0 or (part != "x" and array.ndim > 1):
        yield f"{name} must have shape [n{', ...' if part == 'x' else ''}], got {list(array.shape)}"
    elif array.shape[0] == 0:
        yield f"{name} is empty"
    if part == "y" and array.dtype.kind == "i" and array.size and array.min() < 0:
        yield f"{name} must count classes from 0, got {array.min()}"
