"""The rules about what may be written, shared by every store."""

import math

from stockpot.entities import (
    Bound,
    Composition,
    Job,
    Lease,
    OverlayRule,
    Recipe,
    Registration,
    RegistrationState,
    short,
)
from stockpot.errors import StoreError


def require_number(recipe: Composition, bound: Bound) -> None:
    """Raise StoreError for a bound of NaN: it excludes nothing, and no number ever replaces it."""
    if math.isnan(bound.upper):
        raise StoreError(
            f"recipe {short(recipe.digest)} cannot be bounded by NaN",
            mend="look at the evaluator: a score that is NaN is a score, and no bound",
        )


def require_rule(recipe: Recipe) -> None:
    """Raise StoreError for a recipe whose overlay nothing has to resolve."""
    if not isinstance(recipe.overlay, OverlayRule):
        raise StoreError(
            f"recipe {short(recipe.digest)} has no rule for an overlay: there is nothing to resolve",
            mend="give it an OverlayRule",
        )


def require_lease(job: Job, lease: Lease | None, owner: str) -> Lease:
    """The job's lease. Raises StoreError where this owner may not write what became of the job."""
    if lease is None or lease.owner != owner:
        raise StoreError(
            f"{owner} cannot go on with this request for {job.request.model}: its lease is held by "
            f"{lease.owner if lease else 'nobody'}",
            mend="run the same command again: it goes on from what is remembered",
        )
    return lease


def require_claim(
    registration: Registration, committed: Registration | None, lease: Lease | None, owner: str
) -> None:
    """Raise StoreError where this owner may not write `registration` over the committed row."""
    soup = f"soup {short(registration.recipe)} of model {registration.model!r}"
    if committed is None or lease is None or lease.owner != owner:
        holder = lease.owner if lease else "nobody"
        raise StoreError(
            f"{soup} cannot be registered by {owner}: its lease is held by {holder}",
            mend="run the same command again: it goes on where the registration stands",
        )
    registered = RegistrationState.REGISTERED
    if committed.state is registered and registration.state is not registered:
        raise StoreError(
            f"{soup} is registered as version {committed.version}, and cannot become {registration.state}",
            mend="run the same command again: it finds the version",
        )
