"""What PEFT's ``adapter_config.json`` says of a low-rank adapter (LoRA), read strictly: PEFT is not imported.

A weight W of shape out x in becomes W + s * B @ A, where A is r x in, B is out x r, and s is alpha / r, with
rank-stabilised LoRA alpha / sqrt(r) (``peft/tuners/lora``; Hu et al. 2021, Kalajdzievski 2023).
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from stockpot.entities.weights_names import ADAPTER_CONFIG
from stockpot.errors import BadCheckpoint, Incompatible
from stockpot.soup import strict_json
from stockpot.soup.weights_file import open_regular

CONFIG_LIMIT = 1 << 20
"""Bytes of such a file that are read: real ones have a few thousand."""
MERGING = "merge each adapter into its base with PEFT's merge_and_unload(), and log the whole model"
LANGUAGE_MODELS = frozenset({"CAUSAL_LM", "SEQ_2_SEQ_LM"})
"""Of PEFT's task types, those whose models may use their input embeddings as output weights."""

_READ = frozenset(
    {
        *("peft_type", "base_model_name_or_path", "revision", "task_type", "modules_to_save"),
        *("r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "fan_in_fan_out"),
        "init_lora_weights",
    }
)
_HARMLESS = frozenset(
    {
        *("auto_mapping", "inference_mode", "peft_version", "runtime_config"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias"),
        *("lora_dropout", "megatron_core", "qalora_group_size"),
        *("eva_config", "corda_config", "loftq_config", "lora_ga_config"),
    }
)
"""What chooses modules is told by the tensors that are there; the rest counts in training, or beside a
setting that is refused.
"""
_LEAVES_THE_BASE = frozenset({True, False, None, "gaussian", "eva", "orthogonal"})
"""Ways to begin that change no weight of the base: PiSSA, OLoRA, CorDA, LoftQ and others do."""
_PATTERN = re.compile(r"(?:[\w.^$|()-]|\\[.dw]|\[(?:\w(?:-\w)?)+\]|(?<!\))[*+])+", re.ASCII)
"""Of a module's name: of all regular expressions those that no name can make slow, with `_QUANTIFIERS`."""
_QUANTIFIERS = 1
_PATTERN_LIMIT = 200
_MOST_PATTERNS = 2000
LOOKUPS = 1_000_000
"""Names times patterns."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A plain LoRA adapter."""

    base: str
    """What PEFT calls the base: a folder, or a name on the hub. Empty where it is not told."""
    revision: str
    """Of that name; empty where none was asked for."""
    task: str
    """What PEFT calls the model's task; empty where it is not told."""
    bias: str
    """Which biases were trained, by PEFT's word."""
    saved: tuple[str, ...]
    """Modules that were trained whole."""
    ranks: frozenset[int]
    """That its matrices may have."""
    alpha: float
    alphas: tuple[tuple["re.Pattern[str]", float], ...]
    """For modules that the pattern fits, in place of that; the first that does counts."""
    stabilised: bool
    """Rank-stabilised: divided by the root of the rank."""
    transposed: bool
    """Weights are stored as in x out, where their shapes do not tell (``fan_in_fan_out``)."""

    @property
    def language_model(self) -> bool | None:
        """Whether the model predicts words; None where that is not told."""
        return self.task in LANGUAGE_MODELS if self.task else None

    def scale(self, module: str, rank: int) -> float:
        """What the product of a module's matrices of this rank is multiplied by."""
        alpha = next((alpha for pattern, alpha in self.alphas if pattern.match(module)), self.alpha)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


def read_config(folder: Path) -> bytes:
    """The file's content, of a longer one enough for `parse_config` to refuse it. Raises BadCheckpoint."""
    with open_regular(folder / ADAPTER_CONFIG) as file:
        return bytes(file.read(0, min(file.size, CONFIG_LIMIT + 1)))


def parse_config(content: bytes | bytearray) -> AdapterConfig:
    """Read the file.

    Raises BadCheckpoint for what is no such file, Incompatible, naming the setting, for an adapter that is
    more than a low-rank update of its base.
    """
    if len(content) > CONFIG_LIMIT:
        raise BadCheckpoint(f"{ADAPTER_CONFIG} is longer than {CONFIG_LIMIT:,} bytes", mend=MERGING)
    try:
        document = strict_json.parse(content)
    except ValueError as error:
        raise BadCheckpoint(f"{ADAPTER_CONFIG} is no JSON: {error}", mend=MERGING) from error
    try:
        return _config(document)
    except ValueError as error:
        raise BadCheckpoint(f"{ADAPTER_CONFIG}: {error}", mend=MERGING) from error


def _config(found: Mapping[str, object]) -> AdapterConfig:
    _require_plain(found)
    ranks = _numbers(found, "rank_pattern")
    alphas = _numbers(found, "alpha_pattern")
    if len(alphas) > _MOST_PATTERNS:
        raise ValueError(f"alpha_pattern has more than {_MOST_PATTERNS:,} patterns")
    every = [_number(found.get("r", 8), "r"), *ranks.values()]
    if not all(rank > 0 and rank.is_integer() for rank in every):
        raise ValueError("a rank is no positive whole number")
    saved = found.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) and name for name in saved):
        raise ValueError("modules_to_save is no list of names")
    return AdapterConfig(
        base=_text(found, "base_model_name_or_path"),
        revision=_text(found, "revision"),
        task=_text(found, "task_type"),
        bias=_text(found, "bias") or "none",
        saved=tuple(saved),
        ranks=frozenset(map(int, every)),
        alpha=_number(found.get("lora_alpha", 8), "lora_alpha"),
        alphas=tuple((_compiled(pattern), alpha) for pattern, alpha in alphas.items()),
        stabilised=_flag(found, "use_rslora"),
        transposed=_flag(found, "fan_in_fan_out"),
    )


def _require_plain(found: Mapping[str, object]) -> None:
    """Refuse every setting that would make the update another one, those that nobody knows yet included."""
    kind = found.get("peft_type")
    if kind != "LORA":
        _refuse(f"peft_type is {str(kind)[:100]!a}, not LORA")
    for name, value in found.items():
        if value and name not in _READ | _HARMLESS:
            _refuse(f"{name[:100]!a} is set, and its update is none of plain LoRA")
    start = found.get("init_lora_weights", True)
    start = start.lower() if isinstance(start, str) else start
    if not isinstance(start, str | bool | None) or start not in _LEAVES_THE_BASE:
        _refuse(
            f"init_lora_weights is {str(start)[:100]!a}, which changed the base's own weights",
            "save each adapter with PEFT's path_initial_model_for_weight_conversion=..., or ",
        )


def _refuse(what: str, before: str = "") -> NoReturn:
    raise Incompatible(f"{ADAPTER_CONFIG}: {what}", mend=before + MERGING)


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value or ""


def _flag(found: Mapping[str, object], name: str) -> bool:
    value = found.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")  # noqa: TRY004 - a fault of the file
    return value


def _number(value: object, name: str) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float):
        with suppress(OverflowError):  # of an integer with hundreds of digits
            if math.isfinite(value):
                return float(value)
    raise ValueError(f"{name} holds {str(value)[:100]!a}, which is no number")


def _numbers(found: Mapping[str, object], name: str) -> dict[str, float]:
    """Numbers by pattern, in the order of the file."""
    value = found.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no map")  # noqa: TRY004 - a fault of the file
    return {pattern: _number(number, name) for pattern, number in value.items()}


def _compiled(pattern: str) -> "re.Pattern[str]":
    """As PEFT matches it, ``get_pattern_key``: at the end of a module's name, after a dot or at its start."""
    simple = len(pattern) <= _PATTERN_LIMIT and _PATTERN.fullmatch(pattern)
    if not simple or sum(map(pattern.count, "*+")) > _QUANTIFIERS:
        raise ValueError(f"alpha_pattern has {pattern[:100]!a}, which is no simple pattern of names")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except re.error as error:
        raise ValueError(f"alpha_pattern has {pattern[:100]!a}: {error}") from error
