"""What the origins of an interval tell of themselves, found without a search wherever that can be."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.statistics import intervals
from stockpot.statistics.intervals import Origins

FEW = st.sampled_from([-1.0, 0.0, 0.0, 0.0, 0.5])
ROWS = st.lists(st.tuples(FEW, FEW, st.sampled_from([0.0, 1.0, 2.0]), st.just(1.0)), min_size=1, max_size=12)


def origins_of(rows: Sequence[tuple[float, ...]]) -> Origins:
    table = np.array(rows).T
    table[:2][table[2:] == 0] = 0.0  # a split adds nothing to an origin that it has not
    return Origins(table[:2], table[2:])


@given(ROWS)
def test_those_that_differ_are_all_but_the_most_frequent_mean(rows: list[tuple[float, ...]]) -> None:
    origins = origins_of(rows)
    means = Counter(map(tuple, (origins.sums / np.maximum(origins.sizes, 1)).T.tolist()))
    assert origins.differing == len(rows) - max(means.values())


@given(ROWS)
def test_kinds_are_distinct_and_counted_in_their_order(rows: list[tuple[float, ...]]) -> None:
    origins = origins_of(rows)
    table = np.concatenate([origins.sums, origins.sizes]).T.tolist()
    kinds, counts = origins.kinds
    assert list(zip(map(tuple, kinds.tolist()), counts.tolist(), strict=True)) == sorted(
        Counter(map(tuple, table)).items()
    )


@given(ROWS, st.integers(0, 12))
def test_many_kinds_are_more_than_the_limit(rows: list[tuple[float, ...]], limit: int) -> None:
    origins = origins_of(rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intervals, "MOST_DISTINCT", limit)
        assert origins.many_kinds == (len(origins.kinds[1]) > limit)


def test_kinds_are_told_apart_where_their_numbers_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_INTEGERS", 5)
    rows = [(a, b, 1.0, c) for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0, 2.0) for c in (1.0, 2.0)]
    assert origins_of(rows).kinds[1].tolist() == [1] * len(rows)
