"""The right to work on something for a while."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may work on something, and until when: by the store's clock, in seconds since the epoch."""

    name: str
    """Of what is worked on."""
    owner: str
    since: float
    """When this owner took it."""
    until: float
    """After this anybody may take it."""
