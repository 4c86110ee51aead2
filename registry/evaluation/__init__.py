"""Scores recipes on a device, remembers the scores, and compares them in pairs.

What needs torch is imported when it is first asked for: statistics and remembered scores do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from registry.evaluation.jackknife import blocks
from registry.evaluation.remembered import RememberingEvaluator
from registry.evaluation.speculation.speculating_evaluator import SpeculatingEvaluator
from registry.evaluation.statistics import compare, compare_mean

if TYPE_CHECKING:
    from registry.evaluation.device_pool import DevicePool
    from registry.evaluation.devices.device import choose_device, choose_devices
    from registry.evaluation.outputs import RememberedOutputs
    from registry.evaluation.torch_bench import TorchBench

__all__ = [
    "DevicePool",
    "RememberedOutputs",
    "RememberingEvaluator",
    "SpeculatingEvaluator",
    "TorchBench",
    "blocks",
    "choose_device",
    "choose_devices",
    "compare",
    "compare_mean",
]


_NEEDS_TORCH = {
    "DevicePool": "registry.evaluation.device_pool",
    "RememberedOutputs": "registry.evaluation.outputs",
    "TorchBench": "registry.evaluation.torch_bench",
    "choose_device": "registry.evaluation.devices.device",
    "choose_devices": "registry.evaluation.devices.device",
}


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
