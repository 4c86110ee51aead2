"""Stockpot: from a finished hyperparameter sweep to a registered model soup.

    from stockpot import SoupRequest, soup

    outcome = soup(SoupRequest(model="birds", sweep="1f0c...e2", task="birds:Birds"))

These names are what programs use, and stay. Each is loaded when it is first asked for: to import this package
takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpot.calls import check, gate, help_out, plan, promote, recall, soup
    from stockpot.entities import (
        Accept,
        Adapter,
        Direction,
        Dtype,
        RecallKind,
        Register,
        SoupOutcome,
        SoupRequest,
    )
    from stockpot.errors import NothingToSoup, StockpotError
    from stockpot.ports import SelectionMethod, Task, Watcher
    from stockpot.workflow.check import SweepCheck
    from stockpot.workflow.plan import Plan

__all__ = [
    "Accept",
    "Adapter",
    "Direction",
    "Dtype",
    "NothingToSoup",
    "Plan",
    "RecallKind",
    "Register",
    "SelectionMethod",
    "SoupOutcome",
    "SoupRequest",
    "StockpotError",
    "SweepCheck",
    "Task",
    "Watcher",
    "check",
    "gate",
    "help_out",
    "plan",
    "promote",
    "recall",
    "soup",
]

_HOMES = {
    **dict.fromkeys(("check", "gate", "help_out", "plan", "promote", "recall"), "calls"),
    **dict.fromkeys(
        ("Accept", "Adapter", "Direction", "Dtype", "RecallKind", "Register", "SoupOutcome", "SoupRequest"),
        "entities",
    ),
    **dict.fromkeys(("NothingToSoup", "StockpotError"), "errors"),
    **dict.fromkeys(("Watcher", "SelectionMethod", "Task"), "ports"),
    "Plan": "workflow.plan",
    "SweepCheck": "workflow.check",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
