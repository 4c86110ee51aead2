"""Where weights come from."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from stockpot.entities import Digest, Recipe

if TYPE_CHECKING:
    from stockpot.soup.weights_file import WeightsFile


class Checkpoints(Protocol):
    """Hands out checkpoints by digest, from any thread."""

    def open(self, digest: Digest) -> "AbstractContextManager[WeightsFile]":
        """The checkpoint's canonical file; fetched first where it is missing."""
        ...

    def prefetch(self, digest: Digest) -> None:
        """It is wanted soon: may begin to fetch it. Never fails."""
        ...


class Overlays(Protocol):
    """What is laid over averages by a rule, as files. The first committed one is a recipe's for good."""

    def overlay(self, recipe: Digest) -> bytes | None:
        """What is committed for this recipe, if there is anything."""
        ...

    def resolve_overlay(self, recipe: Recipe, overlay: bytes) -> bytes:
        """Commit this, unless something is. Returns what is committed."""
        ...
