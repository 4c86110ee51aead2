"""Weight bytes, and where a run keeps them."""

from dataclasses import dataclass
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
    PICKLE = "pickle"
    """Never opened; listed so that the exclusion can say how to log the model instead."""


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """A weights file of a run, as the tracking server names it."""

    run_id: str
    format: WeightsFormat
    path: str
    """Path below the run's artifacts, or ``<model name>/<path below the model's artifacts>``."""
    uri: str
    """Names the artifact, for a download and for the store: by no address, which may hold a password."""
    model_id: str | None
    """The LoggedModel that holds the file, if one does."""
    size: int | None
    """Bytes, where the artifact store tells."""
    run_ended: int | None = None
    """`Run.ended` of the run that logged it, where that is known."""
