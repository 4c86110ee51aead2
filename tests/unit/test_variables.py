"""Variables that another thread sets and takes away."""

import os
from collections import UserDict

import pytest

from stockpot.evidence.surroundings import surroundings
from stockpot.variables import variables


class Vanishing(UserDict[str, str]):
    """Lists a name that is gone by the time it is read, as where a thread took it away in between."""

    def __iter__(self) -> "object":  # type: ignore[override]  # as of a mapping of text
        return iter([*self.data, "HF_GONE"])


def test_one_that_is_taken_away_in_between_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict(os.environ)
    before = surroundings()
    monkeypatch.setattr(os, "environ", Vanishing(kept))
    with pytest.raises(KeyError):
        dict(os.environ.items())
    assert variables() == kept
    assert surroundings() == before
