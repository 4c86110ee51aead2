"""The walls: what the use cases ask of the world.

Each docstring is a contract that the suites in `registry.testing` hold every adapter to.
"""

from registry.ports.progress import Progress
from registry.ports.search import Evaluator, MakeMethod, SelectionMethod
from registry.ports.store import Store
from registry.ports.task import MeasuresWhole, Task
from registry.ports.tracker import Tracker

__all__ = [
    "Evaluator",
    "MakeMethod",
    "MeasuresWhole",
    "Progress",
    "SelectionMethod",
    "Store",
    "Task",
    "Tracker",
]
