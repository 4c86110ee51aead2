"""What tasks on text share: columns found, text as numbers, all examples of a split of one length."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stockpot.errors import BadTask
from stockpot.tasks.huggingface.base import FolderTask
from stockpot.tasks.huggingface.data import Table, shown
from stockpot.tasks.huggingface.models import UNLIMITED

TEXT = ("text", "sentence", "content", "document", "sentence1", "premise", "question", "question1")
"""Usual names of columns with text."""
SECOND = {"sentence1": "sentence2", "premise": "hypothesis", "question1": "question2"}
"""Usual names of the second text, by that of the first."""
IGNORED = -100
"""In place of a label, where none is asked for: padding, special tokens, the later parts of a word."""


class TextTask(FolderTask):
    """A task on text, of which each example is cut at `max_length` tokens: without it, at as many as the
    tokenizer and the model's table of positions allow. All examples of a split are then padded to the
    length of its longest one, so that an answer does not depend on the batch.
    """

    padding_side = ""
    """Where padding goes; the tokenizer's own side without it."""

    def __init__(
        self, data: str, model: str, *, max_length: str, batch_size: str, group: str, dtype: str
    ) -> None:
        super().__init__(data, model, group=group, dtype=dtype, batch_size=batch_size, max_length=max_length)
        self._tokenizer = self._folder.tokenizer()
        most = self._folder.most_tokens
        if max_length and int(max_length) > most:
            raise BadTask(
                f"max_length is {max_length}, the model has {most:,} positions", mend="make it shorter"
            )
        self._most = int(max_length) if max_length else min(self._tokenizer.model_max_length or most, most)
        self._padding = self._padding_token()

    def _padding_token(self) -> int:
        config = self._folder.config.get_text_config()
        # The model's own first: some look for it to find where a text ends.
        for number in (getattr(config, "pad_token_id", None), self._tokenizer.pad_token_id):
            if number is not None:
                return int(number)
        if self.padding_side == "right":  # behind the end, where no token of a decoder looks
            return 0
        raise BadTask(
            "model: neither its tokenizer nor its configuration names a padding token",
            mend="set tokenizer.pad_token and model.config.pad_token_id, and save both there",
        )

    def _encoded(self, *texts: Any, words: bool = False) -> Any:
        """What the tokenizer makes of texts, or of pairs of texts, or of lists of words."""
        return self._tokenizer(
            *texts,
            is_split_into_words=words,
            truncation=self._most < UNLIMITED,
            max_length=self._most if self._most < UNLIMITED else None,
            return_attention_mask=True,
        )

    def _padded(self, encoded: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, Tensor]:
        """The model's input by name, ``[n, tokens]``, int32. Raises BadTask for tokens unknown to it."""
        known = getattr(self._folder.config.get_text_config(), "vocab_size", UNLIMITED)
        greatest = max(map(max, encoded["input_ids"]))
        if greatest >= known:
            raise BadTask(
                f"model: its tokenizer gives token {greatest}, and the model knows {known:,}, from 0 on",
                mend="give the folder of a run that logged its own tokenizer",
            )
        filled = {"input_ids": self._padding, "token_type_ids": self._tokenizer.pad_token_type_id}
        return {
            name: self._table(rows, filled.get(name, 0))
            for name, rows in encoded.items()
            if name in self._folder.takes
        }

    def _table(self, rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        """Rows of different lengths as one tensor, ``[n, longest]``, int32."""
        longest = max(map(len, rows), default=0)
        table = torch.full((len(rows), longest), fill, dtype=torch.int32)
        left = (self.padding_side or self._tokenizer.padding_side) == "left"
        for row, found in zip(table, rows, strict=True):
            row[longest - len(found) if left else 0 :][: len(found)] = torch.tensor(found, dtype=torch.int32)
        return table


def text_columns(table: Table, text: str, pair: str) -> list[str]:
    """The column with text, and that with a second one where there is one. Raises BadTask in doubt."""
    first = table.chosen("text", text, TEXT)
    second = pair or ("" if text else SECOND.get(first, ""))
    if not pair and second not in table.names:
        return [first]
    return [first, table.chosen("text_pair", second, ())]


def missing_texts(table: Table, column: str, texts: Iterable[Any]) -> list[str]:
    """A fault for each row that has no text there."""
    return [
        f"{place}: {column} " + ("is missing" if text is None else f"is a {type(text).__name__}, no text")
        for place, text in zip(table.places(), texts, strict=True)
        if not isinstance(text, str)
    ]


def empty_rows(table: Table, encoded: Mapping[str, Sequence[Sequence[int]]]) -> list[str]:
    """A fault for each row of which no token is left."""
    return [
        f"{place}: has no tokens"
        for place, tokens in zip(table.places(), encoded["input_ids"], strict=True)
        if not tokens
    ]


def numbers(table: Table, column: str, values: Iterable[Any]) -> tuple[list[float], list[str]]:
    """The numbers of a column, and a fault for each row that has none."""
    found, faults = [], []
    for place, value in zip(table.places(), values, strict=True):
        number = float(value) if isinstance(value, int | float) else float("nan")
        if not abs(number) < float("inf"):
            faults.append(f"{place}: {column} is {shown([repr(value)])}, no finite number")
        found.append(number)
    return found, faults
