"""Workers, flow runs and Prefect's server are killed: each soup is one version, and nobody waits for ever."""

from collections.abc import Iterator, Sequence

import pytest
from tests.faults.harness.handing import struck, undisturbed
from tests.faults.harness.strikes import Strike
from tests.faults.harness.trial import Undisturbed
from tests.faults.harness.workers import Workers, workers_site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with workers_site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="module")
def known(workers: Workers) -> Undisturbed:
    return undisturbed(workers)


@pytest.mark.parametrize(
    ("name", "strikes", "ways", "ends"),
    [
        (
            "taken-and-never-begun",
            [Strike("kill the worker", "soup-sweep Pending", 0.0, "after", "")],
            ["submit", "plain"],
            [[10, 0]],
        ),
        (
            "taken-and-not-yet-started",  # between Prefect's word and the flow run's own process
            [Strike("kill the worker", "soup-sweep Submitting", 0.0, "after", "")],
            ["submit", "plain"],
            [[10, 0]],
        ),
        (
            "scanned-and-registering",
            [Strike("kill the worker and the run", "creates", 0.5, "before", "")],
            ["scan"],
            [[0]],
        ),
        (
            "helper-and-server",
            [
                Strike("kill the helper's run", "help-sweep Running", 0.0, "after", ""),
                Strike("kill Prefect", "store", 0.1, "before", ""),
            ],
            ["submit"],
            [[0], [10, 0]],  # a flow run may or may not live through that
        ),
    ],
)
def test_whatever_of_prefects_side_is_killed_the_next_request_goes_on_from_there(
    workers: Workers,
    known: Undisturbed,
    name: str,
    strikes: Sequence[Strike],
    ways: Sequence[str],
    ends: Sequence[list[int]],
) -> None:
    told = struck(workers, known, name, strikes, ways)
    assert not told.broken, told.broken
    assert told.hits == [strike.fault for strike in strikes]
    assert told.commands in ends
