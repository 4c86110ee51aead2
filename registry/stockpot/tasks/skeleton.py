"""A task: how a model is scored. `stockpot task check MODULE:MyTask` looks whether it keeps its contract."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Example = tuple[Tensor, int]


class MyTask:
    """The share of right answers. Here on made-up data: put your own in place of it."""

    version = "1"
    """Change it when scores would change. Edits of this file are noticed anyway."""
    bounds: tuple[float, float] | None = (0.0, 1.0)
    """The least and the greatest score of one example; None where there are none, as for a loss."""
    batch_size = 64

    def __init__(self, n: str = "100") -> None:
        """Each --task-arg key=value arrives here, as text: folders and numbers, never secrets."""
        self.n = int(n)

    def model(self) -> nn.Module:
        """The architecture that the sweep trained, the same each time. Its weights are replaced."""
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def examples(self, split: str) -> Sequence[Example]:
        """Anything with len() and [i], in a fixed order: a dataset of torch's, a list."""
        splits = ["validation", "test", "shifted"]  # selection looks at the first one, and never at others
        if split not in splits:
            raise ValueError(f"no split {split!r}, only {', '.join(splits)}")
        draw = torch.Generator().manual_seed(splits.index(split))
        x = torch.randn(self.n, 8, generator=draw)
        return list(zip(x, x[:, :3].argmax(dim=1).tolist(), strict=True))

    def collate(self, examples: list[Example]) -> tuple[Tensor, Tensor]:
        """Make a batch of them: tensors, of the same shapes in each batch. Pad texts to one length."""
        return torch.stack([x for x, _ in examples]), torch.tensor([label for _, label in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """What the model answers, one row per example."""
        outputs: Tensor = model(batch[0])
        return outputs

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One number per example, higher is better; NaN where the model's answer is NaN."""
        right = (outputs.argmax(dim=1) == batch[1]).double()
        return right.masked_fill(outputs.isnan().any(dim=1), torch.nan)

    # Optional, all told by stockpot.ports.Task:
    # def groups(self, split): the origin of each example, where several share one
    # def domains(self, split): the domain of each example, such as "python" or "prose"
    # def log_likelihood(self, outputs, batch): of each position of each text, where a score sums these up
    # def features(self, split): beside both, what tells a text's domain before a model answers: an array
    # def digest(self, split): a name of the split's content, where hashing every example takes long
    # def metric(self, outputs, targets): of the whole split, where a mean does not count: F1, AUC
    # unit = "nats": what a score is counted in, where bounds are not (0, 1)
