"""What every store tells of versions and of where checkpoints were found."""

from collections.abc import Iterable

from stockpot.entities import Candidate, Found, KnownVersion, Registration, RegistrationState


def version_of(registration: Registration) -> KnownVersion | None:
    """The version that a registration ended in; None where it has not."""
    one = registration
    if one.state is not RegistrationState.REGISTERED or one.version is None or one.checkpoint is None:
        return None
    return KnownVersion(one.model, one.version, one.recipe, one.checkpoint, one.run_id, one.model_id)


def is_told(candidate: Candidate) -> bool:
    """Whether it is of a run: a base may be a version or a file, which have none."""
    return bool(candidate.run.run_id)


def in_order(versions: Iterable[KnownVersion]) -> tuple[KnownVersion, ...]:
    """By model, number and recipe."""
    return tuple(sorted(versions, key=lambda one: (one.model, int(one.version), one.recipe)))


def places_in_order(found: Iterable[Found]) -> tuple[Found, ...]:
    """Each place once for each sweep that is known of it: one without is left out where another has one."""
    told = {(one.checkpoint, one.run_id, one.path) for one in found if one.sweep is not None}
    kept = {
        one for one in found if one.sweep is not None or (one.checkpoint, one.run_id, one.path) not in told
    }
    return tuple(sorted(kept, key=lambda one: (one.checkpoint, one.run_id, one.path, one.sweep or "")))
