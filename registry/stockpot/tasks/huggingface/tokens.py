"""Classification of the words of a sentence, such as named entities."""

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from stockpot.tasks.huggingface.base import LABELS, NOTHING, Batch, Examples, class_faults, without_faults
from stockpot.tasks.huggingface.data import Table, refuse
from stockpot.tasks.huggingface.labels import Classes
from stockpot.tasks.huggingface.texts import IGNORED, TextTask, empty_rows

TOKENS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels")
"""Usual names of columns with words, and with a class for each."""


class TokenClassification(TextTask):
    """The F1 of entities, by seqeval, as the CoNLL evaluation counts them: an entity is right where its words
    and its type are. Micro-averaged over the whole split. Where the model's classes are not all ``O`` or of
    the form ``B-type``, it is the share of words with the right class instead.

    The first token of each word answers for it. Words beyond `max_length` are not asked for.
    """

    kind = "AutoModelForTokenClassification"
    needs = ("transformers", "transformers", "seqeval")
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(  # noqa: PLR0913 - each is a --task-arg
        self,
        *,
        data: str,
        model: str,
        tokens: str = "",
        tags: str = "",
        labels: str = "",
        group: str = "",
        max_length: str = "",
        batch_size: str = "64",
        dtype: str = "",
    ) -> None:
        """`data`: a folder or a file (`stockpot.tasks.huggingface.data.Splits`); `model`: a folder with
        ``config.json`` and a tokenizer; `tokens`, `tags`, `group`: columns, the first two with a list in each
        row; `labels`: names of the model's classes, in its order, where its configuration has others.
        """
        self._labels, self._tokens, self._tags = labels, tokens, tags
        super().__init__(data, model, max_length=max_length, batch_size=batch_size, group=group, dtype=dtype)

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The share of the sentence's words with the right class; NaN where an output of them is NaN."""
        asked = batch[LABELS] != IGNORED
        right = (outputs.argmax(dim=2) == batch[LABELS]).masked_fill(~asked, value=False)
        share = (right.sum(dim=1) / asked.sum(dim=1).clamp(min=1)).masked_fill(~asked.any(dim=1), 1.0)
        return share.masked_fill((outputs.isnan().any(dim=2) & asked).any(dim=1), torch.nan)

    def targets(self, batch: Batch) -> Tensor:
        """The classes, ``[examples, tokens]``."""
        return batch[LABELS]

    def metric(self, outputs: Tensor, targets: Tensor) -> float:
        """F1 of entities, or the share of right words; NaN where there is nothing to find, or for an output
        that is NaN.
        """
        asked = targets != IGNORED
        outputs, lengths = outputs[asked], asked.sum(dim=1).tolist()
        if not len(outputs) or outputs.isnan().any():
            return float("nan")
        answered = outputs.argmax(dim=1)
        if not self._entities:
            return float((answered == targets[asked]).double().mean())
        wanted, found = (self._named(tags, lengths) for tags in (targets[asked], answered))
        if all(name == "O" for sentence in (*wanted, *found) for name in sentence):
            return float("nan")
        from seqeval.metrics import f1_score

        return float(f1_score(wanted, found, average="micro", zero_division=0))

    def _named(self, tags: Tensor, lengths: Sequence[int]) -> list[list[str]]:
        names = iter([self._classes.names[tag] for tag in tags.tolist()])
        return [list(islice(names, length)) for length in lengths]

    def _model_faults(self, config: Any) -> list[str]:
        self._classes = Classes(config, self._labels)
        self._folder.tell(self._classes.told)
        self._entities = all(re.fullmatch("O|[BIESLU]-.+", name) for name in self._classes.names)
        return class_faults(config) + self._classes.faults

    def _open(self, split: str) -> Examples:
        table = self._data.table(split)
        if not len(table):
            return NOTHING
        faults: list[str] = []
        tokens = without_faults(lambda: table.chosen("tokens", self._tokens, TOKENS), faults, "")
        tags = without_faults(lambda: table.chosen("tags", self._tags, TAGS), faults, "")
        origins = without_faults(lambda: self._origins(table), faults, None)
        classes: list[list[int]] = []
        if not faults:
            classes = self._checked(table, tokens, tags, faults)
        if not faults:
            encoded = self._encoded(list(table.column(tokens)), words=True)
            faults = empty_rows(table, encoded)
        if faults:
            refuse(f"split {split!r} of {self._data.path} cannot be used", faults, self._classes.mend)
        labels = [_of_first_parts(encoded.word_ids(row), found) for row, found in enumerate(classes)]
        return Examples(
            {**self._padded(encoded), LABELS: self._table(labels, IGNORED)}, origins, table.domains()
        )

    def _checked(self, table: Table, tokens: str, tags: str, faults: list[str]) -> list[list[int]]:
        found = []
        pairs = zip(table.places(), table.column(tokens), table.column(tags), strict=True)
        for place, words, row in pairs:
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                faults.append(f"{place}: {tokens} is no list of words")
            elif not isinstance(row, list) or len(row) != len(words):
                faults.append(f"{place}: {tags} is no list with one class for each of {len(words)} words")
            else:
                within: list[str] = []
                found.append(self._classes.numbers(row, [place] * len(row), within, tags))
                faults += dict.fromkeys(within)
        return found


def _of_first_parts(words: Sequence[int | None], classes: Sequence[int]) -> list[int]:
    """For each token the class of its word, where it is the word's first one."""
    before = [None, *words[:-1]]
    return [
        IGNORED if word is None or word == last else classes[word]
        for word, last in zip(words, before, strict=True)
    ]
