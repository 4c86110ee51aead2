"""The wheel carries the migrations inside `stockpot/store`, and finds them there."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).parents[2]

USE = """
import alembic
import stockpot
from stockpot.store import SqlStore, current, head, schema
SqlStore("sqlite:///stockpot.db").close()
assert current("sqlite:///stockpot.db") == head()
print(stockpot.__file__, schema._migrations(), alembic.__file__, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    program = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(REPOSITORY),
    ]
    subprocess.run(program, check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_migrations_but_no_top_level_alembic(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    held = {name.removeprefix("stockpot/store/migrations/") for name in names if "/migrations/" in name}
    written = (path for path in (REPOSITORY / "alembic").rglob("*") if path.suffix in {".py", ".mako"})
    assert held == {path.relative_to(REPOSITORY / "alembic").as_posix() for path in written}
    assert not [name for name in names if name.startswith("alembic")]


def test_a_program_installed_from_the_wheel_creates_its_store(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    ZipFile(wheel).extractall(installed)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    program = [sys.executable, "-c", USE]
    output = subprocess.run(
        program, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    package, migrations, library = map(Path, output.stdout.split())
    assert package == installed / "stockpot" / "__init__.py"
    assert migrations == installed / "stockpot" / "store" / "migrations"
    assert not library.is_relative_to(installed)
