"""What the task's model tells and the configuration beside the weights does not."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_TWO = {"0": "LABEL_0", "1": "LABEL_1"}
"""What transformers takes for the classes where a configuration names none."""


def complete_config(config: Path, module: "nn.Module", *, adapted: bool) -> None:
    """Let a ``config.json`` name the classes and the padding token that it lacks and the module's has, where
    the module is one of transformers'. `adapted`: the configuration is that of the base of adapters, which
    may have made another class of it, with more outputs or fewer.
    """
    kind = type(module)
    if not kind.__module__.startswith("transformers.") or not config.exists():
        return
    with suppress(ValueError, RecursionError):  # no JSON: told where it is read
        document = json.loads(config.read_bytes())
        if isinstance(document, dict):
            added = _lacking(document, module.config)
            if adapted:
                added["architectures"] = [kind.__name__]
            if added:
                config.write_text(json.dumps({**document, **added}))


def _lacking(document: Mapping[str, Any], config: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = {str(number): str(name) for number, name in (getattr(config, "id2label", None) or {}).items()}
    named = document.get("id2label")
    theirs = named if isinstance(named, dict) else _TWO
    if names and (len(names) != len(theirs) or (_are_numbers(theirs) and not _are_numbers(names))):
        found["id2label"] = names
        found["label2id"] = {name: int(number) for number, name in names.items()}
    padding = getattr(config, "pad_token_id", None)
    if document.get("pad_token_id") is None and padding is not None:
        found["pad_token_id"] = padding
    return found


def _are_numbers(names: Mapping[str, Any]) -> bool:
    return all(name == f"LABEL_{number}" for number, name in names.items())
