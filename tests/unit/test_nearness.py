"""How near examples are to domains, against the definition."""

import numpy as np
import pytest

from stockpot.statistics import TEMPERATURE, nearest, nearness


@pytest.mark.parametrize("seed", range(10))
def test_shares_are_those_of_the_published_formula(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n, dimensions, domains = (int(draw.integers(1, most)) for most in (20, 30, 6))
    known, features = draw.normal(size=(40, dimensions)), draw.normal(size=(n, dimensions)) / 3
    places = [draw.choice(40, size=int(draw.integers(1, 9)), replace=False).tolist() for _ in range(domains)]
    found = nearness(features, known, places)
    for example, shares in zip(features, found, strict=True):
        distances = [np.linalg.norm(example - known[some].mean(axis=0)) for some in places]
        weights = [np.exp(-(d**2) / 0.1) for d in distances]
        assert shares == pytest.approx(np.array(weights) / sum(weights), abs=1e-9)


def test_by_hand() -> None:
    # Centers at 0 and 1; at 0.4 the squares are 0.16 and 0.36, and differ by 0.2.
    found = nearness(np.array([[0.4], [0.5]]), np.array([[-1.0], [1.0], [1.0]]), [(0, 2), (1,)])
    assert TEMPERATURE == 0.1
    assert found[0] == pytest.approx([1 / (1 + np.exp(-2)), np.exp(-2) / (1 + np.exp(-2))])
    assert found[1].tolist() == [0.5, 0.5]


def test_far_from_all_the_nearest_has_it() -> None:
    known = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert nearness(np.array([[1e6, 1.0], [1e150, 0.0], [0.0, -1e150]]), known, [[0], [1]]).tolist() == [
        [0.0, 1.0],
        [0.5, 0.5],  # no number of 64 bits tells these distances apart
        [0.5, 0.5],
    ]


def test_only_the_nearest_count_as_they_relate_to_each_other() -> None:
    shares = np.array([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]])
    assert nearest(shares, 2) == pytest.approx(np.array([[0, 4 / 7, 3 / 7, 0], [0.5, 0.5, 0, 0]]))
    assert nearest(shares, 1).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert nearest(shares, 9) == pytest.approx(shares)
