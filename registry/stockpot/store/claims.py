"""The rules about what may be written, shared by every store."""

import math

from stockpot.entities import Bound, Recipe, Registration, RegistrationState, short
from stockpot.errors import StoreError


def require_number(recipe: Recipe, bound: Bound) -> None:
    """Raise StoreError for a bound of NaN: it excludes nothing, and no number ever replaces it."""
    if math.isnan(bound.upper):
        raise StoreError(
            f"recipe {short(recipe.digest)} cannot be bounded by NaN",
            mend="look at the evaluator: a score that is NaN is a score, and no bound",
        )


def require_claim(registration: Registration, committed: Registration | None) -> Registration:
    """The committed row; raises StoreError where `registration` may not be written over it."""
    soup = f"soup {short(registration.recipe)} of model {registration.model!r}"
    if committed is None or committed.owner is None or committed.owner != registration.owner:
        holder = committed and committed.owner
        raise StoreError(
            f"{soup} cannot be registered by {registration.owner}: the claim is held by {holder or 'nobody'}",
            mend="run the same command again: it goes on where the registration stands",
        )
    registered = RegistrationState.REGISTERED
    if committed.state is registered and registration.state is not registered:
        raise StoreError(
            f"{soup} is registered as version {committed.version}, and cannot become {registration.state}",
            mend="run the same command again: it finds the version",
        )
    return committed
