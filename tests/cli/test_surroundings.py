"""The command in places that its writers did not set up: no Prefect, one that is gone, a proxy, no home."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stockpot.cli import main
from stockpot.entities import SoupRequest
from stockpot.errors import BadRequest
from stockpot.settings import Settings, reach_loopback_directly, read_settings

DEAD = "http://127.0.0.1:9"
"""Nobody serves the port `discard`."""
PROGRAM = "import sys; from stockpot.cli import main\ntry: main()\nfinally: print('prefect' in sys.modules)"


def _words(request: SoupRequest) -> list[str]:
    args = [f"--task-arg={name}={value}" for name, value in request.task_args.items()]
    return ["soup", "--model", request.model, f"--sweep={request.sweep}", "--task", request.task, *args]


def _run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=kept | {"HOME": str(folder)} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_without_a_prefect_server_the_command_walks_itself_and_tells_a_pipe_what_it_does(
    tiny_sweep: SoupRequest, tmp_path: Path
) -> None:
    done = _run(tmp_path, *_words(tiny_sweep), HTTP_PROXY=DEAD)
    assert done.returncode == 0, done.stderr
    assert "is registered as models:/tiny/1" in done.stdout
    assert done.stdout.splitlines()[-1] == "False", "Prefect was imported"
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:]{8} rank: 5 of 5 after", done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_the_flow_starts_a_server_of_its_own_past_any_proxy_and_the_pipe_is_told_once(
    tiny_sweep: SoupRequest, tmp_path: Path
) -> None:
    done = _run(tmp_path, *_words(tiny_sweep), "--flow", HTTP_PROXY=DEAD, HTTPS_PROXY=DEAD)
    assert done.returncode == 0, done.stderr
    assert "is registered as models:/tiny/1" in done.stdout
    assert done.stdout.splitlines()[-1] == "True"
    assert done.stderr.count("rank: 5 of 5 after") == 1


@pytest.mark.slow
def test_a_prefect_server_that_is_gone_is_told_with_its_address_and_where_that_came_from(
    tmp_path: Path,
) -> None:
    profiles = tmp_path / ".prefect" / "profiles.toml"
    profiles.parent.mkdir()
    profiles.write_text(f'active = "old"\n[profiles.old]\nPREFECT_API_URL = "{DEAD}/api"\n')
    done = _run(tmp_path, "soup", "--model=m", "--sweep=x", "--task=arrays")
    assert done.returncode == 10
    assert f"error: Prefect at {DEAD}/api, from profile 'old' of {profiles}, does not answer" in done.stderr
    assert "To mend it: " in done.stderr
    assert "--no-flow" in done.stderr
    assert len(done.stderr.splitlines()) < 5, done.stderr


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id that no password file knows, and no HOME, as in many a container."""
    for name in ("HOME", "STOCKPOT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_variable_to_set_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="3"):
        main(["db", "current"])
    told = capsys.readouterr().err
    assert "this user (id 54321) has no home directory" in told
    assert "export STOCKPOT_HOME=" in told


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("words", [["--flow"], ["--no-flow"], ["--dry-run"]])
def test_nor_does_mlflow_or_prefect_end_in_a_traceback_where_only_stockpots_home_is_set(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPOT_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="3"):
        main(["soup", "--model=m", "--sweep=x", "--task=stockpot.testing.tiny:TinyTask", *words])
    assert "export HOME=" in capsys.readouterr().err


@pytest.mark.usefixtures("homeless")
def test_a_tilde_without_a_home_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_HOME", "~/pot")
    with pytest.raises(BadRequest, match=r"STOCKPOT_HOME=~/pot: .*home directory"):
        read_settings()


@pytest.mark.parametrize(("limit", "number"), [("10GB", 10 * 10**9), ("1.5 GiB", 3 * 2**29), ("4096", 4096)])
def test_a_limit_is_read_with_its_unit(limit: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_CACHE_LIMIT", limit)
    assert read_settings().cache_limit == number


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a path would be the folder that one happens to be in, and the store another in each."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"STOCKPOT_{name}".upper(), raising=False)
    unset = read_settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"STOCKPOT_{name}".upper(), "")
    assert read_settings() == unset
    assert unset.home.is_absolute()


@pytest.mark.parametrize("limit", ["10 GBs", "much", "-1"])
def test_a_limit_that_is_no_size_is_refused_with_its_variable(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_CACHE_LIMIT", limit)
    with pytest.raises(BadRequest, match=f"STOCKPOT_CACHE_LIMIT={limit}: "):
        read_settings()


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "localhost,127.0.0.1,::1"), ("a.b,localhost", "a.b,localhost,127.0.0.1,::1"), ("*", "*")],
)
def test_servers_on_this_machine_are_asked_without_the_proxy(
    before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    monkeypatch.setenv("NO_PROXY", before)
    monkeypatch.setenv("no_proxy", before)
    reach_loopback_directly()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == after
