"""How a model of the demo across domains is scored: by the next byte, in nats."""

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stockpot.demo.domains.model import ByteModel, next_byte_log_likelihood
from stockpot.errors import BadTask

BUCKETS = 1024
"""Of pairs of bytes."""


@dataclass(frozen=True)
class Texts(Sequence[Any]):
    """A split's examples, in the order of the file."""

    x: np.ndarray[Any, Any]
    """``[n, positions + 1]``, uint8."""
    domain: tuple[str, ...]
    group: tuple[int, ...]
    """The document."""
    before: np.ndarray[Any, Any] | None
    """Of each, what stands before it in its document, as long; None in files of earlier releases."""

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Any:
        return self.x[index]


class NextByte:
    """How likely a model finds text: the mean log likelihood of a byte of it, given those before."""

    version = "1"
    bounds: tuple[float, float] | None = None
    unit = "nats"
    batch_size = 64

    def __init__(self, data: str, width: str = "64", depth: str = "2", context: str = "64") -> None:
        """`data`: the ``.npz`` that `stockpot.demo.domains.texts` wrote; the others: sizes of the model."""
        self._path = Path(data)
        if not self._path.is_file():
            raise BadTask(f"{data} is not there", mend="make demo-domains writes it")
        self._sizes = int(width), int(depth), int(context)
        self._splits: dict[str, Texts] = {}

    @staticmethod
    def rebuilt_from(
        data: str,  # noqa: ARG004 - takes what the constructor takes
        width: str = "64",
        depth: str = "2",
        context: str = "64",
    ) -> tuple[str, dict[str, int]]:
        """The architecture by itself: a registered model that is rebuilt needs no data."""
        sizes = {"width": int(width), "depth": int(depth), "context": int(context)}
        return "stockpot.demo.domains.model:ByteModel", sizes

    def model(self) -> ByteModel:
        """The architecture."""
        return ByteModel(*self._sizes)

    def examples(self, split: str) -> Texts:
        """The split's examples, read once. Raises ValueError for a split that the file does not have."""
        if split not in self._splits:
            with np.load(self._path, allow_pickle=False) as arrays:
                if f"{split}_x" not in arrays.files:
                    raise ValueError(f"{self._path} has no split {split!r}")
                x, domain, group = (arrays[f"{split}_{what}"] for what in ("x", "domain", "group"))
                before = arrays[f"{split}_before"] if f"{split}_before" in arrays.files else None
                self._splits[split] = Texts(x, tuple(domain.tolist()), tuple(group.tolist()), before)
        return self._splits[split]

    def collate(self, examples: list[Any]) -> Tensor:
        """``[examples, positions + 1]``, int64."""
        return torch.from_numpy(np.stack(examples).astype(np.int64))

    def inputs(self, batch: Tensor) -> Tensor:
        """All bytes but the last, which is only predicted."""
        return batch[:, :-1]

    def predict(self, model: torch.nn.Module, batch: Tensor) -> Tensor:
        """The probability of each byte after the first, ``[examples, positions]``, float64.

        Not its logarithm: the mean over several models is then what their mixture predicts.
        """
        logits = model(self.inputs(batch)).float()
        return next_byte_log_likelihood(logits, batch).double().exp()

    def log_likelihood(self, outputs: Tensor, batch: Tensor) -> Tensor:  # noqa: ARG002 - the task's contract
        """Of each byte after the first, ``[examples, positions]``."""
        return outputs.log()

    def score(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The mean log likelihood of an example's bytes; NaN where an output is NaN."""
        return self.log_likelihood(outputs, batch).mean(dim=1)

    def beside(self, split: str, score: float) -> dict[str, float]:  # noqa: ARG002 - the task's contract
        """The perplexity: of each byte, the inverse of its geometric mean probability."""
        return {"perplexity": math.exp(min(-score, 700.0))}

    def digest(self, split: str) -> str:
        """Of the bytes: what a model is given, and what it is to predict."""
        return f"sha256:{hashlib.sha256(self.examples(split).x.tobytes()).hexdigest()}"

    def domains(self, split: str) -> Sequence[str]:
        """What kind of text each example is."""
        return self.examples(split).domain

    def features(self, split: str) -> np.ndarray[Any, Any] | None:
        """Which pairs of bytes stand before each example, by `pairs`."""
        before = self.examples(split).before
        return None if before is None else pairs(before)

    def groups(self, split: str) -> Sequence[Hashable]:
        """The document of each example."""
        return self.examples(split).group


def pairs(texts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How often each two bytes in a row come in each text, ``[n, bytes]``: ``[n, BUCKETS]``, of length one.

    Pairs share buckets by a hash, and of a count the root is taken, so that spaces do not hide all else.
    c-BTM takes words by tf-idf, reduced to 100 dimensions, for which these texts are too short.
    """
    numbers = texts[:, :-1].astype(np.uint32) << 8 | texts[:, 1:]
    places = numbers * np.uint32(2654435761) >> 22  # the upper 10 bits of Knuth's multiplicative hash
    counts = np.zeros((len(texts), BUCKETS))
    np.add.at(counts, (np.arange(len(texts))[:, None], places), 1.0)
    roots = np.sqrt(counts)
    found: np.ndarray[Any, Any] = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    return found
