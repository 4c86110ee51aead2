"""What the sweep will hold: one start, branched to each domain under each of four settings, and on all data.

Rates and steps were chosen by *validation* text alone. All sizes are for two cores and five minutes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from stockpot.demo.domains.texts import DOMAINS, TextsConfig
from stockpot.entities.domain import ALL


@dataclass(frozen=True)
class Sizes:
    """Of the model."""

    width: int = 64
    depth: int = 2
    context: int = 64
    """Bytes that it sees at most."""


@dataclass(frozen=True)
class DomainsConfig:
    """How large the sweep is."""

    texts: TextsConfig = TextsConfig()  # noqa: RUF009 - frozen
    model: Sizes = Sizes()
    base_steps: int = 1600
    """Of the start, on the mixture of all domains; its rate falls to zero, until its curve is flat."""
    steps: int = 200
    """Of each branch."""
    batch: int = 16
    rates: tuple[float, ...] = (3e-4, 6e-4, 1.2e-3, 2.4e-3)
    """Learning rates: one setting each."""
    seed: int = 0


@dataclass(frozen=True)
class Hyperparameters:
    """How a run is trained."""

    lr: float
    weight_decay: float
    steps: int
    batch: int
    seed: int


@dataclass(frozen=True)
class PlannedRun:
    """One run of the sweep, before it is trained."""

    name: str
    domain: str
    """A label, or ``*`` for all data."""
    how: Hyperparameters

    @property
    def domains(self) -> tuple[str, ...]:
        """What it is trained on, in equal parts."""
        return DOMAINS if self.domain == ALL else (self.domain,)


def base(config: DomainsConfig) -> PlannedRun:
    """The start of all others."""
    how = Hyperparameters(3e-3, 0.01, config.base_steps, config.batch, config.seed)
    return PlannedRun("base", ALL, how)


def branches(config: DomainsConfig) -> Iterator[PlannedRun]:
    """Each domain under each setting."""
    for place, domain in enumerate(DOMAINS):
        for setting, how in enumerate(settings(config, place)):
            yield PlannedRun(f"{domain}-{setting}", domain, how)


def all_data(config: DomainsConfig) -> Iterator[PlannedRun]:
    """On all domains in equal parts: under each setting with what one branch computes, and once with what all
    branches do together.
    """
    settled = list(settings(config, len(DOMAINS)))
    for setting, how in enumerate(settled):
        yield PlannedRun(f"all-{setting}", ALL, how)
    middle = settled[len(settled) // 2]
    branched = len(DOMAINS) * len(config.rates) * config.steps
    how = Hyperparameters(middle.lr, middle.weight_decay, branched, config.batch, settled[-1].seed + 1)
    yield PlannedRun("all-whole-sweep", ALL, how)


def settings(config: DomainsConfig, place: int) -> Iterator[Hyperparameters]:
    """The settings, with an order of the data that is this place's own."""
    for number, rate in enumerate(config.rates):
        seed = 1000 * (config.seed + 1) + 10 * place + number
        decay = (0.01, 0.1)[number % 2]
        yield Hyperparameters(rate, decay, config.steps, config.batch, seed)
