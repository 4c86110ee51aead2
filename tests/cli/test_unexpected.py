"""What nobody foresaw is told in a message, without secrets, and its traceback where it is asked for."""

import json

import pytest

from stockpot import calls, secrets
from stockpot.cli import main
from stockpot.errors import TRACEBACK

COMMAND = ["soup", "--model", "m", "--task", "t", "--sweep", "s", "--dry-run"]


@pytest.fixture(autouse=True)
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of somebody's fails, and quotes an address that is configured."""
    monkeypatch.setattr(secrets, "_told", set())  # by other tests, which know of another such password
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy")
    monkeypatch.delenv(TRACEBACK, raising=False)

    def fail(*_: object, **__: object) -> None:
        cause = OSError("no answer from http://me:hush@proxy")
        raise ValueError("run \x1b[2J: hush is no port") from cause

    monkeypatch.setattr(calls, "plan", fail)


def _told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*COMMAND, *arguments])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "hush" not in told
    assert "\x1b" not in told
    return told


def test_an_error_that_nobody_foresaw_is_a_message_that_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = _told(capsys)
    assert "error: ValueError: run \\x1b[2J: *** is no port\n" in told
    assert f"{TRACEBACK}=1" in told
    assert "Traceback" not in told


def test_its_traceback_is_shown_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    told = _told(capsys)
    assert "OSError: no answer from http://***@proxy" in told
    assert ", in fail\n" in told


def test_a_program_reads_it_as_any_other_error(capsys: pytest.CaptureFixture[str]) -> None:
    told = _told(capsys, "--json")
    document = json.loads(told[told.index("{") :])
    assert document["error"] == "Unexpected"
    assert document["what"] == "ValueError: run \\x1b[2J: *** is no port"
