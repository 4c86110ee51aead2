"""What the demo's sweep will hold: a random search, and the runs that nobody wants and every sweep has.

The seed is fixed and the ranges were chosen by looking at validation images only.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True)
class SweepConfig:
    """How large the sweep is."""

    fine_tunes: int = 24
    least_epochs: int = 8
    most_epochs: int = 24
    pretrain_epochs: int = 15
    seed: int = 0


@dataclass(frozen=True)
class Hyperparameters:
    """What the random search varies."""

    lr: float
    weight_decay: float
    epochs: int
    shift: float = 0.0
    """Augmentation: images move by up to this share of their width..."""
    rotate: float = 0.0
    """... turn by up to this many degrees..."""
    noise: float = 0.0
    """... and gain noise of this standard deviation."""
    label_smoothing: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class PlannedRun:
    """One run of the sweep, before it is trained."""

    name: str
    how: Hyperparameters
    weights: str = "safetensors"
    """What is logged: "safetensors", "pt2", "pickle" or "none"."""
    status: str = "FINISHED"
    width: int | None = None
    """Channels of another architecture, which cannot start from the starting point."""


def plan(config: SweepConfig) -> Iterator[PlannedRun]:
    """Every run of the sweep, in the order of training. Takes two fine-tunes or more."""
    rng = Random(config.seed)  # noqa: S311 - a search, no secret
    for number in range(config.fine_tunes):
        how = draw(rng, config)
        weights = "pt2" if number % 3 == 1 else "safetensors"
        yield PlannedRun(f"tune-{number:02}", how, weights)
    yield PlannedRun(f"tune-{number:02}-again", how, "pt2" if weights == "safetensors" else "safetensors")
    how = draw(rng, config)
    yield PlannedRun("diverged", replace(how, lr=10.0))
    yield PlannedRun("nan-weights", replace(how, lr=1e30))
    yield PlannedRun("out-of-memory", how, weights="none", status="FAILED")
    yield PlannedRun("unfinished", replace(how, epochs=1), status="RUNNING")
    yield PlannedRun("wide-net", how, width=48)
    yield PlannedRun("pickle-only", how, weights="pickle")


def draw(rng: Random, config: SweepConfig) -> Hyperparameters:
    """One draw: moderate ranges around what works, so that the fine-tunes stay near each other."""
    return Hyperparameters(
        lr=_log_uniform(rng, 3e-4, 3e-3),
        weight_decay=_log_uniform(rng, 1e-4, 1e-1),
        epochs=rng.randint(config.least_epochs, config.most_epochs),
        shift=rng.uniform(0, 0.06),
        rotate=rng.uniform(0, 25),
        noise=rng.uniform(0, 0.3),
        label_smoothing=rng.uniform(0, 0.1),
        seed=rng.randrange(2**31),
    )


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
