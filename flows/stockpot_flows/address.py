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
    active profile. Raises BadRequest for a file that is no TOML.
    """
    found = (
        (os.environ.get(VARIABLE), VARIABLE),
        (_in_dotenv(VARIABLE), f"{VARIABLE} in {Path('.env').absolute()}"),
        (_url(_toml(Path("prefect.toml"))), str(Path("prefect.toml").absolute())),
        (
            _url(_toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {})),
            f"[tool.prefect] of {Path('pyproject.toml').absolute()}",
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
    profile = content.get("profiles", {}).get(active, {})
    return profile.get(VARIABLE), f"profile {active!r} of {path}"


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
        return tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise BadRequest(
            f"{path.absolute()} cannot be read, and may tell where Prefect is: {error}",
            mend="mend the file, or run without Prefect: --no-flow",
        ) from error


def _url(settings: Mapping[str, Any]) -> str | None:
    url: str | None = settings.get("api", {}).get("url")
    return url
