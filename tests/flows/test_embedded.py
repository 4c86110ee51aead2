"""The flow in this process: settings of its own server, and faults of Prefect told as such."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import stockpot_flows.soup_sweep
from stockpot.entities import SoupRequest
from stockpot.errors import BadTask, NothingToSoup, PrefectUnreachable
from stockpot.testing.listener import Listener
from stockpot.watching import Silent
from stockpot.workflow.walk import Stage
from stockpot_flows.embedded import OF_OUR_OWN, _settings, run

REQUEST = SoupRequest(model="m", task="arrays", sweep="x")


def test_our_own_server_gets_time_to_start_whether_or_not_prefect_was_imported_before() -> None:
    import prefect.settings as of_prefect

    seconds = of_prefect.PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
    before = seconds.value()
    with _settings(None):
        assert seconds.value() == 120
        assert not of_prefect.PREFECT_SERVER_UI_ENABLED.value()
    assert seconds.value() == before
    with of_prefect.temporary_settings({seconds: 77}), _settings(None):
        assert seconds.value() == 77, "what the user has set stays"
    assert all(hasattr(of_prefect, name) for name in OF_OUR_OWN)


def test_a_folder_of_prefects_that_cannot_be_made_is_told_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "a-file" / "prefect"))
    with pytest.raises(PrefectUnreachable, match="a-file/prefect cannot be made") as caught:
        run(REQUEST, Silent(), tmp_path)
    assert "set PREFECT_HOME" in caught.value.mend


@pytest.mark.parametrize("fault", [httpx.ReadError("gone"), NothingToSoup("empty")])
def test_a_server_that_goes_away_under_the_flow_is_told_and_the_walks_own_errors_stay(
    prefect: None, fault: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))

    def stop(*_: object) -> None:
        raise fault

    monkeypatch.setattr(stockpot_flows.soup_sweep, "answer", stop)
    with pytest.raises((PrefectUnreachable, NothingToSoup)) as caught:
        run(REQUEST, Silent(), tmp_path)
    if isinstance(fault, NothingToSoup):
        assert caught.value is fault
    else:
        assert f"Prefect at {PREFECT_API_URL.value()}, from PREFECT_API_URL, failed under" in str(
            caught.value
        )


class _Kept(logging.Handler):
    """Keeps what is logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.told = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.told += self.format(record)


@pytest.fixture
def logged(prefect: None) -> Iterator[_Kept]:
    """What Prefect logs of flows and tasks."""
    kept, loggers = _Kept(), [logging.getLogger(f"prefect.{kind}_runs") for kind in ("flow", "task")]
    for logger in loggers:
        logger.addHandler(kept)
    yield kept
    for logger in loggers:
        logger.removeHandler(kept)


@pytest.mark.parametrize("within", ["flow", "task"])
def test_prefect_logs_no_password_of_an_error_nor_of_its_causes(
    logged: _Kept, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    address = "http://me:hush@bucket"
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", address)

    def fail() -> None:
        raise BadTask(f"its data cannot be read: {address}") from OSError(f"no answer from {address}")

    def answer(_: object, __: object, stage: Stage, ___: object) -> None:
        if within == "flow":
            fail()
        stage("gather", fail)

    monkeypatch.setattr(stockpot_flows.soup_sweep, "answer", answer)
    with pytest.raises(BadTask):
        stockpot_flows.soup_sweep.run_watched(REQUEST, Silent())
    assert "its data cannot be read: http://***@bucket" in logged.told
    assert "Traceback" in logged.told
    assert "hush" not in logged.told


def test_the_page_of_the_flow_run_is_told_when_it_starts(
    prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_UI_URL, temporary_settings

    def stop(*_: object) -> None:
        raise NothingToSoup("empty")

    monkeypatch.setattr(stockpot_flows.soup_sweep, "answer", stop)
    listener = Listener()
    with temporary_settings({PREFECT_UI_URL: "http://prefect:4200"}), pytest.raises(NothingToSoup):
        stockpot_flows.soup_sweep.run_watched(REQUEST, listener)
    (said,) = listener.said
    assert re.fullmatch("the flow run: http://prefect:4200/runs/flow-run/[0-9a-f-]{36}", said)
