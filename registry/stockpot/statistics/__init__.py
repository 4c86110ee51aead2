"""How sure a difference of two recipes' scores is. Needs no torch."""

from stockpot.statistics.comparison import compare, compare_mean
from stockpot.statistics.jackknife import blocks

__all__ = ["blocks", "compare", "compare_mean"]
