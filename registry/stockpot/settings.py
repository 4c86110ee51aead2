"""Settings, from the environment. MLflow's and Prefect's own variables are theirs to read."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from stockpot.errors import BadRequest

_Folder = Annotated[Path, AfterValidator(Path.expanduser)]
"""Where no shell has read it, ~ is still there."""


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


class Settings(BaseSettings):
    """Where Stockpot keeps its things. Each is set by an environment variable ``STOCKPOT_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="STOCKPOT_", frozen=True)

    home: _Folder = Field(default_factory=lambda: Path.home() / ".stockpot")
    """The folder for what has no place of its own."""
    store_url: str = ""
    """The store's database, as SQLAlchemy writes it; a SQLite file in `home` by default."""
    cache: _Folder | None = None
    """The folder of downloaded weights; in `home` by default."""
    cache_limit: int | None = None
    """Bytes of weights that the cache keeps, and as many of outputs; the least recently used go first."""
    device: str = ""
    """The torch device to evaluate on, or several of one model, such as "cuda:0,cuda:1"; by default CUDA
    where there is one, else the CPU."""

    @property
    def database(self) -> str:
        """The store's URL."""
        return self.store_url or f"sqlite:///{self.home.absolute() / 'stockpot.db'}"

    @property
    def cache_folder(self) -> Path:
        """Where weights are cached."""
        return (self.cache or self.home / "cache").absolute()
