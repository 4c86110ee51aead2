"""Classification and regression of texts, or of pairs of texts."""

import json
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stockpot.tasks.huggingface.base import (
    LABELS,
    NOTHING,
    Batch,
    Examples,
    class_faults,
    right,
    without_faults,
)
from stockpot.tasks.huggingface.data import Table, refuse
from stockpot.tasks.huggingface.labels import Classes
from stockpot.tasks.huggingface.models import ModelFolder, read_config
from stockpot.tasks.huggingface.texts import TextTask, empty_rows, missing_texts, numbers, text_columns


class _TextsWithAnswer(TextTask):
    kind = "AutoModelForSequenceClassification"
    usual: ClassVar[tuple[str, ...]] = ("label", "labels", "target")
    """Names of the column with the answer."""

    def __init__(  # noqa: PLR0913 - each is a --task-arg
        self,
        *,
        data: str,
        model: str,
        text: str = "",
        text_pair: str = "",
        label: str = "",
        group: str = "",
        max_length: str = "",
        batch_size: str = "64",
        dtype: str = "",
    ) -> None:
        """`data`: a folder or a file (`stockpot.tasks.huggingface.data.Splits`); `model`: a folder with
        ``config.json`` and a tokenizer; `text`, `text_pair`, `label`, `group`: columns.
        """
        super().__init__(data, model, max_length=max_length, batch_size=batch_size, group=group, dtype=dtype)
        self._text, self._text_pair, self._label = text, text_pair, label
        if getattr(self._folder.config, "pad_token_id", None) is None:
            self._folder.tell({"pad_token_id": self._padding})  # models look for it to find where texts end

    @classmethod
    def rebuilt_from(cls, model: str, dtype: str = "", **_: str) -> tuple[str, dict[str, str]]:
        """With the tokenizer's padding token, where the configuration names none."""
        maker, made = super().rebuilt_from(model, dtype)
        if getattr(read_config(made["config"]), "pad_token_id", None) is None:
            padding = ModelFolder(model, cls.kind, dtype).tokenizer().pad_token_id
            made["config"] = json.dumps({**json.loads(made["config"]), "pad_token_id": padding})
        return maker, made

    def _open(self, split: str) -> Examples:
        table = self._data.table(split)
        if not len(table):
            return NOTHING
        faults: list[str] = []
        names: list[str] = without_faults(
            lambda: text_columns(table, self._text, self._text_pair), faults, []
        )
        label = without_faults(lambda: table.chosen("label", self._label, self.usual), faults, "")
        origins = without_faults(lambda: self._origins(table), faults, None)
        mend = "correct what each names"
        texts = [table.column(name) for name in names]
        for name, column in zip(names, texts, strict=True):
            faults += missing_texts(table, name, column)
        if label:
            answers, wrong, what = self._answers(table, label)
            mend = what if wrong else mend
            faults += wrong
        if not faults:
            encoded = self._encoded(*map(list, texts))
            faults = empty_rows(table, encoded)
        if faults:
            refuse(f"split {split!r} of {self._data.path} cannot be used", faults, mend)
        return Examples({**self._padded(encoded), LABELS: answers}, origins, table.domains())

    def _answers(self, table: Table, label: str) -> tuple[Tensor, list[str], str]:
        """The labels, ``[n]``; what is wrong with them; what mends that."""
        raise NotImplementedError


class TextClassification(_TextsWithAnswer):
    """Accuracy of a model that chooses a class for a text: an example scores 1 where the largest output is
    its class's. Labels are numbers of classes, or their names in the model's ``label2id`` or in `labels`.
    """

    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(  # noqa: PLR0913 - each is a --task-arg
        self,
        *,
        data: str,
        model: str,
        text: str = "",
        text_pair: str = "",
        label: str = "",
        labels: str = "",
        group: str = "",
        max_length: str = "",
        batch_size: str = "64",
        dtype: str = "",
    ) -> None:
        """`labels`: names of the model's classes, in its order, where its configuration has others."""
        self._labels = labels
        super().__init__(
            data=data,
            model=model,
            text=text,
            text_pair=text_pair,
            label=label,
            group=group,
            max_length=max_length,
            batch_size=batch_size,
            dtype=dtype,
        )

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """1 where the largest output is the class's, else 0; NaN where an output is NaN."""
        return right(outputs, batch[LABELS])

    def _model_faults(self, config: Any) -> list[str]:
        self._classes = Classes(config, self._labels)
        self._folder.tell(self._classes.told)
        return class_faults(config) + self._classes.faults

    def _answers(self, table: Table, label: str) -> tuple[Tensor, list[str], str]:
        faults: list[str] = []
        found = self._classes.numbers(table.column(label), table.places(), faults, label)
        return torch.tensor(found, dtype=torch.int32), faults, self._classes.mend


class TextRegression(_TextsWithAnswer):
    """How near a model with one output comes to each text's number: minus the squared error."""

    bounds: tuple[float, float] | None = None
    usual = (*_TextsWithAnswer.usual, "score")

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """``[examples]``: the number that the model gives to each."""
        return super().predict(model, batch).squeeze(1)

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Minus the squared error, in float64; NaN where the output is NaN."""
        return -(outputs.double() - batch[LABELS]).square()

    def _model_faults(self, config: Any) -> list[str]:
        several = f"model: it has {config.num_labels} outputs, regression needs one"
        return [] if config.num_labels == 1 else [f"{several}; the task text-classification is for classes"]

    def _answers(self, table: Table, label: str) -> tuple[Tensor, list[str], str]:
        found, faults = numbers(table, label, table.column(label))
        return torch.tensor(found, dtype=torch.float64), faults, "give each row a number"
