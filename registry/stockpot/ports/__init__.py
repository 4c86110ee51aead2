"""The walls: what the use cases ask of the world.

Each docstring is a contract that the suites in `stockpot.testing` hold every adapter to.
"""

from stockpot.ports.bench import Bench, Features, Ids, LanguageModel, Shares
from stockpot.ports.checkpoints import Checkpoints, Overlays
from stockpot.ports.learner import Learner
from stockpot.ports.lineage import Descent
from stockpot.ports.records import Records
from stockpot.ports.search import (
    Evaluator,
    Interrupted,
    MakeMethod,
    OrderDependent,
    SelectionMethod,
    Wanted,
    always,
)
from stockpot.ports.serving import Served
from stockpot.ports.signing import Signer, Verifier
from stockpot.ports.store import Store
from stockpot.ports.task import MeasuresWhole, Task
from stockpot.ports.tracker import Tracker
from stockpot.ports.watcher import Watcher

__all__ = [
    "Bench",
    "Checkpoints",
    "Descent",
    "Evaluator",
    "Features",
    "Ids",
    "Interrupted",
    "LanguageModel",
    "Learner",
    "MakeMethod",
    "MeasuresWhole",
    "OrderDependent",
    "Overlays",
    "Records",
    "SelectionMethod",
    "Served",
    "Shares",
    "Signer",
    "Store",
    "Task",
    "Tracker",
    "Verifier",
    "Wanted",
    "Watcher",
    "always",
]
