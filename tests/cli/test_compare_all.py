"""What `--compare-all` asks for, and what the terminal tells of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stockpot import calls
from stockpot.cli import main, printing
from stockpot.documents import from_document
from stockpot.entities import (
    Comparison,
    Mixture,
    Snapshot,
    SoupOutcome,
    SoupReport,
    SoupRequest,
    WithoutDomain,
)
from stockpot.errors import BadRequest
from stockpot.ports import Watcher

OLD = Path(__file__).parents[1] / "unit" / "assets" / "snapshot_0.1.0.json"


@pytest.mark.parametrize("given", [True, False])
def test_the_option_reaches_the_request(monkeypatch: pytest.MonkeyPatch, *, given: bool) -> None:
    asked: list[SoupRequest] = []

    def plan(request: SoupRequest, *, watch: Watcher | None = None) -> None:
        asked.append(request)
        raise BadRequest("that is all", mend="nothing")

    monkeypatch.setattr(calls, "plan", plan)
    words = ["soup", "--sweep", "s", "--task", "t", "--model", "birds", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main([*words, *(["--compare-all"] if given else [])])
    assert ended.value.code == BadRequest.exit_code
    assert [request.compare_all for request in asked] == [given]


def test_a_cell_of_the_table_is_what_a_domain_costs_or_why_that_is_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report: SoupReport = from_document(Snapshot, json.loads(OLD.read_text())).report
    cost = Comparison("test of owls, without mice", 40, 0.125, 0.01, 0.25, 0.9875, None)
    found = (
        WithoutDomain("mice", report.rows[0].recipe, "", {"test": {"owls": cost}}),
        WithoutDomain("newts", None, "nothing would be left", {}),
    )
    mixture = Mixture({"owls": 1.0}, {"owls": 40}, (), {})
    printing.show_outcome(
        SoupOutcome(replace(report, collisions=found, mixture=mixture), (), 0), as_json=False
    )
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "test, without the runs of owls" in told
    assert "mice +12.50 [+1.00, +25.00]" in told
    assert "newts nothing would be left" in told
    assert any("the runs of mice cost owls most" in line for line in told)
