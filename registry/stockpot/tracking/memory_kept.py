"""What the in-memory tracker keeps."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stockpot.entities import Measurement, Run, WeightsSource
from stockpot.entities.weights_names import sources_among
from stockpot.errors import Incompatible

if TYPE_CHECKING:
    from torch import nn

PYFUNC = "pyfunc"
"""A model's file that says which function of this process serves it."""


@dataclass
class KeptRun:
    """A run, and what was logged to it."""

    run: Run
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    deleted: bool = False
    datasets: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By the digests of those that it used, their names and contexts."""


@dataclass
class KeptModel:
    """A LoggedModel."""

    name: str
    source_run_id: str
    tags: Mapping[str, str]
    files: dict[str, bytes] = field(default_factory=dict)
    ready: bool = False
    created: int = field(default_factory=lambda: int(time.time() * 1000))
    """Milliseconds since the epoch."""


@dataclass(frozen=True)
class KeptPyfunc:
    """A model that is served by one of these functions."""

    functions: Mapping[str, Callable[[Any], Any]]
    name: str
    software: tuple[tuple[str, str], ...] = (("memory", "1"),)

    def __call__(self, inputs: Any) -> Any:
        """What that function says."""
        if self.name not in self.functions:
            raise Incompatible("it cannot be loaded here: no function serves it")
        try:
            return self.functions[self.name](inputs)
        except Exception as error:
            raise Incompatible(f"it raised {type(error).__name__}: {error}") from error


def answering_together(modules: Sequence["nn.Module"], prior: Sequence[float]) -> Callable[[Any], Any]:
    """What language models that answer together say to an array of ids, position by position."""
    import torch

    def answer(ids: Any) -> Any:
        tokens = torch.from_numpy(ids)
        with torch.inference_mode():
            logs = torch.stack([module(tokens).double().log_softmax(2) for module in modules])
        weights = torch.tensor(prior, dtype=torch.float64).log()[:, None].expand(-1, len(tokens))
        said = []
        for place in range(tokens.shape[1]):
            if place:
                before = tokens[:, place].expand(len(modules), -1)[:, :, None]
                weights = weights + logs[:, :, place - 1].gather(2, before).squeeze(2)
            said.append(torch.logsumexp(weights.log_softmax(0)[:, :, None] + logs[:, :, place], 0))
        return torch.stack(said, 1).float().numpy()

    return answer


def weights_among(run_id: str, owner: str, files: Mapping[str, bytes]) -> Iterator[WeightsSource]:
    """The weights files among a run's or a model's files."""
    sizes = ((path, len(content)) for path, content in files.items())
    return sources_among(run_id, f"memory:/{owner}", sizes)
