"""Fifty kills and other faults at moments that a seed draws: each soup is one version, nothing is lost."""

from collections.abc import Iterator

import pytest
from tests.faults.harness.site import Site, fault_site
from tests.faults.harness.trial import run, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STRIKES = 50


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with fault_site(tmp_path_factory.mktemp("site")) as found:
        yield found


def test_whatever_is_killed_cut_or_full_each_soup_is_one_version_and_no_score_is_lost(site: Site) -> None:
    known = undisturbed(site)
    hits, seed = 0, 0
    while hits < STRIKES:
        told = run(site, known, seed)
        assert not told.broken, f"to repeat it: make faults ARGS='--seed {seed}'\n{told.broken}"
        hits += len(told.hits)
        seed += 1
