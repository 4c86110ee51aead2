"""Who asks: a name for the trail."""

import getpass
import os
import shutil
import socket
import subprocess

GIT_SECONDS = 5
"""Git reads two files."""


def person() -> str:
    """This user, as git knows him, else as the system does; and on which host. A claim, and no proof."""
    return f"{_by_git() or _by_the_system()} on {socket.gethostname()}"


def _by_git() -> str:
    """Name and address; empty without git, or where nobody told it."""
    git = shutil.which("git")
    if git is None:
        return ""
    found = []
    for field in ("user.name", "user.email"):
        try:
            asked = subprocess.run(
                [git, "config", "--get", field], capture_output=True, timeout=GIT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        found.append(asked.stdout.decode(errors="replace").strip())
    name, address = found
    return f"{name} <{address}>" if name and address else name or address


def _by_the_system() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id that no password file knows: a container
        return f"user {os.getuid()}"
