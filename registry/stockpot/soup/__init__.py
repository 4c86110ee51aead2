"""Checkpoint files: read strictly, kept by digest, compared by their headers, averaged by streaming.

Nothing here imports torch before tensors are touched.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from stockpot.soup.average import averaged_tensors, build
from stockpot.soup.canonical import canonical_names, canonical_tensors
from stockpot.soup.casting import CODES, NAMES, cast_tensors, only_float_dtypes_differ
from stockpot.soup.checkpoint_cache import CheckpointCache
from stockpot.soup.compatibility import (
    common_prefix,
    compatible_groups,
    differences,
    differing_values,
)
from stockpot.soup.joined_adapter import join_adapters
from stockpot.soup.low_rank import ingest_adapter, merged_tensors
from stockpot.soup.pt2_file import open_pt2
from stockpot.soup.safetensors_file import Head, open_safetensors
from stockpot.soup.sharded_file import open_sharded, require_true
from stockpot.soup.torch_file import CONVERSION, RUN_IDS, open_torch, require_archive

__all__ = [
    "CODES",
    "CONVERSION",
    "NAMES",
    "RUN_IDS",
    "CheckpointCache",
    "Head",
    "averaged_tensors",
    "build",
    "canonical_names",
    "canonical_tensors",
    "cast_tensors",
    "common_prefix",
    "compatible_groups",
    "differences",
    "differing_values",
    "ingest_adapter",
    "join_adapters",
    "merged_tensors",
    "only_float_dtypes_differ",
    "open_pt2",
    "open_safetensors",
    "open_sharded",
    "open_torch",
    "require_archive",
    "require_true",
]


class _CallablePackage(ModuleType):
    """A package of the house, and the call of that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `stockpot.calls.soup` does."""
        return import_module("stockpot.calls").soup(*args, **kwargs)


# `from stockpot import soup` finds this package in place of the call of that name, so it can be called.
sys.modules[__name__].__class__ = _CallablePackage
