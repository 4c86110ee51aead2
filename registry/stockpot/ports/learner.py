"""Fitting a recipe's coefficients, in place of searching for one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from stockpot.entities import Contender, Recipe

if TYPE_CHECKING:
    from stockpot.ports.bench import Bench


class Learner(Protocol):
    """Fits coefficients by gradient, for example, where a SelectionMethod asks for trials.

    To come: the name and the shape are settled here, and nothing carries one out yet.
    """

    name: str

    def fit(self, contenders: Sequence[Contender], bench: "Bench") -> Recipe:
        """The recipe of ``linear/1`` that is best on the held-out split."""
        ...
