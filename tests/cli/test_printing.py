"""What people and programs read on the terminal."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stockpot.cli import printing
from stockpot.documents import from_document
from stockpot.entities import (
    EnsembleRow,
    EvaluationProtocol,
    Exclusion,
    ExclusionReason,
    ModelVersion,
    Snapshot,
    SoupOutcome,
    SoupReport,
)
from stockpot.soup import CONVERSION, RUN_IDS
from stockpot.tracking import MemoryTracker
from stockpot.workflow.plan import Plan

OLD = Path(__file__).parents[1] / "unit" / "assets" / "snapshot_0.1.0.json"


@pytest.fixture
def old() -> Snapshot:
    """What an earlier release kept beside a soup: no ensembles, no notes, no inference cost."""
    return from_document(Snapshot, json.loads(OLD.read_text()))


def _with_ensemble(report: SoupReport) -> SoupReport:
    soup = next(row for row in report.rows if row.recipe.is_soup)
    scores = dict.fromkeys(report.request.shifts, 0.125) | {"test": 0.0625}
    gains = {"test": replace(soup.versus_best["test"], difference=0.0123)}
    cost = len(soup.recipe.ingredients)
    ensemble = EnsembleRow(f"ensemble of the {soup.label}", soup.recipe, scores, gains, cost)
    return replace(report, ensembles=(ensemble,), notes=("cells are empty: why",))


def _told(capsys: pytest.CaptureFixture[str], report: SoupReport, *, as_json: bool = False) -> str:
    printing.show_outcome(SoupOutcome(report, (), 0), as_json=as_json)
    return capsys.readouterr().out


def test_the_table_has_every_row_with_its_inference_cost(
    old: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _told(capsys, _with_ensemble(old.report))
    assert "inference cost" in told
    (ensemble, gain) = (line.split() for line in told.splitlines() if line.startswith(" ensemble of the"))
    assert ensemble[-5:] == ["3", "3", "x", "6.25", "12.50"]
    assert "+1.23" in gain
    costs = [line for line in told.splitlines() if line.startswith(" best single")]
    assert costs[0].split()[2:5] == ["1", "1", "x"]
    assert "- cells are empty: why" in told


def test_the_json_has_the_ensemble_too(old: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    report = _with_ensemble(old.report)
    document = json.loads(_told(capsys, report, as_json=True))
    assert from_document(SoupOutcome, document).report == report
    assert document["report"]["ensembles"][0]["inference_cost"] == 3


def test_a_soup_of_an_earlier_release_is_shown(old: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    version = ModelVersion("tiny", "1", "run", "m-1", {}, ())
    printing.show_snapshot(version, old, MemoryTracker(), as_json=False)
    told = capsys.readouterr().out
    assert "ensemble" not in told
    assert old.recipe.digest in told.replace("\n", "")


def test_steps_that_stopped_early_are_told_as_bounds(
    old: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = (row for row in old.report.rows if row.recipe == old.recipe)
    search = next(s for s in old.report.selections if s.method in row.methods)
    steps = tuple(replace(step, score=None, bound=0.4375) for step in search.steps)
    stopped = replace(old, report=replace(old.report, selections=(replace(search, steps=steps),)))
    version = ModelVersion("tiny", "1", "run", "m-1", {}, ())
    printing.show_snapshot(version, stopped, MemoryTracker(), as_json=False)
    assert capsys.readouterr().out.count("at most 43.75") >= len(steps)


def test_show_prints_what_the_scores_were_measured_under(
    old: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    version = ModelVersion("tiny", "1", "run", "m-1", {}, ())
    first, *others = old.report.protocols
    question = replace(
        first.question,
        task_args=(("data", f"sha256:{'fedcba98' * 8}"), ("n", "12")),
        modules=(("birds.scoring", "0123456789ab"),),
        distributions=(("timm", "1.0.9"),),
    )
    conditions = replace(first.conditions, software=(("CUDA", "12.4"), ("driver", "550.54")))
    more = EvaluationProtocol(question, conditions)
    request = replace(old.report.request, task_args={"data": "birds.npz", "n": "12"})
    new = replace(old, report=replace(old.report, request=request, protocols=(more, *others)))
    printing.show_snapshot(version, new, MemoryTracker(), as_json=False)
    told = capsys.readouterr().out
    for part in (
        "birds.scoring 0123456789ab",
        "timm 1.0.9",
        "CUDA 12.4, driver 550.54",
        question.task_version,
    ):
        assert part in told
    assert "data=birds.npz (fedcba98fedc), n=12" in told, "as it was given, and what it held"
    printing.show_snapshot(version, old, MemoryTracker(), as_json=False)
    assert "below torch" not in capsys.readouterr().out


def test_runs_excluded_for_one_reason_are_counted_and_their_mend_is_told_once(
    old: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = [
        Exclusion(f"id-{n}", f"bare-{n}", ExclusionReason.NO_WEIGHTS, "it logged no weights", "log some")
        for n in range(3)
    ]
    torn = [
        Exclusion(f"id-{n}", f"torn-{n}", ExclusionReason.UNREADABLE, f"{n} bytes", "log them again")
        for n in range(4, 6)
    ]
    alone = Exclusion("id-9", "alone", ExclusionReason.PICKLE, "a pickle", "log safetensors")
    told = " ".join(_told(capsys, replace(old.report, exclusions=(bare[0], alone, *bare[1:], *torn))).split())
    assert "6 excluded runs" in told
    assert "3 runs no weights: it logged no weights: bare-0, bare-1, bare-2. To mend it: log some" in told
    assert "2 runs unreadable weights: torn-4: 4 bytes; torn-5: 5 bytes. To mend it: log them again" in told
    assert "1 run pickled weights: alone: a pickle. To mend it: log safetensors" in told
    assert told.count("To mend it") == 3
    told = _told(capsys, replace(old.report, exclusions=(alone,)))
    assert "1 excluded run\n" in told


def test_the_lines_that_convert_pickles_are_printed_once_as_they_are_to_be_copied(
    old: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    pickled = [
        Exclusion(f"id-{n}", f"old-{n}", ExclusionReason.PICKLE, f"{n}.pth", CONVERSION) for n in range(2)
    ]
    told = _told(capsys, replace(old.report, exclusions=tuple(pickled)))
    assert "see below" in told
    assert told.count(CONVERSION.replace(RUN_IDS, '"id-0", "id-1"')) == 1


def test_the_dry_run_prints_it_too(old: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    first = old.report.protocols[0]
    question = replace(first.question, modules=(("birds.scoring", "0123456789ab"),))
    protocol = replace(first, question=question)
    printing.show_plan(Plan((), (), (), 0, 0, 0, 0, protocol), as_json=False)
    assert "birds.scoring 0123456789ab" in capsys.readouterr().out


def test_scores_without_bounds_are_told_in_the_tasks_unit(
    old: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Scores, in points:" in _told(capsys, old.report)
    told = _told(capsys, replace(old.report, unit="nats"))
    assert "Scores, in nats:" in told
    assert "points" not in told
    assert "Scores: " in _told(capsys, replace(old.report, unit=""))
