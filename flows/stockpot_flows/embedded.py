"""The flow in this very process: with the Prefect server that is configured, else with one of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.errors import PrefectUnreachable
from stockpot.ports import Watcher
from stockpot.settings import reach_loopback_directly, require_home
from stockpot_flows.address import Address, configured
from stockpot_flows.server import silence, unreachable

OF_OUR_OWN = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # its own 20 s are too few on a busy machine
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",  # nobody can open it before the process ends
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",  # none are used; a second of each start
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
}
"""Settings of a server that lives as long as this process. Whatever the user has set stays."""


def run(request: SoupRequest, watch: Watcher, home: Path) -> SoupOutcome:
    """Run the flow, told to Prefect and to whoever watches.

    Args:
        request: What the flow is asked for.
        watch: Told of the progress beside Prefect.
        home: Folder for Prefect's own things, where it has none.

    Raises PrefectUnreachable where Prefect does not answer, and the walk's own errors.
    """
    require_home("Prefect")
    reach_loopback_directly()
    address = configured()
    # The watcher tells it all: Prefect's console would tell it twice.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if address is None:
        _settle(home)
    with _settings(address):
        _require_answer(address)
        from httpx import HTTPError
        from prefect.exceptions import PrefectException

        from stockpot_flows.soup_sweep import run_watched

        try:
            return run_watched(request, watch)
        except (HTTPError, PrefectException) as error:  # the walk's own errors pass
            raise _unreachable(address, "failed under the flow", error) from error


def _settle(home: Path) -> None:
    """Give Prefect a folder, which it reads when it is first imported."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    folder = Path(os.environ.setdefault("PREFECT_HOME", str((home / "prefect").absolute())))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrefectUnreachable(
            f"{folder} cannot be made for Prefect's own things: {error.strerror}",
            mend="set PREFECT_HOME to a folder that you may write, or run without Prefect: --no-flow",
        ) from error


@contextmanager
def _settings(address: Address | None) -> Iterator[None]:
    """Our own server's settings, whether or not the program has imported Prefect before."""
    if address is not None:
        yield
        return
    import prefect.settings

    defaults = {getattr(prefect.settings, name): value for name, value in OF_OUR_OWN.items()}
    with prefect.settings.temporary_settings(set_defaults=defaults):
        yield


def _require_answer(address: Address | None) -> None:
    """Ask before anything is done. Raises PrefectUnreachable."""
    if (fault := silence()) is not None:
        raise _unreachable(address, "does not answer", fault) from fault


def _unreachable(address: Address | None, what: str, error: Exception) -> PrefectUnreachable:
    without = "run without it: --no-flow, flow=False in Python"
    if address is not None:
        return unreachable(address, what, error, f"; or {without}")
    where = f"Prefect's server in this process, with PREFECT_HOME={os.environ.get('PREFECT_HOME')},"
    return PrefectUnreachable(f"{where} {what}: {type(error).__name__}: {error}", mend=without)
