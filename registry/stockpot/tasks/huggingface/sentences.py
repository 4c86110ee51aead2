"""How alike two sentences are, by a model of sentence-transformers."""

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stockpot.entities import CONFIG, MODULES, SETTINGS, modules_in
from stockpot.tasks.huggingface.base import LABELS, NOTHING, Batch, Examples, without_faults
from stockpot.tasks.huggingface.data import refuse
from stockpot.tasks.huggingface.models import architecture, config_text
from stockpot.tasks.huggingface.texts import TextTask, empty_rows, missing_texts, numbers, text_columns

SECOND = "_2"
"""What the names of the second sentence's input end in."""
POOLINGS = ("mean", "cls", "max")
_OLDER = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
_NOT_TEXT = "the way of its first module from a text to embeddings of tokens is not known"


class Embedder(nn.Module):
    """An encoder of transformers, and what sentence-transformers makes of its outputs."""

    def __init__(self, encoder: nn.Module, pooling: str, *, normalize: bool) -> None:
        super().__init__()
        self.model = encoder
        self._pooling = pooling
        self._normalize = normalize

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Embeddings ``[sentences, numbers]`` of tokens ``[sentences, tokens]``. The mask is 0 at padding."""
        tokens = self.model(attention_mask=attention_mask, **inputs).last_hidden_state
        mask = attention_mask[:, :, None].to(tokens.dtype)
        if self._pooling == "mean":
            pooled = (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        elif self._pooling == "max":
            pooled = tokens.masked_fill(mask == 0, float("-inf")).max(dim=1).values
        else:  # the first that is no padding, which may stand on the left
            first = attention_mask.argmax(dim=1)
            pooled = tokens[torch.arange(len(tokens), device=tokens.device), first]
        return nn.functional.normalize(pooled, dim=1) if self._normalize else pooled


def embedder(config: str, pooling: str, normalize: str, dtype: str = "") -> Embedder:
    """A model without its weights. `config`, `dtype`: as in `models.architecture`; `pooling`: one of
    `POOLINGS`; `normalize`: whether embeddings have the length 1, ``yes`` or nothing.
    """
    encoder = architecture("AutoModel", config, dtype)
    return Embedder(encoder, pooling, normalize=bool(normalize)).eval()


class SentenceSimilarity(TextTask):
    """How near the cosine of two sentences' embeddings comes to their score: minus the squared error.

    The model is one by sentence-transformers: an encoder, its pooling, and perhaps normalisation.
    """

    kind = "AutoModel"
    bounds: tuple[float, float] | None = None
    unit = "squared cosine"
    usual: ClassVar[tuple[str, ...]] = ("score", "similarity", "similarity_score", "label")
    """Names of the column with the score."""

    def __init__(  # noqa: PLR0913 - each is a --task-arg
        self,
        *,
        data: str,
        model: str,
        text: str = "",
        text_pair: str = "",
        score: str = "",
        scale: str = "1",
        group: str = "",
        max_length: str = "",
        batch_size: str = "64",
        dtype: str = "",
    ) -> None:
        """`data`: a folder or a file (`stockpot.tasks.huggingface.data.Splits`); `model`: a folder that
        sentence-transformers' ``save_pretrained`` wrote; `text`, `text_pair`, `score`, `group`: columns;
        `scale`: what scores are divided by, 5 where they go from 0 to 5.
        """
        self._path = model
        self._scale = without_faults(lambda: _positive(scale), [], 0.0)
        self._text, self._text_pair, self._score = text, text_pair, score
        super().__init__(
            data,
            model,
            max_length=max_length or _most_tokens(model),
            batch_size=batch_size,
            group=group,
            dtype=dtype,
        )

    @classmethod
    def rebuilt_from(cls, model: str, dtype: str = "", **_: str) -> tuple[str, dict[str, str]]:
        """The architecture from texts: what is served needs neither folder."""
        pooling, normalize = _after_encoder(model)
        made = {"config": config_text(model), "pooling": pooling, "normalize": "yes" if normalize else ""}
        return f"{__name__}:embedder", {**made, "dtype": dtype}

    def model(self) -> Embedder:
        """The architecture, with weights that do not matter."""
        pooling, normalize = _after_encoder(self._path)
        return Embedder(self._folder.architecture(), pooling, normalize=normalize).eval()

    def inputs(self, batch: Batch) -> Batch:
        """The first sentence of each example."""
        return {name: t for name, t in batch.items() if name != LABELS and not name.endswith(SECOND)}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The cosine of each pair, ``[examples]``."""
        second = {name.removesuffix(SECOND): t for name, t in batch.items() if name.endswith(SECOND)}
        return nn.functional.cosine_similarity(model(**self.inputs(batch)), model(**second))

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Minus the squared error, in float64; NaN where the output is NaN."""
        return -(outputs.double() - batch[LABELS]).square()

    def _model_faults(self, config: Any) -> list[str]:
        del config
        faults = [] if self._scale else ["scale must be a number above zero"]
        try:
            _after_encoder(self._path)
            _require_plain(self._path)
        except (OSError, ValueError) as error:
            faults.append(f"model: {error}")
        return faults

    def _open(self, split: str) -> Examples:
        table = self._data.table(split)
        if not len(table):
            return NOTHING
        faults: list[str] = []
        names: list[str] = without_faults(
            lambda: text_columns(table, self._text, self._text_pair), faults, []
        )
        column = without_faults(lambda: table.chosen("score", self._score, self.usual), faults, "")
        origins = without_faults(lambda: self._origins(table), faults, None)
        if len(names) == 1:
            faults.append("one column with text, and none with a second: name it by --task-arg text_pair=")
        texts = [table.column(name) for name in names]
        for name, each in zip(names, texts, strict=True):
            faults += missing_texts(table, name, each)
        scores: list[float] = []
        if column:
            scores, wrong = numbers(table, column, table.column(column))
            faults += wrong
            largest = max(map(abs, scores))
            if not wrong and largest > self._scale:
                faults.append(f"{column} goes up to {largest:g}, a cosine to 1: divide by --task-arg scale=")
        encoded = [self._encoded(list(each)) for each in texts] if not faults else []
        for each in encoded:
            faults += empty_rows(table, each)
        if faults:
            refuse(f"split {split!r} of {self._data.path} cannot be used", faults, "mend them")
        first, second = map(self._padded, encoded)
        wanted = torch.tensor(scores, dtype=torch.float64) / self._scale
        pairs = first | {f"{name}{SECOND}": tensor for name, tensor in second.items()}
        return Examples({**pairs, LABELS: wanted}, origins, table.domains())


def _positive(text: str) -> float:
    number = float(text)
    return number if 0 < number < float("inf") else 0.0


def _json(folder: str, name: str) -> Any:
    found = json.loads((Path(folder).expanduser() / name).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no object")  # noqa: TRY004 - told as the others
    return found


def _after_encoder(folder: str) -> tuple[str, bool]:
    """How tokens become one embedding, and whether that is normalised. Raises OSError and ValueError."""
    text = (Path(folder).expanduser() / MODULES).read_text(encoding="utf-8")
    modules = modules_in(text)
    config = _json(folder, f"{modules[1][1]}/{CONFIG}")
    modes = [mode for key, mode in _OLDER.items() if config.get(key) is True]
    others = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    named = config.get("pooling_mode", modes[0] if len(modes) == len(others) == 1 else None)
    if named not in POOLINGS:
        raise ValueError(f"the pooling of {modules[1][1]}/{CONFIG} is none of {', '.join(POOLINGS)}")
    return named, len(modules) > 2


def _require_plain(folder: str) -> None:
    """Raise ValueError for what happens to a text, or to the tokens' embeddings, that is not done here."""
    settings = _json(folder, SETTINGS) if (Path(folder).expanduser() / SETTINGS).exists() else {}
    if settings.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise ValueError(f"{SETTINGS}: {_NOT_TEXT}")
    way = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    if settings.get("modality_config", way) != way or settings.get("do_lower_case"):
        raise ValueError(f"{SETTINGS}: {_NOT_TEXT}")
    name = "config_sentence_transformers.json"
    more = _json(folder, name) if (Path(folder).expanduser() / name).exists() else {}
    if more.get("default_prompt_name"):
        raise ValueError(f"{name}: it puts a prompt before each text, which is not done here")


def _most_tokens(folder: str) -> str:
    """That sentence-transformers cuts a text at; empty where nothing tells."""
    try:
        found = _json(folder, SETTINGS).get("max_seq_length")
    except (OSError, ValueError):
        return ""
    return str(found) if isinstance(found, int) and found > 0 else ""
