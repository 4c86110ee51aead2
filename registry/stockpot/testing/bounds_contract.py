"""What every store promises about bounds: a part of `stockpot.testing.store_contract`."""

from math import inf, nan

import pytest

from stockpot.entities import Bound, Score
from stockpot.errors import StoreError
from stockpot.ports import Store
from stockpot.testing.store_values import TEST, THREADS, VALIDATION, at_once, soup


class BoundsContract:
    """The sentences of `stockpot.ports.Store` about bounds, held against the fixture ``store``."""

    def test_a_bound_is_remembered_under_recipe_and_protocol_together(self, store: Store) -> None:
        assert store.bound(soup("a").digest, VALIDATION.digest) is None
        store.commit_bound(soup("a"), VALIDATION, Bound(0.5))
        store.commit_bound(soup("a"), TEST, Bound(0.25))
        store.commit_bound(soup("a", "b"), VALIDATION, Bound(0.75))
        assert store.bound(soup("a").digest, VALIDATION.digest) == Bound(0.5)
        assert store.bound(soup("a").digest, TEST.digest) == Bound(0.25)
        assert store.bound(soup("a", "b").digest, VALIDATION.digest) == Bound(0.75)
        assert store.bound(soup("b", "a").digest, VALIDATION.digest) is None

    def test_the_least_bound_is_the_one_that_is_known(self, store: Store) -> None:
        uppers = [0.5, 0.75, 0.5, 0.25, 0.5, inf, -inf, 0.25]
        told = [store.commit_bound(soup("a"), VALIDATION, Bound(upper)).upper for upper in uppers]
        assert told == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, -inf, -inf]
        assert store.bound(soup("a").digest, VALIDATION.digest) == Bound(-inf)

    @pytest.mark.parametrize("upper", [0.1 + 0.2, 5e-324, -1.7976931348623157e308, inf, -inf])
    def test_a_bound_comes_back_exactly(self, store: Store, upper: float) -> None:
        assert store.commit_bound(soup("a"), VALIDATION, Bound(upper)) == Bound(upper)
        assert store.bound(soup("a").digest, VALIDATION.digest) == Bound(upper)

    def test_a_bound_of_nan_is_refused_and_changes_nothing(self, store: Store) -> None:
        store.commit_bound(soup("a"), VALIDATION, Bound(0.5))
        for name in "ab":
            with pytest.raises(StoreError, match="NaN"):
                store.commit_bound(soup(name), VALIDATION, Bound(nan))
        assert store.bound(soup("a").digest, VALIDATION.digest) == Bound(0.5)
        assert store.bound(soup("b").digest, VALIDATION.digest) is None
        assert store.recipe(soup("b").digest) is None

    def test_a_bound_is_no_score_and_a_score_no_bound(self, store: Store) -> None:
        store.commit_bound(soup("a"), VALIDATION, Bound(0.5))
        assert store.score(soup("a").digest, VALIDATION.digest) is None
        store.commit_score(soup("a"), VALIDATION, Score((0.0, 0.5)))
        store.commit_score(soup("b"), VALIDATION, Score((0.0, 0.5)))
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((0.0, 0.5))
        assert store.bound(soup("a").digest, VALIDATION.digest) == Bound(0.5)
        assert store.bound(soup("b").digest, VALIDATION.digest) is None

    def test_a_recipe_is_known_once_a_bound_brought_it_in(self, store: Store) -> None:
        store.commit_bound(soup("c", "a"), VALIDATION, Bound(0.5))
        assert store.recipe(soup("c", "a").digest) == soup("c", "a")

    def test_threads_that_commit_bounds_at_once_leave_the_least(self, store: Store) -> None:
        def commit(number: int) -> None:
            for turn in range(THREADS):  # each thread has the least bound of one recipe
                bound = Bound(float((number + turn) % THREADS))
                told = store.commit_bound(soup("a", str(turn)), VALIDATION, bound)
                assert told.upper <= bound.upper

        at_once(commit)
        for turn in range(THREADS):
            assert store.bound(soup("a", str(turn)).digest, VALIDATION.digest) == Bound(0.0)

    def test_the_least_bound_counts_whether_it_is_mixed_or_not(self, store: Store) -> None:
        bounds = [
            Bound(0.5, mixed=True),
            Bound(0.75),
            Bound(0.25),
            Bound(0.3, mixed=True),
            Bound(0.25, mixed=True),
        ]
        told = [store.commit_bound(soup("a"), VALIDATION, bound) for bound in bounds]
        assert told == [bounds[0], bounds[0], bounds[2], bounds[2], bounds[2]]

    def test_mixed_bounds_of_one_protocol_are_withdrawn_and_nothing_else(self, store: Store) -> None:
        for protocol in (VALIDATION, TEST):
            for name in "ab":
                store.commit_bound(soup(name), protocol, Bound(0.5, mixed=True))
            store.commit_bound(soup("a"), protocol, Bound(0.75))
        store.commit_score(soup("a"), VALIDATION, Score((1.0,)))
        assert not store.mixed_bounds_withdrawn(VALIDATION.digest)
        for _ in range(2):
            store.withdraw_mixed_bounds(VALIDATION)
        assert store.mixed_bounds_withdrawn(VALIDATION.digest)
        assert not store.mixed_bounds_withdrawn(TEST.digest)
        known = [store.bound(soup(n).digest, p.digest) for p in (VALIDATION, TEST) for n in "ab"]
        assert known == [Bound(0.75), None, Bound(0.5, mixed=True), Bound(0.5, mixed=True)]
        assert store.score(soup("a").digest, VALIDATION.digest) == Score((1.0,))

    def test_a_mixed_bound_that_comes_after_the_withdrawal_does_not_count(self, store: Store) -> None:
        store.withdraw_mixed_bounds(VALIDATION)  # of a protocol that nothing was measured under
        late = Bound(0.25, mixed=True)
        assert store.commit_bound(soup("a"), VALIDATION, late) == late
        assert store.bound(soup("a").digest, VALIDATION.digest) is None
        assert store.commit_bound(soup("a"), VALIDATION, Bound(0.5)) == Bound(0.5)
        assert store.commit_bound(soup("a"), VALIDATION, late) == Bound(0.5)
