"""What cannot be registered is found before anything is evaluated."""

from contextlib import suppress

from stockpot.entities import Recipe, SoupRequest
from stockpot.errors import BadCheckpoint
from stockpot.workflow.publishing.packer import Packer


class Rehearsal:
    """Packages one candidate, once, when the first one is about to be evaluated.

    Where everything is remembered nothing is evaluated, and nothing rehearsed.
    """

    def __init__(self, packer: Packer, request: SoupRequest) -> None:
        self._packer = packer
        self._request = request
        self._done = False

    def __call__(self, recipe: Recipe) -> None:
        """Raises what packaging raises. A candidate's own fault is left to its evaluation, and the next
        one's turn is taken.
        """
        if self._done:
            return
        with suppress(BadCheckpoint):
            self._packer.rehearse(self._request, recipe)
            self._done = True
