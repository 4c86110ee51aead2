"""The Python calls, as a program makes them."""

import logging
from typing import Any

import pytest

from stockpot import SoupRequest, plan, soup
from stockpot.errors import BadRequest
from stockpot.testing.listener import Listener


@pytest.fixture(autouse=True)
def no_prefect_server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.mark.parametrize("wrong", [None, {"model": "birds"}, "1f0c", SoupRequest])
def test_what_is_no_request_is_refused_with_the_way_to_make_one(wrong: Any) -> None:
    for call in (soup, plan):
        with pytest.raises(BadRequest, match="a request is a SoupRequest, got a") as refused:
            call(wrong)
        assert "SoupRequest(model=..., task=..., sweep=...)" in refused.value.mend


def test_what_cannot_watch_is_refused(tiny_sweep: SoupRequest) -> None:
    watch: Any = print
    with pytest.raises(BadRequest, match="a builtin_function_or_method cannot be"):
        soup(tiny_sweep, watch=watch)


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
