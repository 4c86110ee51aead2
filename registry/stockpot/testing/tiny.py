"""Tiny models of several kinds, and a task for them: for tests and for trying things out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CLASSES = 4
TOKENS = 6
VOCABULARY = 16
FEATURES = 8

Example = tuple[Tensor, int]


class Attention(nn.Module):
    """One head of self-attention over tokens: ``[n, 6]`` int64 to ``[n, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, FEATURES)
        self.query_key_value = nn.Linear(FEATURES, 3 * FEATURES)
        self.norm = nn.LayerNorm(FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(tokens)
        q, k, v = self.query_key_value(x).chunk(3, dim=-1)
        x = self.norm(x + nn.functional.scaled_dot_product_attention(q, k, v))
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


class Tied(nn.Module):
    """Output weights that are the embedding's: ``[n, 6]`` int64 to ``[n, 16]``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, FEATURES)
        self.mix = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(torch.tanh(self.mix(self.embed(tokens).mean(dim=1))))
        return logits


def dense() -> nn.Module:
    """``[n, 8]`` to ``[n, 4]``."""
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def conv() -> nn.Module:
    """``[n, 1, 8, 8]`` to ``[n, 4]``."""
    return nn.Sequential(
        nn.Conv2d(1, 4, kernel_size=3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES)
    )


def normalised() -> nn.Module:
    """``[n, 8]`` to ``[n, 4]``, with a LayerNorm."""
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, CLASSES))


class Mates(nn.Module):
    """Looks at the whole batch, as no model should: ``[n, 8]`` to ``[n, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = dense()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.inner(x - x.mean(dim=0))
        return logits


class Bigrams(nn.Module):
    """A language model that looks at one token before: ``[n, t]`` int64 to ``[n, t, 16]``."""

    def __init__(self) -> None:
        super().__init__()
        self.following = nn.Embedding(VOCABULARY, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the tokens that follow."""
        logits: Tensor = self.following(tokens)
        return logits


MODELS = {"dense": dense, "conv": conv, "normalised": normalised, "attention": Attention, "tied": Tied}
KINDS = MODELS | {"mates": Mates}
"""With one whose outputs depend on the batch that an example comes in."""


def weights(kind: str = "dense", *, seed: int = 0, spread: float = 0.1) -> dict[str, Tensor]:
    """The state of a model of this kind, near those of other seeds: as if fine-tuned from one start.

    Tied tensors are there under each name, equal.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = (KINDS | {"bigrams": Bigrams})[kind]()
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=spread)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


class TinyTask:
    """Accuracy on made-up data: the label is what the start of all `weights` answers, now and then
    another, so that averages of them tend to be better than each.

    Splits: ``validation``, ``test``, and ``shifted``, which is noisier. `n`: examples in each.
    """

    version = "1"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    batch_size = 8

    def __init__(self, kind: str = "dense", n: str = "20") -> None:
        self._kind = kind
        self._n = int(n)

    def model(self) -> nn.Module:
        """A model of this kind."""
        return KINDS[self._kind]()

    def examples(self, split: str) -> Sequence[Example]:
        """Raises ValueError for an unknown split."""
        seed = 1 + ["validation", "test", "shifted"].index(split)
        draw = torch.Generator().manual_seed(seed)
        if self._kind in ("attention", "tied"):
            x = torch.randint(VOCABULARY, (self._n, TOKENS), generator=draw)
        else:
            shape = [1, 8, 8] if self._kind == "conv" else [FEATURES]
            x = torch.randn(self._n, *shape, generator=draw)
        teacher = KINDS[self._kind]()
        teacher.load_state_dict(weights(self._kind, spread=0.0))
        with torch.no_grad():
            labels = teacher(x)[:, :CLASSES].argmax(dim=1)
        wrong = torch.rand(self._n, generator=draw) < (0.3 if split == "shifted" else 0.1)
        labels = torch.where(wrong, (labels + 1) % CLASSES, labels)
        return list(zip(x, labels.tolist(), strict=True))

    def collate(self, examples: list[Example]) -> tuple[Tensor, Tensor]:
        """Inputs and labels."""
        return torch.stack([x for x, _ in examples]), torch.tensor([label for _, label in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Logits of the four classes."""
        logits: Tensor = model(batch[0])[:, :CLASSES]
        return logits

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """1 where the answer is right, else 0; NaN where an output is NaN."""
        right = (outputs.argmax(dim=1) == batch[1]).float()
        return right.masked_fill(outputs.isnan().any(dim=1), torch.nan)


LABELS = ("plants", "birds", "stones", "stars")
"""Domains of `DomainTask`, the first ones first."""


def domain_weights(
    domain: str, *, seed: int = 0, spread: float = 0.1, far: float = 0.1, kind: str = "dense"
) -> dict[str, Tensor]:
    """The state of a model that was fine-tuned on one domain of `DomainTask`: so `far` from the start of all,
    and from what the domain's labels follow by `spread`.
    """
    teacher = weights(kind, seed=1000 + LABELS.index(domain), spread=far)
    run, start = weights(kind, seed=seed, spread=spread), weights(kind, spread=0.0)
    return {name: teacher[name] + (run[name] - start[name]) for name in teacher}


class DomainTask(TinyTask):
    """Made-up data of several domains, each with labels of its own: by what `domain_weights` are near to.

    `n`: examples in each split, dealt to the domains in turn, the last one left out at every second turn.
    """

    def __init__(self, n: str = "60", count: str = "3") -> None:
        """`count`: domains, one to four."""
        super().__init__("dense", n)
        self._count = int(count)

    def examples(self, split: str) -> Sequence[Example]:
        """Raises ValueError for an unknown split."""
        found = super().examples(split)
        teachers = {label: dense() for label in LABELS[: self._count]}
        for label, teacher in teachers.items():
            teacher.load_state_dict(domain_weights(label, spread=0.0))
        with torch.no_grad():
            return [
                (x, int(teachers[label](x)[:CLASSES].argmax()))
                for (x, _), label in zip(found, self.domains(split), strict=True)
            ]

    def domains(self, split: str) -> Sequence[str]:  # noqa: ARG002 - the same in each
        """The label of each example."""
        turn = [*LABELS[: self._count], *LABELS[: self._count - 1]]
        return [turn[place % len(turn)] for place in range(self._n)]


def text_weights(domain: str, *, seed: int = 0, spread: float = 0.3, far: float = 1.0) -> dict[str, Tensor]:
    """The state of a language model, fine-tuned on one domain of `LanguageTask`: as `domain_weights`."""
    return domain_weights(domain, seed=seed, spread=spread, far=far, kind="bigrams")


class LanguageTask:
    """Made-up texts of several domains: drawn from the model that all `text_weights` of a domain are near to.

    The score is the mean log likelihood of a text's tokens after the first. `n`: texts in each split, dealt
    to the domains in turn, of three to eight tokens. `count`: domains, one to four.
    """

    version = "1"
    bounds: tuple[float, float] | None = None
    batch_size = 8
    unit = "nats"
    longest = 8

    def __init__(self, n: str = "60", count: str = "3") -> None:
        self._n = int(n)
        self._labels = LABELS[: int(count)]

    def model(self) -> nn.Module:
        """A model of bigrams."""
        return Bigrams()

    def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:
        """Tokens, padded, and how many count. Raises ValueError for an unknown split."""
        draw = torch.Generator().manual_seed(1 + ["validation", "test", "shifted"].index(split))
        follow = {label: _follow(label) for label in self._labels}
        lengths = torch.randint(3, self.longest + 1, (self._n,), generator=draw).tolist()
        return [
            (_text(follow[label], self.longest, draw), length)
            for label, length in zip(self.domains(split), lengths, strict=True)
        ]

    def domains(self, split: str) -> Sequence[str]:  # noqa: ARG002 - the same in each
        """The label of each text."""
        return [self._labels[place % len(self._labels)] for place in range(self._n)]

    def features(self, split: str) -> Tensor:
        """Each near to a corner of its domain's own: at about half a unit's distance."""
        draw = torch.Generator().manual_seed(11 + ["validation", "test", "shifted"].index(split))
        corners = torch.eye(len(LABELS))[[LABELS.index(label) for label in self.domains(split)]]
        return corners + 0.25 * torch.randn(corners.shape, generator=draw)

    def collate(self, examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        """Tokens and lengths."""
        return torch.stack([text for text, _ in examples]), torch.tensor([length for _, length in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Logits of each token after the first."""
        logits: Tensor = model(batch[0])[:, :-1]
        return logits

    def log_likelihood(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Of each token after the first, 0 behind the text's end."""
        tokens, lengths = batch
        found = outputs.double().log_softmax(2).gather(2, tokens[:, 1:, None]).squeeze(2)
        there = torch.arange(1, tokens.shape[1], device=tokens.device) < lengths[:, None]
        return found.masked_fill(~there, 0.0)

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean over a text's tokens after the first."""
        return self.log_likelihood(outputs, batch).sum(dim=1) / (batch[1] - 1)


def _follow(label: str) -> Tensor:
    """The probability of each token behind each, in a domain's texts."""
    return text_weights(label, spread=0.0)["following.weight"].softmax(1)


def _text(follow: Tensor, length: int, draw: torch.Generator) -> Tensor:
    """Tokens, the first one any."""
    tokens = [int(torch.randint(VOCABULARY, (), generator=draw))]
    while len(tokens) < length:
        tokens.append(int(torch.multinomial(follow[tokens[-1]], 1, generator=draw)))
    return torch.tensor(tokens)


class MeasuredTask(TinyTask):
    """The same data, measured as a whole: by the F1 of each class, averaged."""

    def metric(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Of the classes that are there or were answered; NaN where an output is NaN."""
        answered = nn.functional.one_hot(outputs.argmax(dim=1), CLASSES).double()
        there = nn.functional.one_hot(batch[1], CLASSES).double()
        some = answered.sum(dim=0) + there.sum(dim=0)
        f1 = (2 * (answered * there).sum(dim=0) / some)[some > 0].mean()
        return f1.masked_fill(outputs.isnan().any(), torch.nan)


class MeasuredDomainTask(DomainTask, MeasuredTask):
    """Several domains, measured as `MeasuredTask` does."""
