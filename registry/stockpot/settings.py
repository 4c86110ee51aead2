"""Settings, from the environment. MLflow's and Prefect's own variables are theirs to read."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.request import getproxies_environment

from pydantic import AfterValidator, ByteSize, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from stockpot.errors import TRACEBACK, BadRequest
from stockpot.logs import write_json
from stockpot.prose import near


def require_home(whose: str, variables: str = "HOME") -> Path:
    """This user's home directory, which `whose` program needs. Raises BadRequest where there is none."""
    try:
        return Path.home()
    except RuntimeError as error:  # no HOME, and a user id that no password file knows: a container
        raise BadRequest(
            f"this user (id {os.getuid()}) has no home directory, and {whose} needs one",
            mend=f"export {variables}=/a/folder/that/you/may/write",
        ) from error


def _expanded(folder: Path) -> Path:
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise ValueError("~ stands for a home directory, and none is known") from error


def _folder_or_address(place: str) -> str:
    return place if ":/" in place or not place else str(_expanded(Path(place)).absolute())


def _with_its_secret(url: str) -> str:
    if (named := re.search(r":\{(\w+)\}@", url)) is not None:
        raise ValueError(f"the secret {named[1]} is not put in; in a container: with-secrets COMMAND")
    return url


_OTHERS = {TRACEBACK, "STOCKPOT_IMAGE", "STOCKPOT_GPU_IMAGE"}
"""Variables that are no settings: a switch of the command, and names that compose.yaml reads."""
_Folder = Annotated[Path, AfterValidator(_expanded)]
"""Where no shell has read it, ~ is still there."""


def reach_loopback_directly() -> None:
    """Ask servers on this very machine without a proxy: for the proxy, they are on another one."""
    proxies = getproxies_environment()
    spared = [host.strip() for host in proxies.pop("no", "").split(",") if host.strip()]
    if proxies and "*" not in spared:
        hosts = ",".join(dict.fromkeys([*spared, "localhost", "127.0.0.1", "::1"]))
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = hosts


def read_settings() -> "Settings":
    """From the environment. Raises BadRequest for variables that hold what they cannot."""
    try:
        return Settings()
    except ValidationError as error:
        variables = [(f"STOCKPOT_{fault['loc'][0]}".upper(), fault) for fault in error.errors()]
        raise BadRequest(
            "the environment holds settings that cannot be read",
            faults=[f"{name}={fault['input']}: {fault['msg']}" for name, fault in variables],
            mend=f"export {variables[0][0]}=..., or unset it",
        ) from error


def unread_variables() -> Iterator[tuple[str, str]]:
    """Variables that look like settings and that nobody reads, each with the setting that may be meant."""
    settings = {f"STOCKPOT_{name}".upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith("STOCKPOT_") and name.upper() not in settings | _OTHERS:
            yield name, near(name.upper(), settings)


def signing_password(settings: "Settings") -> bytes | None:
    """The password of the signing key, None where it has none: of a file the first line, as openssl reads it.
    Raises BadRequest; no message shows it.
    """
    told, file = settings.signing_password.get_secret_value(), settings.signing_password_file
    if file is None:
        return told.encode() or None
    if told:
        raise BadRequest(
            "both STOCKPOT_SIGNING_PASSWORD and STOCKPOT_SIGNING_PASSWORD_FILE are set",
            mend="unset STOCKPOT_SIGNING_PASSWORD",
        )
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise BadRequest(
            f"{file}, from STOCKPOT_SIGNING_PASSWORD_FILE, cannot be read: {error.strerror}",
            mend="correct it, or unset it for a key without a password",
        ) from error
    if not lines or not lines[0]:
        raise BadRequest(
            f"{file}, from STOCKPOT_SIGNING_PASSWORD_FILE, has an empty first line",
            mend="write the password there, or unset it for a key without a password",
        )
    return lines[0]


def begin_log() -> None:
    """Log as the environment asks for it. Raises BadRequest where it holds what cannot be read."""
    if "STOCKPOT_LOG" in os.environ and read_settings().log == "json":
        os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # else it sets up a handler of its own
        write_json()


class Settings(BaseSettings):
    """Where Stockpot keeps its things. Each is set by an environment variable ``STOCKPOT_<NAME>``.

    One that is empty is not set: compose files and manifests hand on so what they do not know.
    """

    model_config = SettingsConfigDict(env_prefix="STOCKPOT_", env_ignore_empty=True, frozen=True)

    home: _Folder = Field(default_factory=lambda: require_home("Stockpot", "STOCKPOT_HOME") / ".stockpot")
    """The folder for what has no place of its own."""
    store_url: Annotated[str, AfterValidator(_with_its_secret)] = ""
    """The store's database, as SQLAlchemy writes it; a SQLite file in `home` by default."""
    cache: _Folder | None = None
    """The folder of downloaded weights; in `home` by default."""
    cache_limit: ByteSize | None = None
    """Bytes of weights that the cache keeps, and as many of outputs; the least recently used go first. Units
    are read: 10GB, 10GiB. By default all weights, and 10 GB of outputs."""
    outputs: Annotated[str, AfterValidator(_folder_or_address)] = ""
    """Where models' outputs are kept, of which ensembles are scored: a folder, or an address that fsspec
    knows and that machines share, such as s3://bucket/prefix (`pip install s3fs`). By default the folder
    ``outputs`` in the cache. `cache_limit` bounds it, too."""
    device: str = ""
    """The torch device to evaluate on, or several of one model, such as "cuda:0,cuda:1": each further one
    has a process of its own, which helps. By default CUDA where there is one, else the CPU."""

    rules: _Folder | None = None
    """The file that tells scans which finished sweeps become soups; rules.toml in `home` by default."""
    policies: _Folder | None = None
    """The file that tells the gate what versions must show; policies.toml in `home` by default."""

    watch_every: Annotated[float, Field(gt=0)] = 300.0
    """Seconds within which somebody looks at the aliases of models: `stockpot watch`, or the deployment
    watch-models. A trail tells of longer intervals that nobody looked, once they are a minute longer."""

    log: Literal["text", "json"] = "text"
    """How the command and the flows log on stderr: in lines for people, or as one JSON object a line."""

    webhook_secrets: SecretStr = SecretStr("")
    """The secret of MLflow's webhook, for ``stockpot serve``; behind it, and a space, the one before it."""
    webhook_secrets_file: _Folder | None = None
    """Or the file that holds them."""

    signing_key: _Folder | None = None
    """The file of an elliptic curve key, in PEM, with which soups are signed when they are registered."""
    signing_password: SecretStr = SecretStr("")
    """The key's password, where it has one."""
    signing_password_file: _Folder | None = None
    """Or the file that holds it."""

    @property
    def rules_file(self) -> Path:
        """The file of rules."""
        return (self.rules or self.home / "rules.toml").absolute()

    @property
    def policies_file(self) -> Path:
        """The file of policies."""
        return (self.policies or self.home / "policies.toml").absolute()

    @property
    def database(self) -> str:
        """The store's URL."""
        return self.store_url or f"sqlite:///{self.home.absolute() / 'stockpot.db'}"

    @property
    def cache_folder(self) -> Path:
        """Where weights are cached."""
        return (self.cache or self.home / "cache").absolute()

    @property
    def outputs_place(self) -> str:
        """Where models' outputs are kept: a folder or an address."""
        return self.outputs or str(self.cache_folder / "outputs")
