"""Where Prefect is, by its own settings."""

from pathlib import Path

import pytest

from stockpot.errors import BadRequest
from stockpot_flows.address import Address, configured

URL = "http://prefect.example:4200/api"


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".prefect").mkdir()


def test_nobody_has_told() -> None:
    assert configured() is None


def test_a_profile_without_an_address_tells_of_no_server(tmp_path: Path) -> None:
    (tmp_path / ".prefect" / "profiles.toml").write_text(
        'active = "e"\n[profiles.e]\nPREFECT_LOGGING_LEVEL="INFO"'
    )
    assert configured() is None


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PREFECT_API_URL=http://other\n")
    monkeypatch.setenv("PREFECT_API_URL", URL)
    assert configured() == Address(URL, "PREFECT_API_URL")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (".env", f"PREFECT_API_URL={URL}\n"),
        ("prefect.toml", f'[api]\nurl = "{URL}"\n'),
        ("pyproject.toml", f'[tool.prefect.api]\nurl = "{URL}"\n'),
        (".prefect/profiles.toml", f'active = "old"\n[profiles.old]\nPREFECT_API_URL = "{URL}"\n'),
    ],
)
def test_each_file_that_prefect_reads_is_found_and_named(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    found = configured()
    assert found is not None
    assert found.url == URL
    assert str(tmp_path / file) in found.source


def test_a_profile_that_comes_with_prefect_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_PROFILE", "local")
    found = configured()
    assert found is not None
    assert found.url == "http://127.0.0.1:4200/api"


@pytest.mark.slow
def test_prefect_itself_reads_the_same(tmp_path: Path) -> None:
    """The order is Prefect's: asked of it, in a process of its own."""
    import os
    import subprocess
    import sys

    (tmp_path / ".env").write_text("PREFECT_API_URL=http://first\n")
    (tmp_path / "prefect.toml").write_text('[api]\nurl = "http://second"\n')
    (tmp_path / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://third"\n')
    profiles = 'active = "p"\n[profiles.p]\nPREFECT_API_URL = "http://fourth"\n'
    (tmp_path / ".prefect" / "profiles.toml").write_text(profiles)
    program = "import prefect.settings as s; print(s.PREFECT_API_URL.value())"
    for file in (".env", "prefect.toml", "pyproject.toml", ".prefect/profiles.toml"):
        asked = subprocess.run(
            [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True
        )
        found = configured()
        assert found is not None
        assert found.url == asked.stdout.strip(), file
        (tmp_path / file).unlink()


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "prefect.toml").write_text("[api")
    with pytest.raises(BadRequest, match=r"prefect\.toml cannot be read"):
        configured()


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("prefect.toml", "api = 3", "api is no table"),
        ("prefect.toml", "[api]\nurl = 4200", "url is no text"),
        ("prefect.toml", f"a = {'[' * 5000}", "recursion"),
        ("prefect.toml", "api = '\xff'", "codec"),
        ("pyproject.toml", "tool = 3", "tool is no table"),
        ("pyproject.toml", "[tool]\nprefect = 3", "prefect is no table"),
        ("pyproject.toml", "[tool.prefect]\napi = []", "api is no table"),
        (".prefect/profiles.toml", "active = 'p'\nprofiles = 4", "profiles is no table"),
        (".prefect/profiles.toml", "active = 'p'\n[profiles]\np = 4", "p is no table"),
        (
            ".prefect/profiles.toml",
            "active = 'p'\n[profiles.p]\nPREFECT_API_URL = 4",
            "PREFECT_API_URL is no text",
        ),
    ],
)
def test_a_file_of_another_shape_is_named(tmp_path: Path, file: str, content: str, fault: str) -> None:
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(BadRequest, match=fault) as caught:
        configured()
    assert str(tmp_path / file) in caught.value.what
    assert "--no-flow" in caught.value.mend


@pytest.mark.parametrize("active", ["3", "['p']", "'other'"])
def test_a_profile_that_is_none_tells_of_no_server(tmp_path: Path, active: str) -> None:
    profiles = f"active = {active}\n[profiles.p]\nPREFECT_API_URL = '{URL}'"
    (tmp_path / ".prefect" / "profiles.toml").write_text(profiles)
    assert configured() is None


def test_a_password_is_not_shown() -> None:
    address = Address("https://me:p@ss/w@prefect.example/api", "PREFECT_API_URL")
    assert address.shown == "https://***@prefect.example/api"
    assert address.hide("401 for https://me:p@ss/w@prefect.example/api/flows, not p@ss/w") == (
        "401 for https://***@prefect.example/api/flows, not ***"
    )
    assert Address("http://127.0.0.1:4200/api", "").hide("401") == "401"
