"""What the tasks of this package share: arguments, batches, digests, the model of a folder."""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from stockpot.errors import BadTask
from stockpot.tasks.arguments import how_to_mend
from stockpot.tasks.huggingface.data import Splits, Table
from stockpot.tasks.huggingface.models import DTYPES, ModelFolder, config_text, require

T = TypeVar("T")
Example = dict[str, Tensor]
Batch = dict[str, Tensor]
LABELS = "labels"
"""In examples and batches beside the model's input, and never given to the model."""


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """A split's examples, in the order of the data: a map-style dataset."""

    columns: Mapping[str, Tensor]
    """``[n, ...]`` each: the model's input by name, and the labels where there are some."""
    origins: Sequence[Hashable] | None = None
    """Of each example, where several share one."""
    domains: Sequence[str] | None = None
    """Of each example, where the data tells."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: Any) -> Any:
        return {name: column[index] for name, column in self.columns.items()}

    @property
    def digest(self) -> str:
        """Of names, types, shapes and values."""
        content = hashlib.sha256()
        for name, column in self.columns.items():
            content.update(f"{name} {column.dtype} {list(column.shape)}\n".encode())
            content.update(column.contiguous().numpy().data)
        return content.hexdigest()


NOTHING = Examples({LABELS: torch.empty(0)})
"""A split without a row: whoever evaluates refuses it."""


class FolderTask:
    """A task on `data`, for the architecture that `model`, a folder with ``config.json``, describes.

    Raises UnknownPlugin where something is not installed, BadTask with every argument that cannot be used.
    """

    version = "1"
    takes_model_folder = True
    kind: ClassVar[str]
    """transformers' auto class of the architecture."""
    needs: ClassVar[tuple[str, ...]] = ("transformers", "transformers")
    """An extra of Stockpot, and the modules that it brings."""

    def __init__(self, data: str, model: str, *, group: str, dtype: str, **counts: str) -> None:
        """`counts`: arguments that are whole numbers above zero, or empty for those that may be."""
        require(*self.needs)
        faults = [
            f"{name} must be a whole number above zero, got {text!r}"
            for name, text in counts.items()
            if not (text.isdecimal() and int(text) > 0) and (text or name == "batch_size")
        ]
        if dtype and dtype not in DTYPES:
            faults.append(f"dtype must be {', '.join(DTYPES)}, got {dtype!r}")
            dtype = ""
        try:
            self._data = Splits(data)
        except BadTask as error:
            faults += [error.what, *error.faults]
        self._folder = ModelFolder(model, self.kind, dtype)
        faults += self._folder.faults or self._model_faults(self._folder.config)
        if faults:
            raise BadTask("these --task-arg values cannot be used", faults=faults, mend=how_to_mend())
        self.batch_size = int(counts["batch_size"])
        self._group = group
        self._opened: dict[str, Any] = {}

    @classmethod
    def rebuilt_from(cls, model: str, dtype: str = "", **_: str) -> tuple[str, dict[str, str]]:
        """The architecture from the text of its configuration: what is served needs neither folder."""
        made = {"kind": cls.kind, "config": config_text(model), "dtype": dtype}
        return "stockpot.tasks.huggingface.models:architecture", made

    def model(self) -> nn.Module:
        """The architecture, with weights that do not matter."""
        return self._folder.architecture()

    def examples(self, split: str) -> Any:
        """The split's examples, read once.

        Raises ValueError for a split that the data does not have; BadTask with every fault of its rows.
        """
        if split not in self._opened:
            self._opened[split] = self._open(split)
        return self._opened[split]

    def collate(self, examples: list[Example]) -> Batch:
        """The model's input and the labels by name, integers as int64, each ``[examples, ...]``."""
        columns = {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
        return {name: c if c.is_floating_point() else c.long() for name, c in columns.items()}

    def inputs(self, batch: Batch) -> Batch:
        """What the model is called with, by name: never the labels."""
        return {name: tensor for name, tensor in batch.items() if name != LABELS}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The model's logits."""
        logits: Tensor = model(**self.inputs(batch)).logits
        return logits

    def digest(self, split: str) -> str:
        """Of what is given to the model, and the labels: so of the rows, the columns, and how text became
        numbers.
        """
        return f"sha256:{self.examples(split).digest}"

    def groups(self, split: str) -> Sequence[Hashable] | None:
        """The origin of each example; None where no column was named for it."""
        origins: Sequence[Hashable] | None = self.examples(split).origins
        return origins

    def domains(self, split: str) -> Sequence[str] | None:
        """The domain of each example: the column ``domain``, or the folder of its file within the split's.
        None where the data has neither.
        """
        found: Sequence[str] | None = self.examples(split).domains
        return found

    def _model_faults(self, config: Any) -> list[str]:  # noqa: ARG002 - for those who look
        """Why the model is none for this task."""
        return []

    def _open(self, split: str) -> Any:
        raise NotImplementedError

    def _origins(self, table: Table) -> Sequence[Hashable] | None:
        return table.column(self._group) if self._group else None


def class_faults(config: Any) -> list[str]:
    """Why a model is none that chooses one class of several."""
    if config.problem_type == "multi_label_classification":
        return ["model: it answers with several classes at once, which is another task"]
    return (
        ["model: it has one output, no classes; the task regression is for such"]
        if config.num_labels == 1
        else []
    )


def right(outputs: Tensor, labels: Tensor) -> Tensor:
    """1 where the largest of the outputs ``[n, classes]`` is the label's, else 0; NaN where one is NaN."""
    found = (outputs.argmax(dim=1) == labels).float()
    return found.masked_fill(outputs.isnan().any(dim=1), torch.nan)


def without_faults(read: Callable[[], T], faults: list[str], default: T) -> T:
    """What is read; a BadTask becomes a fault, so that all are told at once."""
    try:
        return read()
    except BadTask as error:
        faults.append(f"{error.what}: {error.mend}")
        return default
