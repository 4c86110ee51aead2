"""How sure a difference of two recipes' scores is. Needs no torch."""

from stockpot.statistics.comparison import compare, compare_mean
from stockpot.statistics.jackknife import blocks
from stockpot.statistics.maximum import simultaneous
from stockpot.statistics.mixture import compare_domains, compare_mixture, pairs_by_domain, routed
from stockpot.statistics.nearness import TEMPERATURE, nearest, nearness
from stockpot.statistics.posterior import cached_prior, kinds, likeliest, together, uniform

__all__ = [
    "TEMPERATURE",
    "blocks",
    "cached_prior",
    "compare",
    "compare_domains",
    "compare_mean",
    "compare_mixture",
    "kinds",
    "likeliest",
    "nearest",
    "nearness",
    "pairs_by_domain",
    "routed",
    "simultaneous",
    "together",
    "uniform",
]
