"""Scores recipes on a device.

Each name is imported when it is first asked for: what decides a rejection needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpot.evaluation.devices.device import all_seeded, choose_device, device_names
    from stockpot.evaluation.outputs import RememberedOutputs
    from stockpot.evaluation.torch_bench import TorchBench

__all__ = [
    "RememberedOutputs",
    "TorchBench",
    "all_seeded",
    "choose_device",
    "device_names",
]


_HOMES = {
    "RememberedOutputs": "stockpot.evaluation.outputs",
    "TorchBench": "stockpot.evaluation.torch_bench",
    "choose_device": "stockpot.evaluation.devices.device",
    "device_names": "stockpot.evaluation.devices.device",
    "all_seeded": "stockpot.evaluation.devices.device",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
