"""The uniform soup: the average of all contenders.

Wortsman et al., "Model soups" (ICML 2022), section 2.
"""

from collections.abc import Sequence

from stockpot.entities import Accept, Contender, Recipe
from stockpot.selection.one_recipe import OneRecipe
from stockpot.selection.telling import distinct


class Uniform(OneRecipe):
    """The mean of all contenders, in the canonical order of their digests.

    `accept` is taken for the sake of one signature for all methods: nothing is accepted or rejected.
    Raises ValueError for no contenders, or for two with the same checkpoint.
    """

    name = "uniform"

    def __init__(self, contenders: Sequence[Contender], *, accept: Accept) -> None:  # noqa: ARG002 - see above
        super().__init__(Recipe.uniform([contender.checkpoint for contender in distinct(contenders)]))
