"""What completed passes leave behind, per example: scores, gaps and, where they are small, outputs."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stockpot.entities import Digest
from stockpot.soup.eviction import LeastRecentlyUsed
from stockpot.soup.whole_file import remove_leftovers, writing

_SUFFIX = ".safetensors"
BYTES_PER_EXAMPLE = 8192
"""Outputs up to this size are kept: 2048 classes in float32."""
LIMIT = 10 * 10**9
"""Bytes kept in the folder, where no other limit is set."""
MEMORY = 2 << 30
"""Bytes kept in memory."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """One recipe's completed pass; arrays and tensors on the CPU, in the split's order."""

    scores: NDArray[np.float64]
    gaps: NDArray[np.float64]
    """Between the two greatest outputs."""
    outputs: Tensor | None
    """``[n, ...]``, in the dtype that the model gave them; None where they are too large, or no floats."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self.scores.nbytes + self.gaps.nbytes + (0 if self.outputs is None else self.outputs.nbytes)


class RememberedOutputs:
    """Completed passes by recipe and protocol; safe to call from several threads.

    In memory the most recently used ones up to `memory` bytes: outputs give way first. With a `folder`,
    each pass also has a safetensors file of its own there, up to `limit` bytes in all (None: LIMIT). What
    was lost or damaged there is absent, and a pass that cannot be written is kept in memory alone:
    all of it saves time, and none of it is an answer. `say` is told once that the limit is reached.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        limit: int | None = None,
        memory: int = MEMORY,
        bytes_per_example: int = BYTES_PER_EXAMPLE,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.bytes_per_example = bytes_per_example
        self._say = say
        self._said = False
        self._folder = folder
        if folder is not None:
            remove_leftovers(folder)
        self._shelf = (
            LeastRecentlyUsed(folder, _SUFFIX, LIMIT if limit is None else limit) if folder else None
        )
        self._memory = memory
        self._hot: OrderedDict[tuple[Digest, Digest], Remembered] = OrderedDict()
        self._lock = RLock()

    def keep(self, recipe: Digest, protocol: Digest, passed: Remembered) -> None:
        """Remember a completed pass, without outputs that are too large or no floats."""
        outputs = passed.outputs
        if outputs is not None and not self.wants(outputs):
            passed = replace(passed, outputs=None)
        self._warm((recipe, protocol), passed)
        if self._folder is not None and self._shelf is not None:
            file = self._file(self._folder, recipe, protocol)
            _write(file, passed)
            if self._shelf.evict(keep=file):
                self._tell(self._shelf)

    def hint(self, recipe: Digest, protocol: Digest, scores: Sequence[float], gaps: Sequence[float]) -> None:
        """Remember, in memory alone, what somebody else's pass left behind, unless one is known there."""
        with self._lock:
            known = (recipe, protocol) in self._hot
        if not known:
            self._warm((recipe, protocol), Remembered(np.array(scores), np.array(gaps), None))

    def get(self, recipe: Digest, protocol: Digest, *, outputs: bool = False) -> Remembered | None:
        """The pass, if it is remembered; with `outputs`, only if they are."""
        with self._lock:
            found = self._hot.get((recipe, protocol))
            if found is not None:
                self._hot.move_to_end((recipe, protocol))
        if self._folder is not None and (found is None or (outputs and found.outputs is None)):
            found = _read(self._file(self._folder, recipe, protocol))
            if found is not None:
                self._warm((recipe, protocol), found)
                if self._shelf is not None:
                    self._shelf.touch(self._file(self._folder, recipe, protocol))
        return None if found is None or (outputs and found.outputs is None) else found

    def wants(self, outputs: Tensor) -> bool:
        """Whether such outputs, ``[examples, ...]``, are floats and small enough to be kept."""
        return outputs.is_floating_point() and outputs[0].nbytes <= self.bytes_per_example

    def _warm(self, key: tuple[Digest, Digest], passed: Remembered) -> None:
        with self._lock:
            self._hot[key] = passed
            self._hot.move_to_end(key)
            over = sum(known.size for known in self._hot.values()) - self._memory
            for old, known in list(self._hot.items()):
                if over > 0 and known.outputs is not None:
                    self._hot[old] = replace(known, outputs=None)
                    over -= known.outputs.nbytes
            while over > 0:
                _, known = self._hot.popitem(last=False)
                over -= known.size

    def _tell(self, shelf: LeastRecentlyUsed) -> None:
        with self._lock:
            said, self._said = self._said, True
        if not said:
            self._say(
                f"the models' outputs that are remembered in {shelf.folder} have reached "
                f"{(shelf.limit or 0) / 1e9:.3g} GB: those used least recently go. STOCKPOT_CACHE_LIMIT sets "
                "another limit, for weights as well"
            )

    @staticmethod
    def _file(folder: Path, recipe: Digest, protocol: Digest) -> Path:
        name = hashlib.sha256(f"{recipe} {protocol}".encode()).hexdigest()
        return folder / f"{name}{_SUFFIX}"


def _write(file: Path, passed: Remembered) -> None:
    tensors = {"scores": torch.from_numpy(passed.scores), "gaps": torch.from_numpy(passed.gaps)}
    if passed.outputs is not None:
        tensors["outputs"] = passed.outputs.contiguous()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError), writing(file.parent) as unfinished:
        unfinished.put(save(tensors, metadata={"sha256": _sha256(tensors)}), 0)
        unfinished.path.replace(file)  # not waiting for the disk: what is torn is noticed, and absent


def _read(file: Path) -> Remembered | None:
    try:
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError):
        return None
    if metadata.get("sha256") != _sha256(tensors) or not {"scores", "gaps"} <= tensors.keys():
        return None
    return Remembered(tensors["scores"].numpy(), tensors["gaps"].numpy(), tensors.get("outputs"))


def _sha256(tensors: dict[str, Tensor]) -> str:
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
