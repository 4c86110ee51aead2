"""How many evaluations to have under way at once."""


class Width:
    """Grows while nothing is accepted, shrinks upon acceptance; from a quarter below `most` up to `most`.

    Accepted trials come early and close together, and each makes every guess after it worthless. So an
    acceptance takes a quarter of the devices off guessing, and each rejection brings one of them back. On the
    published trace (71 trials, those at 1, 10, 16 and 17 accepted) this needs the same rounds as all devices
    at all times, with a quarter fewer wasted evaluations; to shrink further costs rounds.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = most
        """The asked trial included: at least one."""

    def heed(self, *, accepted: bool) -> None:
        """Take note of a trial's outcome."""
        after_acceptance = self._most - self._most // 4
        self.now = min(self.now, after_acceptance) if accepted else min(self.now + 1, self._most)
