"""For authors of adapters and tasks: contract suites to subclass, public fakes, tiny models.

Needs pytest. A suite is a class of tests that asks for one fixture, the adapter under test.
"""

import pytest

# So that a failed assertion in a suite shows its values, as one in a test module does.
for _suite in (
    "store_contract",
    "bounds_contract",
    "tracker_contract",
    "evaluator_contract",
    "task_contract",
):
    pytest.register_assert_rewrite(f"stockpot.testing.{_suite}")
