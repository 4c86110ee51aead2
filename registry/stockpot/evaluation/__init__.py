"""Scores recipes on a device, remembers the scores, and compares them in pairs.

What needs torch is imported when it is first asked for: statistics and remembered scores do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stockpot.evaluation.jackknife import blocks
from stockpot.evaluation.remembered import RememberingEvaluator
from stockpot.evaluation.speculation.speculating_evaluator import SpeculatingEvaluator
from stockpot.evaluation.statistics import compare, compare_mean

if TYPE_CHECKING:
    from stockpot.evaluation.device_pool import DevicePool
    from stockpot.evaluation.devices.device import all_seeded, choose_device, choose_devices
    from stockpot.evaluation.outputs import RememberedOutputs
    from stockpot.evaluation.torch_bench import TorchBench

__all__ = [
    "DevicePool",
    "RememberedOutputs",
    "RememberingEvaluator",
    "SpeculatingEvaluator",
    "TorchBench",
    "all_seeded",
    "blocks",
    "choose_device",
    "choose_devices",
    "compare",
    "compare_mean",
]


_NEEDS_TORCH = {
    "DevicePool": "stockpot.evaluation.device_pool",
    "RememberedOutputs": "stockpot.evaluation.outputs",
    "TorchBench": "stockpot.evaluation.torch_bench",
    "choose_device": "stockpot.evaluation.devices.device",
    "choose_devices": "stockpot.evaluation.devices.device",
    "all_seeded": "stockpot.evaluation.devices.device",
}


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
