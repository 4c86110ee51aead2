"""Scores recipes on a device, and compares the scores in pairs.

What needs torch is imported when it is first asked for: statistics do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stockpot.evaluation.jackknife import blocks
from stockpot.evaluation.statistics import compare, compare_mean

if TYPE_CHECKING:
    from stockpot.evaluation.devices.device import all_seeded, choose_device, device_names
    from stockpot.evaluation.outputs import RememberedOutputs
    from stockpot.evaluation.torch_bench import TorchBench

__all__ = [
    "RememberedOutputs",
    "TorchBench",
    "all_seeded",
    "blocks",
    "choose_device",
    "compare",
    "compare_mean",
    "device_names",
]


_NEEDS_TORCH = {
    "RememberedOutputs": "stockpot.evaluation.outputs",
    "TorchBench": "stockpot.evaluation.torch_bench",
    "choose_device": "stockpot.evaluation.devices.device",
    "device_names": "stockpot.evaluation.devices.device",
    "all_seeded": "stockpot.evaluation.devices.device",
}


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
