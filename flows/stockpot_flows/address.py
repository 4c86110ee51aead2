"""Where Prefect's API is, as its own settings say: found without importing Prefect, which takes seconds."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stockpot.errors import BadRequest

VARIABLE = "PREFECT_API_URL"


@dataclass(frozen=True)
class Address:
    """The address of an API, and what it was read from."""

    url: str
    source: str

    @property
    def shown(self) -> str:
        """Without user and password."""
        return self.hide(self.url)

    def hide(self, text: str) -> str:
        """A text without this address's user and password."""
        secret = self.url.rpartition("@")[0].rpartition("://")[2]
        password = secret.partition(":")[2] or secret
        return text.replace(secret, "***").replace(password, "***") if secret else text


def configured() -> Address | None:
    """The address that somebody has configured; None where nobody has.

    Looks where Prefect looks, in its order: the environment, `.env`, `prefect.toml`, `pyproject.toml`, the
    active profile. Raises BadRequest for a file that is no TOML, and for one of another shape, over which
    Prefect itself stumbles.
    """
    own, project = Path("prefect.toml"), Path("pyproject.toml")
    found = (
        (os.environ.get(VARIABLE), VARIABLE),
        (_in_dotenv(VARIABLE), f"{VARIABLE} in {Path('.env').absolute()}"),
        (_text(_table(_toml(own), own, "api"), own, "url"), str(own.absolute())),
        (
            _text(_table(_toml(project), project, "tool", "prefect", "api"), project, "url"),
            f"[tool.prefect] of {project.absolute()}",
        ),
        _in_profile(),
    )
    return next((Address(url, source) for url, source in found if url), None)


def _in_dotenv(name: str) -> str | None:
    if not Path(".env").is_file():
        return None
    from dotenv import dotenv_values

    return dotenv_values(".env").get(name)


def _in_profile() -> tuple[str | None, str]:
    path = _profiles()
    content = {} if path is None else _toml(path)
    active = os.environ.get("PREFECT_PROFILE") or content.get("active")
    if path is None or not isinstance(active, str):
        return None, ""
    profile = _table(content, path, "profiles", active)
    return _text(profile, path, VARIABLE), f"profile {active!r} of {path}"


def _profiles() -> Path | None:
    named = os.environ.get("PREFECT_PROFILES_PATH") or _in_dotenv("PREFECT_PROFILES_PATH")
    if named:
        return Path(named)
    home = os.environ.get("PREFECT_HOME")
    try:
        path = (Path(home) if home else Path.home() / ".prefect") / "profiles.toml"
    except RuntimeError:  # this user has no home
        return None
    return path if home or path.exists() else _own_profiles()


def _own_profiles() -> Path | None:
    """Those that come with Prefect, for PREFECT_PROFILE."""
    spec = find_spec("prefect")
    return Path(spec.origin).parent / "settings" / "profiles.toml" if spec and spec.origin else None


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, str(error)) from error


def _table(content: Mapping[str, Any], path: Path, *names: str) -> Mapping[str, Any]:
    """A table within tables of this file; empty where there is none."""
    for name in names:
        content = content.get(name, {})
        if not isinstance(content, Mapping):
            raise _unusable(path, f"{name} is no table")
    return content


def _text(table: Mapping[str, Any], path: Path, name: str) -> str | None:
    text = table.get(name)
    if text is None or isinstance(text, str):
        return text
    raise _unusable(path, f"{name} is no text")


def _unusable(path: Path, why: str) -> BadRequest:
    return BadRequest(
        f"{path.absolute()} cannot be read, and may tell where Prefect is: {why}",
        mend="mend the file, or run without Prefect: --no-flow",
    )
