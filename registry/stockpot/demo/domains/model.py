"""The language model of the demo across domains."""

import torch
from torch import Tensor, nn
from torch.nn import functional

BYTES = 256
"""The vocabulary: no tokenizer that could differ."""
BACK = 3
"""Bytes that are looked up together, a table for each place back. So it learns in seconds which letters come
after which, for which attention alone takes minutes.
"""


class Block(nn.Module):
    """A layer of a transformer that looks back: attention, then two linear maps, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.before_maps = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        """``[n, positions, width]`` to the same."""
        n, positions, width = states.shape
        parts = self.attention(self.before_attention(states)).view(n, positions, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.out(seen.transpose(1, 2).reshape(n, positions, width))
        changed: Tensor = states + self.down(functional.gelu(self.up(self.before_maps(states))))
        return changed


class ByteModel(nn.Module):
    """A small causal transformer: bytes ``[n, positions]`` to logits of the next ``[n, positions, 256]``."""

    def __init__(self, width: int, depth: int, context: int, heads: int = 4) -> None:
        super().__init__()
        self.bytes = nn.ModuleList(nn.Embedding(BYTES, width) for _ in range(BACK))
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, BYTES)

    def forward(self, told: Tensor) -> Tensor:
        """Logits."""
        places = torch.arange(told.shape[1], device=told.device)
        states = self.positions(places) + self.bytes[0](told)
        for back in range(1, BACK):
            states = states + self.bytes[back](functional.pad(told, (back, 0))[:, :-back])
        states = self.blocks(states)
        logits: Tensor = self.head(self.norm(states))
        return logits


def next_byte_log_likelihood(logits: Tensor, told: Tensor) -> Tensor:
    """Of each byte after the first, in nats: `logits` of ``told[:, :-1]``, `told` ``[n, positions + 1]``."""
    wanted = told[:, 1:, None]
    return (logits.gather(2, wanted) - logits.logsumexp(dim=2, keepdim=True)).squeeze(2)
