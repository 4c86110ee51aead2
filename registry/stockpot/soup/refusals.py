"""What every way of averaging refuses, in the same words."""

from collections.abc import Sequence

from stockpot.entities import Recipe, short
from stockpot.errors import BadCheckpoint, Incompatible, NotFinite
from stockpot.prose import counted
from stockpot.soup.overlay import Overlay


def require_applicable(recipe: Recipe, overlay: Overlay | None = None) -> None:
    """Raise BadCheckpoint for a recipe whose overlay is another, or is not here."""
    named, found = recipe.overlay, overlay and overlay.digest
    if (named is None) != (found is None) or (isinstance(named, str) and named != found):
        raise BadCheckpoint(
            f"{title(recipe)}: it is made with {named or 'no statistics'}, here are {found or 'none'}",
            mend="use the store that its request had: STOCKPOT_STORE_URL",
        )


def misfit(recipe: Recipe, faults: Sequence[str]) -> Incompatible:
    """Ingredients that differ in layout, or in integer or boolean tensors."""
    return Incompatible(
        f"{title(recipe)}: its ingredients do not go together",
        faults=faults,
        mend="average checkpoints of one architecture and dtype",
    )


def overflow(recipe: Recipe, offenders: Sequence[str], count: int) -> NotFinite:
    """A sum that is not finite in these of so many tensors."""
    return NotFinite(
        f"{title(recipe)}: its sum overflows in {len(offenders)} of {counted(count, 'tensor')}",
        faults=offenders,
        mend="leave out the ingredients with values near the dtype's largest",
    )


def title(recipe: Recipe) -> str:
    """What errors call the average."""
    return f"the average of {len(recipe.ingredients)} checkpoints ({short(recipe.digest)})"
