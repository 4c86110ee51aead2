"""Made-up sweeps as scores alone, a row for each run: with domains, or with hyperparameters only.

A score comes of how hard its example is, less what the run's hyperparameters cost (each in proportion to what
an example is sensitive to, such as its difficulty: never less than nothing), plus what a run gains on
examples of its own domain, plus what it leans to by chance where there are no domains, plus noise of its own.
It is that number, its log likelihood, or whether it is above zero.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMS = ("number", "log likelihood", "right or wrong")


@dataclass(frozen=True)
class PlantedScores:
    """Scores, and what was planted in them."""

    scores: "NDArray[np.float64]"
    """Of each run (row) on each example."""
    domains: tuple[int, ...]
    """Of each run; of 0 where no domain was planted."""
    examples: tuple[int, ...]
    """The domain of each example."""
    form: str
    """Of `FORMS`."""
    factors: int
    """Hyperparameters that cost scores, from 0 to 2."""
    leanings: int
    """Directions in which runs lean by chance, each more or less, good on some examples and bad on others."""

    @property
    def clarity(self) -> float:
        """How well whoever knows the answer can tell the domains from these scores: the least silhouette of a
        run by the planted domains. -1 where a domain's own runs are not ahead of every other's on its
        examples by a fifth, at least, of the most that any domain's are: they are no specialists.
        """
        runs, examples = np.array(self.domains), np.array(self.examples)
        number = len({*self.domains})
        own = (runs[:, None] == np.arange(number)).astype(np.float64)
        home = (examples[:, None] == np.arange(number)).astype(np.float64)
        means = (own / own.sum(axis=0)).T @ self.scores @ (home / home.sum(axis=0))
        at_home = means.diagonal().copy()
        np.fill_diagonal(means, -np.inf)
        leads = at_home - means.max(axis=0)
        if leads.min() < 0.2 * leads.max():
            return -1.0
        sums = (1 - np.corrcoef(self.scores - self.scores.mean(axis=0))) @ own
        places = np.arange(len(runs)), runs
        within = sums[places] / (own.sum(axis=0)[runs] - 1)
        distances = sums / own.sum(axis=0)
        distances[places] = np.inf
        nearest = distances.min(axis=1)
        return float(((nearest - within) / np.maximum(nearest, within)).min())


def planted_scores(seed: int, *, domains: int, examples: int | None = None, form: str = "") -> PlantedScores:
    """A sweep of this many domains, from 2 to 8, with 2 to 6 runs each; or of 4 to 32 runs with none, where
    it is 1. `examples`: their number, by default 300, 1,000 or 3,000. What is not given is drawn.
    """
    draw = np.random.default_rng([seed, domains])
    sizes = draw.integers(2, 7, domains) if domains > 1 else draw.integers(4, 33, 1)
    form = form or str(draw.choice(FORMS))
    n = examples or int(draw.choice([300, 1000, 3000]))
    own = np.repeat(np.arange(domains), sizes)
    shares = draw.uniform(0.4, 1, domains)
    places = draw.choice(domains, n, p=shares / shares.sum())
    factors = int(draw.integers(3))
    sensitive = [np.abs(draw.normal(0, 1, n)), draw.gamma(1, 1, n)]
    level = draw.normal(0, 1, n) + draw.normal(0, 0.5, domains)[places] + draw.normal(0, 0.05, (len(own), 1))
    cost = sum((np.outer(_strengths(draw, len(own)), sensitive[one]) for one in range(factors)), np.zeros(()))
    gains = draw.uniform(0.6, 1.4, (len(own), 1)) * draw.uniform(0.5, 3) * (domains > 1)
    noise = draw.uniform(0.2, 0.7) * draw.normal(0, 1, (len(own), n))
    leanings = 0 if domains > 1 else int(draw.choice([0, 2, 3, 5]))
    leant = draw.normal(0, 1, (len(own), leanings)) @ draw.normal(0, 0.5, (leanings, n))
    drawn = level - cost + gains * (own[:, None] == places) + leant + noise
    if form == "log likelihood":
        drawn = -np.logaddexp(0, -drawn)
    elif form == "right or wrong":
        drawn = (drawn > 0).astype(np.float64)
    return PlantedScores(drawn, tuple(own.tolist()), tuple(places.tolist()), form, factors, leanings)


def _strengths(draw: np.random.Generator, runs: int) -> "NDArray[np.float64]":
    """How much of a hyperparameter each run has: spread evenly, with a long tail, or of a grid of three."""
    size = draw.uniform(0.1, 0.6)
    kinds = (
        lambda: draw.uniform(0, 2, runs),
        lambda: draw.exponential(1, runs),
        lambda: draw.choice([0.0, 1.0, 3.0], runs),
    )
    return np.asarray(size * kinds[int(draw.integers(3))]())
