"""The Python calls, as a program makes them."""

import logging

import pytest

from stockpot import SoupRequest, plan, soup
from stockpot.testing.listener import Listener


@pytest.fixture(autouse=True)
def no_prefect_server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def test_the_soup_is_told_to_the_log_or_to_who_is_handed_in_and_the_second_time_finds_all_done(
    tiny_sweep: SoupRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="stockpot")
    listener = Listener()
    planned = plan(tiny_sweep, watch=listener)
    assert listener.stages, "who is handed in is told in place of the log"
    assert not [record for record in caplog.records if record.name == "stockpot"]
    outcome = soup(tiny_sweep)
    assert {c.run.name for c in planned.candidates} == {c.run_name for c in outcome.report.candidates}
    told = [record.message for record in caplog.records if record.name == "stockpot"]
    assert "rank: 0 of 5" in told
    assert any(line.startswith("rank: 5 of 5 after ") for line in told)
    again = soup(tiny_sweep)
    assert again.evaluations == 0
    assert [s.uri for s in again.soups] == [s.uri for s in outcome.soups]
