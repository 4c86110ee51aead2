"""Names under which transformers writes a module's tensors, where the module itself has others.

``save_pretrained`` keeps the names that an architecture's first release had (``encoder.layer.0.…query``), and
``from_pretrained`` renames them (``layers.0.…q_proj``). What is stored keeps its names here too.
"""

import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_PRETRAINED = "transformers.modeling_utils.PreTrainedModel"
_WRAPPERS = frozenset({"model", "module", "_orig_mod"})
"""Whose names canonical ones are without."""


@dataclass(frozen=True)
class Renaming:
    """What ``from_pretrained`` would do with stored tensors, by their names."""

    names: Mapping[str, str] = field(default_factory=dict)
    """The module's own name of each stored tensor that is one of the module's; no two have the same."""
    converted: Collection[str] = ()
    """Those of which other tensors would be made, by more than renaming."""


def renaming(module: nn.Module, stored: Collection[str]) -> Renaming:
    """For tensors stored under these names; empty for a module that is no model of transformers, nor but a
    wrapper around one.
    """
    outside, model = _within(module)
    # The library is never imported for a task that does without it: where there is such a model, it is there.
    mapping: Any = sys.modules.get("transformers.conversion_mapping")
    loading: Any = sys.modules.get("transformers.core_model_loading")
    if model is None or mapping is None or loading is None:
        return Renaming()
    steps = mapping.get_model_conversion_mapping(model)
    renamings = [step for step in steps if isinstance(step, loading.WeightRenaming)]
    converters = [step for step in steps if isinstance(step, loading.WeightConverter)]
    own = model.state_dict()
    names: dict[str, str] = {}
    converted = []
    for name in sorted(stored, key=loading.dot_natural_key):  # from_pretrained's order: some depend on it
        found, converter = loading.rename_source_key(
            name, renamings, converters, model.base_model_prefix, own
        )
        if found not in own and name in own:
            found, converter = name, None
        if converter is not None:
            converted.append(name)
        elif found in own:
            names[name] = outside + found
    count = Counter(names.values())
    return Renaming({name: found for name, found in names.items() if count[found] == 1}, tuple(converted))


def _within(module: nn.Module) -> tuple[str, Any]:
    """The model of transformers that this module is or wraps, if any, behind the prefix of its names."""
    if any(f"{each.__module__}.{each.__name__}" == _PRETRAINED for each in type(module).__mro__):
        return "", module
    children = dict(module.named_children())
    if len(children) != 1 or not children.keys() <= _WRAPPERS:
        return "", None
    [(name, child)] = children.items()
    outside, model = _within(child)
    return f"{name}.{outside}", model
