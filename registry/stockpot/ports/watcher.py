"""Who watches."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Watcher(Protocol):
    """Is told how far a long stage has come. Never fails, never slows the work down."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins; `total` steps are expected, 0: nobody knows how many."""
        ...

    def advance(self, stage: str) -> None:
        """One step of the stage is done."""
        ...

    def say(self, message: str) -> None:
        """One line worth reading."""
        ...
