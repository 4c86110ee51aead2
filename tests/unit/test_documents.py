"""Entities as JSON, and back."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from stockpot.documents import from_document, to_document
from stockpot.entities import (
    Accept,
    Digest,
    Ensemble,
    EnsembleRow,
    EvaluationProtocol,
    FiledReport,
    Job,
    Metric,
    Opening,
    OverlayRule,
    Recipe,
    Score,
    Selection,
    Snapshot,
    SoupOutcome,
    SoupReport,
    SoupRequest,
    Step,
)
from stockpot.entities.job import LATER
from stockpot.errors import StockpotError

OLD = Path(__file__).with_name("assets") / "snapshot_0.1.0.json"
"""`stockpot.json` as release 0.1.0 wrote it beside a soup. Never edit: users have such files."""
PROTOCOL = "sha256:228f1ec1fe114028f45554e8890538bf643a9246055b6030a202342e9b126bf4"
RECIPE = "sha256:f8f45043693f7ef53ce66a9f3028690b55fe392272cd1b319dd0e21e24288bee"
A, B = Digest("sha256:a"), Digest("sha256:b")


FIRST = {
    *("accept", "again", "any_base", "by", "direction", "experiment", "filter", "margin", "max_seconds"),
    *("methods", "model", "or_best_single", "partial", "points", "register", "report_on", "select_on"),
    *("shifts", "sweep", "task", "task_args", "top", "verify_exact", "wait", "weights"),
}
"""Fields of the first requests that a store has kept."""


def test_an_entity_survives_json_nan_included() -> None:
    recipe = Recipe.mean([A, B])
    steps = (
        Step(recipe.digest, (A, B), math.nan, None, kept=False),
        Step(recipe.digest, (A,), None, 0.5, kept=True),
    )
    selection = Selection("greedy", "not_worse", steps, recipe, math.inf)
    text = json.dumps(to_document(selection), allow_nan=False)
    back = from_document(Selection, json.loads(text))
    assert math.isnan(back.steps[0].score or 0.0)
    assert (back.steps[1], back.recipe, back.score) == (steps[1], recipe, math.inf)
    assert back.recipe.digest == recipe.digest


def test_ratios_survive_json_and_older_recipes_stay_as_they_are() -> None:
    linear = Recipe.linear({A: (3, 2), B: (-1, 2)})
    ones = Recipe.linear({A: (1, 1), B: (1, 1)})
    overlaid = replace(ones, overlay=OverlayRule("training", 512, "bn/1", A))
    grouped = Recipe.grouped([[A], [B]])
    for recipe in (linear, replace(ones, coefficients=A), overlaid, replace(ones, overlay=A), grouped):
        assert from_document(Recipe, json.loads(json.dumps(to_document(recipe)))) == recipe
    assert to_document(Recipe.mean([A])).keys() == {"ingredients", "arithmetic", "overlay"}


def test_metrics_ensembles_and_notes_survive_json() -> None:
    score = Score((0.5, math.inf), Metric(0.25, (0.5, -0.0)))
    assert from_document(Score, json.loads(json.dumps(to_document(score)))) == score
    old = from_document(Snapshot, json.loads(OLD.read_text())).report
    ensemble = EnsembleRow("ensemble of the greedy soup", Recipe.mean([A, B]), {"test": 0.5}, {}, 2)
    searched = EnsembleRow("greedy ensemble", Ensemble.of([A, B]), {"test": 0.5}, {}, 2)
    search = Selection(
        "greedy ensemble", "not_worse", (), Ensemble((Recipe.mean([A]), Recipe.mean([A, B])), (1, 2)), 0.5
    )
    report = replace(old, ensembles=(ensemble, searched), selections=(search,), notes=("a note",))
    document = json.loads(json.dumps(to_document(report)))
    assert from_document(SoupReport, document) == report
    assert document["ensembles"][0]["inference_cost"] == 2
    assert document["ensembles"][1]["recipe"]["members"][0]["ingredients"][0]["checkpoint"] == A
    assert [row["inference_cost"] for row in document["rows"]] == [1] * len(report.rows)


def test_a_snapshot_that_an_earlier_release_wrote_is_still_read() -> None:
    snapshot = from_document(Snapshot, json.loads(OLD.read_text()))
    # Written out, since it may never change: it names what people keep.
    assert snapshot.recipe.digest == RECIPE
    assert [row.inference_cost for row in snapshot.report.table] == [1] * len(snapshot.report.rows)
    later = {"domains", "own", "own_beside", "versus_base", "versus_specialists"}
    assert not any(later & row.keys() for row in to_document(snapshot.report)["rows"]), (
        "its name is as it was"
    )
    assert (snapshot.report.ensembles, snapshot.report.notes) == ((), ())
    assert all(len(row.scores) == 4 for row in snapshot.report.rows)
    assert [run.run_name for run in snapshot.report.exclusions] == ["twin"]
    assert snapshot.report.protocols[0].digest == PROTOCOL


@pytest.mark.parametrize(
    "kind", [EvaluationProtocol, SoupReport, SoupOutcome, Snapshot, FiledReport, Opening]
)
def test_a_protocol_that_was_written_in_one_part_is_read_wherever_it_stands(kind: type) -> None:
    snapshot = from_document(Snapshot, json.loads(OLD.read_text()))
    entities = {
        EvaluationProtocol: snapshot.report.protocols[0],
        SoupReport: snapshot.report,
        SoupOutcome: SoupOutcome(snapshot.report, (), 7),
        Snapshot: snapshot,
        FiledReport: FiledReport(snapshot.report, 1.0),
        Opening: Opening("0.1.0", snapshot.report.protocols),
    }
    today = json.loads(json.dumps(to_document(entities[kind])))
    flat = _flat(today)
    assert '"conditions": {' in json.dumps(today)
    assert '"conditions": {' not in json.dumps(flat)
    assert from_document(kind, flat) == from_document(kind, today) == entities[kind]


def _flat(document: Any) -> Any:
    """As it was written before protocols had two parts."""
    if isinstance(document, list):
        return [_flat(item) for item in document]
    if not isinstance(document, dict):
        return document
    if "conditions" in document:
        return document["question"] | document["conditions"]
    return {name: _flat(item) for name, item in document.items()}


def test_a_protocol_in_one_part_names_the_fields_that_do_not_fit() -> None:
    flat = json.loads(OLD.read_text())["report"]["protocols"][0]
    del flat["n"]
    with pytest.raises(StockpotError, match="no EvaluationProtocol") as caught:
        from_document(EvaluationProtocol, {**flat, "batch_size": "many"})
    found = {fault.split(":")[0] for fault in caught.value.faults}
    assert found == {"question.n", "conditions.batch_size"}


def test_a_request_from_outside_is_checked_field_by_field() -> None:
    request = SoupRequest(model="m", task="t", sweep="s", accept=Accept.BETTER, shifts=("fog",))
    assert from_document(SoupRequest, to_document(request)) == request
    with pytest.raises(StockpotError, match="no SoupRequest") as caught:
        from_document(SoupRequest, {"model": 3, "task": "t", "sweep": "s", "colour": "red"})
    assert {fault.split(":")[0] for fault in caught.value.faults} == {"model", "colour"}


def test_fields_that_a_request_got_later_change_no_name_and_no_document_where_they_are_not_set() -> None:
    plain = SoupRequest(model="m", task="t", sweep="s")
    assert {field.name for field in fields(SoupRequest)} == FIRST | LATER
    assert to_document(plain).keys() - {"checkpoint_metric"} == FIRST
    name = "sha256:84e023afe791bb4838107a412bfe6482338400607f082e5bf3fbb3da2c2c061d"
    assert Job.of(plain, []).name == name, "the first release's"
    assert Job.of(replace(plain, target="far"), []).name != name
