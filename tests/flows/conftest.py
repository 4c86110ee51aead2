"""What tests of flows share."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest


@pytest.fixture
def deployed(prefect: None) -> Iterator[str]:
    """A deployment of the sweep's flow, without a worker, and of a name of its own."""
    from prefect.client.orchestration import get_client

    from stockpot_flows.soup_sweep import soup_sweep

    name = f"soup {uuid4().hex}"
    deployment: Any = soup_sweep.to_deployment(name)
    made = deployment.apply()
    yield f"soup-sweep/{name}"
    with get_client(sync_client=True) as client:
        client.delete_deployment(made)
