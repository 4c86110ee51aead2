"""What the in-memory tracker keeps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stockpot.entities import Measurement, Run, WeightsSource
from stockpot.tracking.names import weights_format


@dataclass
class KeptRun:
    """A run, and what was logged to it."""

    run: Run
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()


@dataclass
class KeptModel:
    """A LoggedModel."""

    name: str
    source_run_id: str
    tags: Mapping[str, str]
    files: dict[str, bytes] = field(default_factory=dict)
    ready: bool = False


def weights_among(run_id: str, owner: str, files: Mapping[str, bytes]) -> Iterator[WeightsSource]:
    """The weights files among a run's or a model's files."""
    for path, content in files.items():
        form = weights_format(path)
        if form is not None:
            yield WeightsSource(run_id, form, path, f"memory:/{owner}/{path}", None, len(content))
