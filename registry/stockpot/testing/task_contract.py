"""The promises of `stockpot.ports.Task`, as a suite: subclass it and give it a task."""

from collections.abc import Callable

import pytest

from stockpot.evaluation.task_contract import PROMISES, TaskOnTrial
from stockpot.ports import Task


class TaskContract:
    """What `stockpot task check` looks at: subclass it as ``Test...`` and write the first fixture."""

    @pytest.fixture
    def make(self) -> Callable[[], Task]:
        """Makes the task: the class, where it takes no arguments."""
        raise NotImplementedError

    @pytest.fixture(params=["validation"])
    def split(self, request: pytest.FixtureRequest) -> str:
        """A split of its data."""
        return str(request.param)

    @pytest.mark.parametrize("promise", PROMISES)
    def test_a_task(self, make: Callable[[], Task], split: str, promise: str) -> None:
        told = PROMISES[promise](TaskOnTrial(make, type(self).__name__, split))
        assert isinstance(told, str)
