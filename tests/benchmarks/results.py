"""What a release measured, kept as a file of this folder's `results`, so that a regression shows."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Row

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Kept:
    """A release's medians, by the rows' keys, and where they were measured."""

    version: str
    machine: dict[str, Any]
    medians: dict[str, float]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        **{library: version(library) for library in ("torch", "mlflow", "prefect")},
    }


def described(where: dict[str, Any]) -> str:
    """A machine in a line."""
    libraries = ", ".join(f"{name} {where[name]}" for name in ("torch", "mlflow", "prefect"))
    return f"{where['cpus']} CPUs ({where['cpu']}), Python {where['python']}, {libraries}"


def save(rows: Sequence[Row], folder: Path) -> Path:
    """Keep these for the installed version, in place of what it had."""
    path = folder / f"{version('stockpot')}.json"
    document = {
        "version": version("stockpot"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": [row.document() for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    return path


def newest(folder: Path) -> Kept | None:
    """The release that was measured last."""
    documents = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    if not documents:
        return None
    last = max(documents, key=lambda document: str(document["date"]))
    medians = {
        f"{row['work']} | {row['against']}": row["median"]
        for row in last["rows"]
        if row["median"] is not None
    }
    return Kept(last["version"], last["machine"], medians)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
