"""The Prefect server that somebody has configured: whether it answers, and its faults as errors of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from stockpot.errors import BadRequest, PrefectUnreachable
from stockpot.settings import reach_loopback_directly
from stockpot_flows.address import VARIABLE, Address, configured


def require_server() -> Address:
    """Where it is. Raises BadRequest where none is configured, PrefectUnreachable for one that is silent."""
    reach_loopback_directly()
    address = configured()
    if address is None:
        raise BadRequest(
            "no Prefect server is configured", mend=f"export {VARIABLE}=http://your-prefect-server:4200/api"
        )
    if (fault := silence()) is not None:
        raise unreachable(address, "does not answer", fault) from fault
    return address


def silence() -> Exception | None:
    """Why Prefect does not answer; None where it does."""
    try:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            return client.api_healthcheck()
    except Exception as error:  # noqa: BLE001 - whatever its settings, its client or its server raise
        return error


def unreachable(address: Address, what: str, error: Exception, otherwise: str = "") -> PrefectUnreachable:
    """This fault of that server. `otherwise`: a clause that mends it, too."""
    told = address.hide(f"{type(error).__name__}: {error}")
    return PrefectUnreachable(
        f"Prefect at {address.shown}, from {address.source}, {what}: {told}",
        mend=f"start that server, or correct the address there{otherwise}",
    )


@contextmanager
def faults_told(address: Address, what: str) -> Iterator[None]:
    """Errors of Prefect's client come out as PrefectUnreachable."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    try:
        yield
    except (HTTPError, PrefectException) as error:
        raise unreachable(address, what, error) from error
