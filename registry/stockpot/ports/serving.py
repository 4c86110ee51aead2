"""A registered model as MLflow serves it, by whatever code it brings."""

from typing import Any, Protocol

Arrays = Any
"""A numpy array, or a mapping of names to arrays; each with one row per example."""


class Served(Protocol):
    """A model that is served in a process of its own."""

    @property
    def software(self) -> tuple[tuple[str, str], ...]:
        """The packages that its answers depend on, as far as it tells, with their versions here."""
        ...

    def __call__(self, inputs: Arrays) -> Arrays:
        """What it predicts. The model is loaded for the first call.

        Raises Incompatible, in one sentence, where it cannot be loaded here, does not take such inputs,
        fails, is silent for long, or predicts what is no numbers.
        """
        ...
