"""What completed passes leave behind, per example: scores, gaps and, where they are small, outputs."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import RLock

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from stockpot.entities import Digest, Ensemble, Recipe
from stockpot.secrets import without_secrets
from stockpot.shelves import Shelf
from stockpot.soup.disk_faults import CODES

BYTES_PER_EXAMPLE = 8192
"""Outputs up to this size are kept: 2048 classes in float32."""
MEMORY = 2 << 30
"""Bytes kept in memory."""
_ELSEWHERE = "The search goes on with what it has in memory; STOCKPOT_OUTPUTS names another place"


Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Remembered:
    """One recipe's completed pass; arrays and tensors on the CPU, in the split's order."""

    scores: Floats
    gaps: Floats
    """Between the two greatest outputs."""
    outputs: Tensor | None
    """``[n, ...]``, in the dtype that the model gave them; None where they are too large, or no floats."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self.scores.nbytes + self.gaps.nbytes + (0 if self.outputs is None else self.outputs.nbytes)


class RememberedOutputs:
    """Completed passes by recipe and protocol; safe to call from several threads.

    In memory the most recently used ones up to `memory` bytes: outputs give way first. With a `shelf`,
    each pass lies there, too, as a safetensors file, for later processes and other machines. What was lost
    or damaged there is absent: all of it saves time, and none of it is an answer. Where the shelf is
    full or forbids writing, nothing more is written; where it fails otherwise, it is not asked again. `say`
    is told that, and that its limit is reached, once each.
    """

    def __init__(
        self,
        shelf: Shelf | None = None,
        *,
        memory: int = MEMORY,
        bytes_per_example: int = BYTES_PER_EXAMPLE,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.bytes_per_example = bytes_per_example
        self._say = say
        self._said: set[str] = set()
        self._shelf = shelf
        self._writes = True
        self._memory = memory
        self._hot: OrderedDict[tuple[Digest, Digest], Remembered] = OrderedDict()
        self._lock = RLock()

    def keep(self, recipe: Digest, protocol: Digest, passed: Remembered) -> None:
        """Remember a completed pass, without outputs that are too large or no floats."""
        outputs = passed.outputs
        if outputs is not None and not self.wants(outputs):
            passed = replace(passed, outputs=None)
        self._warm((recipe, protocol), passed)
        self._write(recipe, protocol, passed)

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
        if found is None or (outputs and found.outputs is None):
            found = self._read(recipe, protocol)
            if found is not None:
                self._warm((recipe, protocol), found)
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

    def _write(self, recipe: Digest, protocol: Digest, passed: Remembered) -> None:
        shelf = self._shelf
        if shelf is None or not self._writes:
            return
        try:
            reached = shelf.write(_name(recipe, protocol), _packed(passed))
        except OSError as error:
            self._writes = False
            if not (isinstance(error, PermissionError) or error.errno in CODES):
                self._leave(shelf, error)
                return
            self._tell(f"no more of the models' outputs are kept in {shelf.place}: {error}. {_ELSEWHERE}")
            return
        if reached:
            self._tell(
                f"the models' outputs that are remembered in {shelf.place} have reached "
                f"{shelf.limit / 1e9:.3g} GB: the oldest go. STOCKPOT_CACHE_LIMIT sets another limit, for "
                "weights as well"
            )

    def _read(self, recipe: Digest, protocol: Digest) -> Remembered | None:
        shelf = self._shelf
        try:
            content = None if shelf is None else shelf.read(_name(recipe, protocol))
        except OSError as error:
            self._leave(shelf, error)
            return None
        return None if content is None else _unpacked(content)

    def _leave(self, shelf: Shelf | None, error: OSError) -> None:
        """Ask this shelf for nothing any more."""
        self._shelf = None
        if shelf is not None:
            why = str(error) or "no answer"
            self._tell(f"{shelf.place} is not asked for models' outputs any more: {why}. {_ELSEWHERE}")

    def _tell(self, message: str) -> None:
        with self._lock:
            new = message not in self._said
            self._said.add(message)
        if new:
            self._say(without_secrets(message))


class OutputSum:
    """The sum of several models' outputs, kept for the ensemble that continues it: a greedy search adds one
    model at a time, and reads that one's outputs then, not those of all.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        """``[n, ...]``, float32."""
        self._of: tuple[object, ...] = ()

    def let_be(self, parts: Sequence[object], outputs: Callable[[int], Tensor | None]) -> bool:
        """Let it be the sum of these parts' outputs, by their places. False where one's are absent."""
        if tuple(parts[: len(self._of)]) != self._of:
            self.total, self._of = None, ()
        for place in range(len(self._of), len(parts)):
            part = outputs(place)
            if part is None:
                return False
            self.total = part.clone() if self.total is None else self.total.add_(part)
            self._of = tuple(parts[: place + 1])
        return True


class PassMemory:
    """Completed passes under one protocol, by recipe. Without `outputs`, nothing is remembered."""

    def __init__(self, outputs: RememberedOutputs | None, protocol: Digest) -> None:
        self._outputs = outputs
        self._protocol = protocol
        self._roomy = True
        self._asked: set[Digest] = set()

    def known(self, recipe: Recipe, *, outputs: bool = False) -> Remembered | None:
        """The recipe's pass, if it is remembered; with `outputs`, only if they are."""
        if self._outputs is None:
            return None
        return self._outputs.get(recipe.digest, self._protocol, outputs=outputs)

    def ask_for(self, recipe: Recipe) -> None:
        """From now on its outputs are kept, too: it is a member of an ensemble."""
        self._asked.add(recipe.digest)

    def summed(self, ensemble: Ensemble, total: OutputSum) -> tuple[Tensor | None, Tensor] | None:
        """The sum of the members' outputs but the last one's, which becomes `total`, and the last one's, each
        ``[n, ...]`` in float32 and times its weight. None where outputs of one are not remembered.
        """
        weights = ensemble.weights or (1,) * len(ensemble.members)

        def weighted(place: int) -> Tensor | None:
            known = self.known(ensemble.members[place], outputs=True)
            if known is None or known.outputs is None:
                return None
            wide = known.outputs.to(torch.float32)
            return wide if weights[place] == 1 else wide * weights[place]

        parts = [(self._protocol, m.digest, w) for m, w in zip(ensemble.members, weights, strict=True)]
        last = len(parts) - 1
        if not total.let_be(parts[:last], weighted):
            return None
        outputs = weighted(last)
        return None if outputs is None else (total.total, outputs)

    def keep(self, recipe: Recipe, scores: Floats, gaps: Floats, outputs: Sequence[Tensor | None]) -> None:
        """`outputs`: those of each canonical batch, None where they are not kept."""
        if self._outputs is not None:
            parts = [part for part in outputs if part is not None and self._outputs.wants(part)]
            # Of a soup hardly anybody asks for outputs: it is no ingredient.
            asked = recipe.digest in self._asked or not recipe.is_soup
            whole = asked and len(parts) == len(outputs)
            joined = torch.cat(parts).cpu() if whole else None
            self._outputs.keep(recipe.digest, self._protocol, Remembered(scores, gaps, joined))

    def wants(self, outputs: Tensor) -> bool:
        """Whether such outputs, ``[examples, ...]``, are kept until the pass is over, and remembered then."""
        return self.keeps_outputs and self._outputs is not None and self._outputs.wants(outputs)

    @property
    def keeps_outputs(self) -> bool:
        """Whether any are kept on the device while a pass goes on."""
        return self._roomy and self._outputs is not None

    def keep_no_outputs(self) -> None:
        """From now on: the device has no room for them."""
        self._roomy = False


def _name(recipe: Digest, protocol: Digest) -> str:
    return hashlib.sha256(f"{recipe} {protocol}".encode()).hexdigest()


def _packed(passed: Remembered) -> bytes:
    tensors = {"scores": torch.from_numpy(passed.scores), "gaps": torch.from_numpy(passed.gaps)}
    if passed.outputs is not None:
        tensors["outputs"] = passed.outputs.contiguous()
    return save(tensors, metadata={"sha256": _sha256(tensors)})


def _unpacked(content: bytes) -> Remembered | None:
    """None for what is torn, and for what somebody else wrote."""
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, KeyError, ValueError, RuntimeError):  # those of dtypes that torch has not, too
        return None
    told = (header.get("__metadata__") or {}).get("sha256")
    if told != _sha256(tensors) or not {"scores", "gaps"} <= tensors.keys():
        return None
    return Remembered(tensors["scores"].numpy(), tensors["gaps"].numpy(), tensors.get("outputs"))


def _sha256(tensors: dict[str, Tensor]) -> str:
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
