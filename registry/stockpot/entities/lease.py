"""The right to work on something for a while."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may work on something, and until when: by the store's clock, in seconds since the epoch."""

    ASTRAY: ClassVar[float] = 60.0
    """Seconds by which a clock may be set back unnoticed."""

    name: str
    """Of what is worked on."""
    owner: str
    since: float
    """When this owner took it."""
    until: float
    """After this anybody may take it."""

    def is_held(self, now: float) -> bool:
        """Whether it is its owner's still. One that was taken in the future is nobody's: the clock was set
        back since, its owner may be gone, and it would run on until then.
        """
        return self.until >= now and self.since <= now + self.ASTRAY
