"""A small file of tensors that are laid over an average: statistics that no average of weights gets right."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import TensorSpec, digest_of_bytes
from stockpot.prose import listed
from stockpot.soup.canonical import header_of, in_layout_order
from stockpot.soup.safetensors_file import Head
from stockpot.soup.weights_file import Place

if TYPE_CHECKING:
    from torch import Tensor


class Overlay:
    """Tensors under a checkpoint's canonical names, in a file of canonical form. Raises BadCheckpoint for
    bytes that are no such file.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.digest = digest_of_bytes(content)
        places = Head(Path("statistics"), len(content), content).places()
        self._places = {place.spec.name: place for place in places}

    @classmethod
    def of(cls, tensors: Mapping[str, "Tensor"]) -> "Overlay":
        """Of these tensors, one or more."""
        from stockpot.soup.arithmetic import bytes_of, spec_of

        specs = in_layout_order(spec_of(name, tensor) for name, tensor in tensors.items())
        parts = (bytes(bytes_of(tensors[spec.name].detach().cpu().contiguous())) for spec in specs)
        return cls(b"".join([header_of(specs), *parts]))

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """What it holds."""
        return tuple(place.spec for place in self._places.values())

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> "Tensor":
        """One of its tensors, in memory of its own."""
        from stockpot.soup import arithmetic

        tensor = arithmetic.empty(self._places[name].spec)
        arithmetic.bytes_of(tensor)[:] = self._content(self._places[name])
        return tensor

    def misfits(self, tensors: Sequence[TensorSpec]) -> Iterator[str]:
        """What it holds that is no tensor of these."""
        known = frozenset(tensors)
        strange = [f"{s.name} {s.dtype}{list(s.shape)}" for s in self.tensors if s not in known]
        if strange:
            yield f"statistics for tensors that its ingredients do not have: {listed(strange)}"

    def lay_over(self, content: memoryview, begin: int, places: Mapping[str, Place]) -> None:
        """Write what belongs there into this part of a file that begins at a byte and has such places."""
        for name, own in self._places.items():
            place = places[name]
            first, last = max(place.offset, begin), min(place.end, begin + len(content))
            if first < last:
                ours = self._content(own)
                content[first - begin : last - begin] = ours[first - place.offset : last - place.offset]

    def _content(self, place: Place) -> memoryview:
        return memoryview(self.content)[place.offset : place.end]
