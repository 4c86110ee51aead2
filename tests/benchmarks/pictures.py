"""A vision transformer, and a labelled task of drawn pictures that it is really trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

PIXELS = 32


@dataclass(frozen=True)
class Size:
    """A vision transformer; images are scaled up to `image` pixels first."""

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    classes: int
    steps: int
    """Of the starting point's training; variants take a tenth to a third of them."""
    rate: float
    """The starting point's learning rate; variants draw theirs between a hundredth and three times it."""


SIZES = {
    "vit-b32": Size(image=224, patch=32, width=768, depth=12, heads=12, classes=100, steps=1500, rate=2e-4),
    "vit-tiny": Size(image=32, patch=8, width=64, depth=3, heads=4, classes=20, steps=400, rate=2e-3),
}


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[n, tokens, width]`` to the same shape."""
        n, tokens, width = x.shape
        qkv = self.qkv(self.before(x)).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(attended)
        mixed: Tensor = x + self.down(functional.gelu(self.up(self.after(x))))
        return mixed


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021): ``[n, 3, 32, 32]`` to logits."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.image = size.image
        self.patches = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.first = nn.Parameter(torch.zeros(1, 1, size.width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size.image // size.patch) ** 2 + 1, size.width))
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = functional.interpolate(x, size=self.image, mode="nearest")
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


class Pictures:
    """A labelled task: which of the class's patterns shines through another one, noise and a shift."""

    version = "1"
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, size: Size, n: int, batch_size: int, dtype: torch.dtype = torch.float32) -> None:
        self.batch_size = batch_size
        self.dtype = dtype
        self._size = size
        self._n = n
        draw = torch.Generator().manual_seed(0)
        patterns = torch.randn(size.classes, 3, PIXELS // 4, PIXELS // 4, generator=draw)
        self._patterns = functional.interpolate(patterns, size=PIXELS, mode="bilinear")

    def model(self) -> nn.Module:
        """The architecture."""
        return VisionTransformer(self._size)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        draw = torch.Generator().manual_seed(seed)
        labels = torch.randint(self._size.classes, (n,), generator=draw)
        others = torch.randint(self._size.classes, (n,), generator=draw)
        share = 0.45 + 0.5 * torch.rand(n, 1, 1, 1, generator=draw)
        images = share * self._patterns[labels] + (1 - share) * self._patterns[others]
        images += 0.7 * torch.randn(images.shape, generator=draw)
        shifts = torch.randint(-3, 4, (n, 2), generator=draw).tolist()
        return torch.stack([i.roll(s, (1, 2)) for i, s in zip(images, shifts, strict=True)]), labels

    def digest(self, split: str) -> str:
        """Drawn from fixed seeds."""
        return f"{split} {self._n} {self._size}"

    def examples(self, split: str) -> Sequence[tuple[Tensor, Tensor]]:
        """Any split; each has a seed of its own."""
        return list(zip(*self.draw(self._n, seed=sum(split.encode())), strict=True))

    def collate(self, examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        images, labels = zip(*examples, strict=True)
        return torch.stack(images), torch.stack(labels)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Logits; in bfloat16 where this task was told to compute with less than float32."""
        with torch.autocast(batch[0].device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = model(batch[0])
        return logits

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Right or wrong."""
        return (outputs.argmax(dim=1) == batch[1]).float()


def train(module: nn.Module, data: tuple[Tensor, Tensor], steps: int, rate: float, seed: int) -> None:
    """AdamW with a cosine schedule; on CUDA in bfloat16 where autocast takes it."""
    device = next(module.parameters()).device
    images, labels = (tensor.to(device) for tensor in data)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, fused=device.type == "cuda")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (128,), generator=draw).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = functional.cross_entropy(module(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        schedule.step()
