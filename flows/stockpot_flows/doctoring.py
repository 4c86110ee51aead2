"""Prefect, as `stockpot doctor` looks at it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stockpot.diagnosis import Diagnosis
from stockpot.prose import counted
from stockpot_flows.address import Address
from stockpot_flows.deployments import GATE, HELP, SCAN, SOUP, WATCH, deploy_command
from stockpot_flows.server import faults_told, unreachable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PREFECT = "Prefect"
DEPLOYMENTS = {
    SOUP: "nothing takes what `stockpot soup --submit` hands over",
    HELP: "no worker helps with a sweep",
    SCAN: "no schedule looks for finished sweeps",
    WATCH: "no schedule looks at the aliases of models",
    GATE: "nobody answers who asks for a promotion in MLflow",
}
"""By what is missing without them."""


def look(address: Address) -> Iterator[Diagnosis]:
    """The server at this address, our deployments there, and the workers of their pools. Asks only.

    Raises PrefectUnreachable where it does not answer.
    """
    import prefect
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    silent = "does not answer"
    here = temporary_settings(
        {PREFECT_API_URL: address.url}
    )  # the program may have another one at the moment
    with faults_told(address, silent), here, get_client(sync_client=True) as client:
        if (fault := client.api_healthcheck()) is not None:
            raise unreachable(address, silent, fault) from fault
        told = f"{address.shown}, from {address.source}: version {client.api_version()}"
        yield Diagnosis.ok(PREFECT, f"{told}, {prefect.__version__} here")
        pools: dict[str, None] = {}
        for name, missing in DEPLOYMENTS.items():
            yield from _deployment(client, name, missing, pools)
        for pool in pools:
            yield from _pool(client, pool)


def _deployment(
    client: "SyncPrefectClient", name: str, missing: str, pools: dict[str, None]
) -> Iterator[Diagnosis]:
    """`pools` gets the name of its pool."""
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        yield Diagnosis.warning(PREFECT, f"no deployment {name}: {missing}", mend=deploy_command())
        return
    if found.paused:
        mend = (
            f"switch it on again on its page in Prefect's UI, or: prefect deployment schedule resume {name}"
        )
        yield Diagnosis.warning(PREFECT, f"deployment {name} is paused", mend=mend)
        return
    where = f"in pool {found.work_pool_name}" if found.work_pool_name else "served by a process of its own"
    yield Diagnosis.ok(PREFECT, f"deployment {name}, {where}")
    if found.work_pool_name:
        pools[found.work_pool_name] = None


def _pool(client: "SyncPrefectClient", name: str) -> Iterator[Diagnosis]:
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        mend = f"prefect work-pool create {name} --type process"
        yield Diagnosis.warning(PREFECT, f"there is no pool {name}", mend=mend)
        return
    if found.is_paused:
        mend = f"prefect work-pool resume {name}"
        yield Diagnosis.warning(PREFECT, f"pool {name} is paused", mend=mend)
        return
    workers = client.read_workers_for_work_pool(name)
    online = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    told = f"pool {name}, of type {found.type}: {counted(online, 'worker')} online"
    if online:
        yield Diagnosis.ok(PREFECT, told)
    else:
        yield Diagnosis.warning(PREFECT, told, mend=f"prefect worker start --pool {name}")
