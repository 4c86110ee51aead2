"""Architectures, tokenizers and image processors of a folder that ``save_pretrained`` wrote."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stockpot.errors import BadTask, UnknownPlugin

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
UNLIMITED = 10**9
"""Tokenizers that know no limit say 1e30."""


def architecture(kind: str, config: str, dtype: str = "") -> nn.Module:
    """A model of transformers without its weights, the same each time.

    `kind`: the auto class, such as ``AutoModelForCausalLM``; `config`: the text of a ``config.json``;
    `dtype`: ``float32``, ``float16`` or ``bfloat16``; that of the configuration without it, else float32.

    Attention is torch's own where the model knows it, whatever the configuration or the installed packages
    would choose, and a decoder keeps no cache. Raises ValueError for a configuration that cannot be used.
    """
    import transformers

    auto = getattr(transformers, kind)
    settings = read_config(config)
    if hasattr(settings, "use_cache"):
        settings.use_cache = False
    settings.architectures = settings.architectures or []  # None, where a configuration was saved by itself
    wanted = dtype or str(settings.dtype or "float32").removeprefix("torch.")
    if wanted not in DTYPES:
        raise ValueError(f"dtype is {wanted!r}: it must be {', '.join(DTYPES)}")

    def made(attention: str) -> nn.Module:
        module: nn.Module = auto.from_config(
            settings, dtype=DTYPES[wanted], attn_implementation=attention, trust_remote_code=False
        )
        return module.eval()

    with offline():
        try:
            return made("sdpa")
        except ValueError:  # a model without it, or a configuration that this kind of model does not know
            return made("eager")


def read_config(text: str) -> Any:
    """The configuration in the text of a ``config.json``.

    Raises ValueError where it is none, where it brings code of its own, and where it is of quantised weights.
    """
    from transformers import AutoConfig

    document = json.loads(text)
    if not isinstance(document, dict) or "model_type" not in document:
        raise ValueError("it names no model_type")
    _refuse_code(document, "it")
    if document.get("quantization_config"):
        raise ValueError("it is of quantised weights, which have no average")
    return type(AutoConfig.for_model(document["model_type"])).from_dict(document)


@contextmanager
def offline() -> Iterator[None]:
    """Let transformers take nothing from a hub meanwhile, whatever the environment says."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def require(extra: str, *modules: str) -> None:
    """Raises UnknownPlugin, with the command that mends it, where one of these is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UnknownPlugin(
            f"this task needs {' and '.join(missing)}, not installed here",
            mend=f"pip install 'stockpot[{extra}]'",
        )


class ModelFolder:
    """A folder with ``config.json`` and the files of a tokenizer or an image processor; weights are not read.

    `kind` and `dtype` as in `architecture`. `faults`: why it cannot be used; with any, nothing else is there.
    """

    def __init__(self, folder: str, kind: str, dtype: str = "") -> None:
        self._path = Path(folder).expanduser().absolute()
        self._kind = kind
        self._dtype = dtype
        self._told: dict[str, Any] = {}
        self.faults: list[str] = []
        if not self._path.is_dir():
            self.faults = [f"model: {self._path} is no folder; nothing is downloaded"]
            return
        try:
            self._text = config_text(folder)
            self.config = read_config(self._text)
            with torch.device("meta"):
                bare = self.architecture()
        except Exception as error:  # noqa: BLE001 - models check their configurations in their own ways
            self.faults = [f"model: {self._path}/config.json cannot be used: {error}"]
            return
        self.dtype = next(bare.parameters()).dtype
        self.takes = frozenset(signature(bare.forward).parameters)
        """Names of what the model takes."""
        self.most_tokens = _most_positions(self.config, bare)
        """That its table of positions holds; `UNLIMITED` without one."""

    def tell(self, settings: Mapping[str, Any]) -> None:
        """Let the configurations of models that are made from now on say this, too: names of classes, or a
        padding token. It changes no weight.
        """
        self._told |= settings

    def architecture(self) -> nn.Module:
        """The model without its weights."""
        made: Any = architecture(self._kind, self._text, self._dtype)
        for name, setting in self._told.items():
            setattr(made.config, name, setting)
        module: nn.Module = made
        return module

    def tokenizer(self) -> Any:
        """The folder's tokenizer. Raises BadTask where there is none that can be used."""
        from transformers import AutoTokenizer

        tokenizer = self._loaded(AutoTokenizer, "tokenizer")
        if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):  # made up from the config
            raise _nothing_saved(self._path, "tokenizer", "it knows no words")
        return tokenizer

    def image_processor(self) -> Any:
        """The folder's image processor, by pillow: torchvision's resizes to other values.

        Raises BadTask where there is none that can be used.
        """
        from transformers import AutoImageProcessor

        return self._loaded(AutoImageProcessor, "image processor", backend="pil")

    def _loaded(self, auto: Any, what: str, **options: Any) -> Any:
        try:
            for name in ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
                if (self._path / name).is_file():
                    _refuse_code(json.loads((self._path / name).read_text(encoding="utf-8")), name)
            with offline():
                return auto.from_pretrained(
                    self._path, local_files_only=True, trust_remote_code=False, **options
                )
        except Exception as error:
            raise _nothing_saved(self._path, what, str(error).strip().partition("\n")[0]) from error


def _nothing_saved(path: Path, what: str, why: str) -> BadTask:
    return BadTask(
        f"model: {path} has no {what} that can be used: {why}",
        mend=f"save it there too, by {what.replace(' ', '_')}.save_pretrained",
    )


def config_text(folder: str) -> str:
    """What the folder's ``config.json`` says. Raises OSError where it is not there."""
    return (Path(folder).expanduser() / "config.json").read_text(encoding="utf-8")


def _refuse_code(document: Any, what: str) -> None:
    if "auto_map" in document:
        raise ValueError(f"{what} brings code of its own (auto_map), which is never run")


def _most_positions(config: Any, bare: nn.Module) -> int:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or -1
    # RoBERTa and its kin begin to count behind the number of the padding token.
    skipped = [
        part.padding_idx + 1
        for name, part in bare.named_modules()
        if name.endswith("position_embeddings")
        and isinstance(part, nn.Embedding)
        and part.padding_idx is not None
    ]
    return int(positions) - max(skipped, default=0) if positions > 0 else UNLIMITED  # XLNet: -1
