"""How a command ends that is told to."""

import os
import signal
from collections.abc import Iterator

import pytest

from stockpot import calls
from stockpot.cli import main


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_command_as_control_c_does_and_a_second_one_disturbs_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    def help_out(**_: object) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append("what was leased is given back")
        return 0

    monkeypatch.setattr(calls, "help_out", help_out)
    with pytest.raises(SystemExit) as told:
        main(["help"])
    assert (told.value.code, len(ended)) == (128 + signal.SIGTERM, 1)
