"""Weight bytes, and where a run keeps them."""

from dataclasses import dataclass, replace
from enum import StrEnum

from stockpot.entities.digest import Digest


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, safetensors dtype ("F32", "BF16", "I64", ...) and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model's weights in canonical form.

    The canonical form is what ``safetensors.torch.save_file(tensors, metadata={"format": "pt"})``
    writes, after the key prefix of a wrapper (``module.`` and the like) is taken off, so that the
    same weights have one digest whether a run logged them as safetensors or inside a ``pt2``.
    """

    digest: Digest
    """SHA-256 of the whole canonical file."""
    size: int
    """Bytes of the canonical file."""
    tensors: tuple[TensorSpec, ...]
    """Sorted by name."""
    exact: Digest
    """Digest of the names and bytes of all integer and boolean tensors, which must agree."""


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """Where weights were found: without an address, which may hold a password."""

    run_id: str
    path: str
    """As in `WeightsSource`."""
    model_id: str | None


class WeightsFormat(StrEnum):
    """What kind of file holds the weights."""

    SAFETENSORS = "safetensors"
    PT2 = "pt2"
    TORCH = "torch"
    """By ``torch.save``: its pickle is read as a description, and never run."""
    PICKLE = "pickle"
    """Never opened; listed so that the exclusion can say how to convert it."""
    OTHER = "other"
    """No weights: a file that was logged beside them."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the files that weights were cut into, or the index of those."""

    name: str
    """In the folder of the weights."""
    size: int | None
    """Bytes, where the artifact store tells."""


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """A weights file of a run, as the tracking server names it; or the index of one that was cut."""

    run_id: str
    format: WeightsFormat
    path: str
    """Path below the run's artifacts, or ``<model name>/<path below the model's artifacts>``."""
    uri: str
    """Names the artifact, for a download and for the store: by no address, which may hold a password."""
    model_id: str | None
    """The LoggedModel that holds the file, if one does."""
    size: int | None
    """Bytes, of all parts together, where the artifact store tells."""
    run_ended: int | None = None
    """`Run.ended` of the run that logged it, where that is known."""
    parts: tuple[Part, ...] = ()
    """Of weights that were cut, ``model-00001-of-00002.safetensors`` and so on: those that are there, and the
    index, if it is there. `path` and `uri` are the index's then.
    """
    step: int | None = None
    """At which its LoggedModel was logged, where a run logged several."""
    metrics: tuple[tuple[str, float], ...] = ()
    """What was logged of that LoggedModel, the newest value of each."""
    cast: str | None = None
    """The safetensors dtype that its floating-point tensors are cast to on their way into the cache."""
    base: "WeightsSource | None" = None
    """Of an adapter: the weights that it is merged into on that way."""

    @property
    def key(self) -> str:
        """What is remembered of reading it goes by this name."""
        name = self.uri
        if self.base is not None:
            name += f" into {self.base.key} ({self.base.size} bytes, {self.base.run_ended})"
        return f"{name} as {self.cast}" if self.cast else name

    @property
    def inner(self) -> str:
        """The path below what holds the file: the run's artifacts, or the LoggedModel's."""
        of_version = self.uri.startswith("models:/") and self.model_id is None
        return self.uri.partition(":/")[2].split("/", 2 if of_version else 1)[-1]

    def beside(self, part: Part) -> "WeightsSource":
        """A file in the same folder."""
        path, uri = (f"{address.rpartition('/')[0]}/{part.name}" for address in (self.path, self.uri))
        return replace(self, path=path.lstrip("/"), uri=uri, size=part.size, parts=())
