"""Prefect in this very process, for machines without a Prefect server."""

import os
from pathlib import Path

DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # its own 20 s are too few on a busy machine
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",  # nobody can open it before the process ends
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",  # none are used; a second of each start
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # the command shows progress and errors itself
}


def configure(home: Path) -> None:
    """Prepare the environment, before Prefect is first imported.

    Does nothing where the user has configured Prefect: by PREFECT_API_URL, or by a profile. Variables
    that are set stay as they are.
    """
    if _is_configured():
        return
    folder = Path(os.environ.setdefault("PREFECT_HOME", str((home / "prefect").absolute())))
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def _is_configured() -> bool:
    if "PREFECT_API_URL" in os.environ or "PREFECT_PROFILE" in os.environ:
        return True
    home = os.environ.get("PREFECT_HOME")
    return (Path(home) if home else Path.home() / ".prefect").joinpath("profiles.toml").exists()
