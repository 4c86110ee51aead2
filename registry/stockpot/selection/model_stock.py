"""Model Stock: between the starting point and the mean of all contenders, as far as their angles tell.

Jang, Yun, Han, "Model Stock: All we need is just a few fine-tuned models" (ECCV 2024). It looks at weights
alone: no score chooses anything.
"""

from collections.abc import Sequence

from stockpot.entities import Accept, Contender, Digest, Recipe
from stockpot.selection.one_recipe import OneRecipe
from stockpot.selection.telling import distinct


class ModelStock(OneRecipe):
    """All contenders but the base, in the canonical order of their digests, and last the base.

    `coefficients`: the file of each tensor's, in this order. `accept` is taken for the sake of one signature
    for all methods. Raises ValueError for no contenders, or for two with the same checkpoint.
    """

    name = "model-stock"
    around_base = True

    def __init__(
        self,
        contenders: Sequence[Contender],
        *,
        accept: Accept,  # noqa: ARG002 - see above
        base: Digest,
        coefficients: Digest,
    ) -> None:
        models = sorted({contender.checkpoint for contender in distinct(contenders)} - {base})
        super().__init__(Recipe.by_tensor([*models, base], coefficients))
