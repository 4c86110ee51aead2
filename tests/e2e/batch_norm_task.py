"""A small residual network with BatchNorm, and a task for it: what a user writes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CLASSES, SIDE, WIDTH = 4, 8, 4
SIZES = {"train": 512, "validation": 512, "test": 256}
Example = tuple[Tensor, int]


class NormAct(nn.BatchNorm2d):
    """Normalises and cuts in one, with a forward of its own, as timm's BatchNormAct2d does."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        return torch.relu(
            nn.functional.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.training,
                0.0 if momentum is None else momentum,
                self.eps,
            )
        )


class Block(nn.Module):
    """Two convolutions beside a shortcut, as those of resnet18."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = NormAct(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            shortcut = nn.Conv2d(into, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))) + self.downsample(x))


class SmallResNet(nn.Module):
    """``[n, 1, 8, 8]`` to ``[n, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.layers = nn.Sequential(
            Block(WIDTH, WIDTH, 1), Block(WIDTH, 2 * WIDTH, 2), Block(2 * WIDTH, 2 * WIDTH, 1)
        )
        self.fc = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(torch.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def pictures(split: str) -> tuple[Tensor, Tensor]:
    """Waves in one of four directions, under noise: ``[n, 1, 8, 8]`` and ``[n]``."""
    n = SIZES[split]
    drawn = torch.Generator().manual_seed([*SIZES].index(split))
    labels = torch.randint(CLASSES, (n,), generator=drawn)
    along = torch.arange(SIDE) * (2 * torch.pi / 6)
    phase = torch.rand(n, 1, 1, generator=drawn) * 2 * torch.pi
    down, right = along[None, :, None].expand(n, SIDE, SIDE), along[None, None, :].expand(n, SIDE, SIDE)
    kinds = torch.stack([down, right, down + right, down - right], 1)
    waves = torch.sin(kinds[torch.arange(n), labels] + phase)
    return (waves + 1.2 * torch.randn(n, SIDE, SIDE, generator=drawn))[:, None], labels


class Waves:
    """Says which way the waves run."""

    version = "1"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    batch_size = 64

    def model(self) -> nn.Module:
        return SmallResNet()

    def examples(self, split: str) -> Sequence[Example]:
        if split not in SIZES:
            raise ValueError(f"{split} is none of {', '.join(SIZES)}")
        inputs, labels = pictures(split)
        return list(zip(inputs, labels.tolist(), strict=True))

    def collate(self, examples: list[Example]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in examples]), torch.tensor([label for _, label in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        outputs: Tensor = model(batch[0])
        return outputs

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (outputs.argmax(1) == batch[1]).double()
