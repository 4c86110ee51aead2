"""Training of the demo's network: plain torch, about a second per run."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stockpot.demo.model import DigitsNet
from stockpot.demo.search import Hyperparameters

BATCH = 64


def initialised(seed: int, width: int | None = None) -> DigitsNet:
    """A network with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DigitsNet() if width is None else DigitsNet(width)


def train(net: nn.Module, x: Tensor, y: Tensor, how: Hyperparameters) -> float:
    """Train in place with AdamW and a cosine schedule. Returns the last epoch's mean loss."""
    rng = torch.Generator().manual_seed(how.seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, how.epochs)
    losses: list[Tensor] = []
    net.train()
    for _ in range(how.epochs):
        losses = []
        for batch in torch.tensor_split(torch.randperm(len(x), generator=rng), math.ceil(len(x) / BATCH)):
            outputs = net(augmented(x[batch], how, rng))
            loss = functional.cross_entropy(outputs, y[batch], label_smoothing=how.label_smoothing)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
            losses.append(loss.detach())
        schedule.step()
    net.eval()
    return float(torch.stack(losses).mean())


def augmented(x: Tensor, how: Hyperparameters, rng: torch.Generator) -> Tensor:
    """Move, turn and roughen each image by its own random amounts."""
    angle, right, down = (torch.rand(3, len(x), generator=rng) * 2 - 1).unbind()
    angle = angle * math.radians(how.rotate)
    right, down = right * 2 * how.shift, down * 2 * how.shift  # affine_grid takes the image to be 2 wide
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)
    grid = functional.affine_grid(rows, list(x.shape), align_corners=False)
    moved = functional.grid_sample(x, grid, align_corners=False)
    return moved + how.noise * torch.randn(x.shape, generator=rng)


@torch.inference_mode()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images whose largest output is their digit's."""
    return float((net(x).argmax(1) == y).float().mean())
