"""What is installed from the wheel works with the source out of reach."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees this environment's packages, but not its editable Stockpot.

    A folder that a .pth file names is searched, but its own .pth files are not read.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    binary = folder / "bin" / "python"
    target = next((folder / "lib").glob("python*")) / "site-packages"
    (target / "deps.pth").write_text(sysconfig.get_path("purelib"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    return binary


def _run(python: Path, *arguments: str | Path, cwd: Path, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "STOCKPOT", "MLFLOW"))}
    done = subprocess.run(
        [python, *arguments], cwd=cwd, env=environment | variables, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_the_wheel_holds_no_top_level_alembic_and_all_migrations(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} <= {
        "stockpot",
        "stockpot_flows",
        f"{wheel.name.split('-py3')[0]}.dist-info",
    }
    shipped = {Path(name).name for name in names if name.startswith("stockpot/store/migrations/versions/")}
    assert shipped == {path.name for path in (ROOT / "alembic" / "versions").glob("*.py")}
    assert "stockpot/py.typed" in names


def test_the_deployments_are_found_where_the_wheel_is_installed(python: Path, tmp_path: Path) -> None:
    program = "from stockpot_flows.deployments import deployments_file; print(deployments_file())"
    found = Path(_run(python, "-c", program, cwd=tmp_path).strip())
    assert not found.is_relative_to(ROOT)
    assert found.read_text() == (ROOT / "flows" / "prefect.yaml").read_text()


def test_the_installed_package_creates_its_store_and_finds_its_plugins(python: Path, tmp_path: Path) -> None:
    program = (
        "import stockpot; from stockpot.cli import main; from stockpot.tasks.loading import load_method\n"
        "print(stockpot.__file__); print(load_method('greedy').__module__); main(['db', 'upgrade', '--json'])"
    )
    printed = _run(python, "-c", program, cwd=tmp_path, STOCKPOT_HOME=str(tmp_path / "home"))
    where, module, *document = printed.splitlines()
    assert str(ROOT) not in where
    assert module == "stockpot.selection.greedy"
    assert json.loads("".join(document))["revision"]
    assert (tmp_path / "home" / "stockpot.db").exists()
