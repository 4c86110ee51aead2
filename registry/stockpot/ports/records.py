"""What is known, for the use cases that only look things up and write them down."""

from typing import Protocol

from stockpot.ports.store import Store
from stockpot.ports.tracker import Tracker


class Records(Protocol):
    """Both places where something is kept."""

    @property
    def tracker(self) -> Tracker:
        """MLflow."""
        ...

    @property
    def store(self) -> Store:
        """Stockpot's own memory."""
        ...
