"""How many outputs a head has that adapters brought: the base's configuration tells those of another."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stockpot.entities import WeightsSource
from stockpot.errors import BadCheckpoint
from stockpot.workflow.gathering.adapters import weights_alone
from stockpot.workflow.gathering.headers import tensors_of
from stockpot.workflow.gathering.places import Files

_HEAD = re.compile(
    r"(.+\.)?(classifier|score|classification_head|(classifier|classification_head)\.out_proj)\.weight"
)
"""The last weight of transformers' models that choose classes: ``classifier.dense`` comes before it."""
_MOST = 100_000
"""A stranger's header may claim any number for a tensor without elements."""


def own_outputs(source: WeightsSource, files: Files) -> int | None:
    """Outputs of the head that an adapter holds whole; None where it holds none, or nothing tells."""
    if source.base is None:
        return None
    try:
        tensors = tensors_of(weights_alone(source), files) or ()
    except BadCheckpoint:  # told where the sweep is gathered
        return None
    found = {spec.shape[0] for spec in tensors if spec.shape and _HEAD.fullmatch(spec.name)}
    outputs = found.pop() if len(found) == 1 else 0
    return outputs if 0 < outputs <= _MOST else None


def outputs_in(config: Mapping[str, Any]) -> int:
    """As transformers counts them: a configuration names its classes where they are not two."""
    names = config.get("id2label")
    return len(names) if isinstance(names, dict) else 2


def count_outputs(config: Path, outputs: int) -> None:
    """Let a ``config.json`` count so many, under the names that transformers gives to those without."""
    with suppress(ValueError, RecursionError):  # no JSON: told where it is read
        document = json.loads(config.read_bytes())
        if not isinstance(document, dict) or outputs_in(document) == outputs:
            return
        names = {str(number): f"LABEL_{number}" for number in range(outputs)}
        rest = {key: value for key, value in document.items() if key != "num_labels"}
        numbers = {name: int(number) for number, name in names.items()}
        config.write_text(json.dumps({**rest, "id2label": names, "label2id": numbers}))
