"""Prefect in this very process, for machines without a Prefect server."""

import os
from pathlib import Path

DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # its own 20 s are too few on a busy machine
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # the command shows progress and errors itself
}


def configure(home: Path) -> None:
    """Prepare the environment, before Prefect is first imported.

    Does nothing where the user has configured Prefect: by PREFECT_API_URL, by PREFECT_HOME, or by a
    profile. Variables that are set stay as they are.
    """
    if "PREFECT_API_URL" in os.environ or "PREFECT_PROFILE" in os.environ:
        return
    if "PREFECT_HOME" not in os.environ:
        if (Path.home() / ".prefect" / "profiles.toml").exists():
            return
        folder = (home / "prefect").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(folder)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
