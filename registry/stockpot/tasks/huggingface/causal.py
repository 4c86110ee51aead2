"""Language models that predict the next token."""

import math

from torch import Tensor, nn

from stockpot.tasks.huggingface.base import LABELS, NOTHING, Batch, Examples, without_faults
from stockpot.tasks.huggingface.data import refuse
from stockpot.tasks.huggingface.texts import IGNORED, TextTask, empty_rows, missing_texts, text_columns


class CausalLanguageModelling(TextTask):
    """How likely a model finds each document: the sum of its tokens' log probabilities, in nats. The first
    token is not predicted, and what is behind `max_length` tokens is cut off.
    """

    kind = "AutoModelForCausalLM"
    bounds: tuple[float, float] | None = None
    unit = "nats"
    padding_side = "right"

    def __init__(
        self,
        *,
        data: str,
        model: str,
        text: str = "",
        group: str = "",
        max_length: str = "",
        batch_size: str = "8",
        dtype: str = "",
    ) -> None:
        """`data`: a folder or a file (`stockpot.tasks.huggingface.data.Splits`); `model`: a folder with
        ``config.json`` and a tokenizer; `text`, `group`: columns.
        """
        super().__init__(data, model, max_length=max_length, batch_size=batch_size, group=group, dtype=dtype)
        self._text = text

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The probability of each token after the first, ``[examples, tokens - 1]``, float64, 1 for padding.

        Not its logarithm: the mean over several models is then what their mixture predicts.
        """
        logits = super().predict(model, batch)[:, :-1].float()
        wanted = batch[LABELS][:, 1:]
        found = logits.gather(2, wanted.clamp(min=0)[:, :, None]).squeeze(2)
        return (found - logits.logsumexp(dim=2)).double().exp().masked_fill(wanted == IGNORED, 1.0)

    def log_likelihood(self, outputs: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002 - the task's contract
        """Of each token after the first, ``[examples, tokens - 1]``, 0 for padding."""
        return outputs.log()

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The log likelihood of each document; NaN where an output is NaN."""
        return self.log_likelihood(outputs, batch).sum(dim=1)

    def beside(self, split: str, score: float) -> dict[str, float]:
        """The perplexity: of each predicted token, the inverse of its geometric mean probability."""
        examples = self.examples(split)
        predicted = int((examples.columns[LABELS][:, 1:] != IGNORED).sum())
        return {"perplexity": math.exp(min(-score * len(examples) / predicted, 700.0))} if predicted else {}

    def _open(self, split: str) -> Examples:
        table = self._data.table(split)
        if not len(table):
            return NOTHING
        faults: list[str] = []
        names: list[str] = without_faults(lambda: text_columns(table, self._text, "")[:1], faults, [])
        origins = without_faults(lambda: self._origins(table), faults, None)
        texts = [text for name in names for text in table.column(name)]
        faults += [fault for name in names for fault in missing_texts(table, name, texts)]
        if not faults:
            encoded = self._encoded(texts)
            faults = empty_rows(table, encoded)
        if faults:
            refuse(f"split {split!r} of {self._data.path} cannot be used", faults, "leave these rows out")
        wanted = self._table(encoded["input_ids"], IGNORED)
        return Examples({**self._padded(encoded), LABELS: wanted}, origins, table.domains())
