"""A sweep of language models across domains, walked: what the report tells of specialists together."""

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stockpot.cli import main
from stockpot.entities import Arithmetic, SoupRequest, tags
from stockpot.errors import BadTask
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import LABELS, LanguageTask, text_weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.publishing.domains_told import domain_cells
from stockpot.workflow.selecting.by_features import BY_NEAREST, BY_NEARNESS
from stockpot.workflow.selecting.by_posterior import BY_CACHED_PRIOR, BY_POSTERIOR
from stockpot.workflow.walk import in_turn, walk


@pytest.fixture
def request_(mlflow_uri: str, experiment: str, tiny_sweep: SoupRequest) -> SoupRequest:
    """Two runs of each of two domains, tagged with it."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    runs = {f"{domain}-{seed}": text_weights(domain, seed=seed) for domain in LABELS[:2] for seed in range(2)}
    sweep = plant_sweep(client, experiment, runs)
    for run in client.search_runs([client.get_run(sweep).info.experiment_id], "run_name != 'sweep'"):
        if run.info.run_name in runs:
            client.set_tag(run.info.run_id, tags.DOMAIN, run.info.run_name.rpartition("-")[0])
    asked = replace(tiny_sweep, sweep=sweep, task="stockpot.testing.tiny:LanguageTask", shifts=())
    return replace(asked, task_args={"n": "100", "count": "2"}, methods=("greedy",))


@pytest.mark.slow
def test_the_average_for_a_target_is_a_row_and_no_version_and_takes_no_pass_the_second_time(
    request_: SoupRequest,
) -> None:
    asked = replace(request_, target="shifted")
    walk(request_, Workplace(), in_turn, Silent())
    first, second = (walk(asked, Workplace(), in_turn, Silent()) for _ in range(2))
    assert (first.evaluations, first.passes) == (2 + 1, 2 + 1), "both specialists there, and their average"
    label = "specialists averaged for split shifted"
    (row,) = [row for row in first.report.references or () if row.label == label]
    (recipe,) = row.recipes
    assert recipe.arithmetic is Arithmetic.LINEAR_1
    assert sum(Fraction(*i.coefficient) for i in recipe.ingredients if isinstance(i.coefficient, tuple)) == 1
    assert row.inference_cost == 1
    assert {*(row.domains or {})} == {*LABELS[:2]}
    assert any(
        note.startswith(f"{label}: their shares are {min(LABELS[:2])} 0.") for note in first.report.notes
    )
    assert recipe.digest not in {soup.recipe for soup in first.soups}
    assert "shifted" not in {protocol.split for protocol in first.report.protocols}
    assert second.passes == 0 < first.passes
    assert second.report == first.report
    with pytest.raises(BadTask, match="nowhere"):
        Workplace().plan(replace(asked, target="nowhere"))
    plain = Workplace().plan(request_).report_passes
    assert Workplace().plan(asked).report_passes == plain + 2 + 1, "both specialists there, and their average"


def test_specialists_together_are_a_row_with_its_cost_and_no_pass_the_second_time(
    request_: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (walk(request_, Workplace(), in_turn, Silent()) for _ in range(2))
    report = first.report
    rows = {row.label: row for row in report.references or ()}
    blind, told = rows[BY_POSTERIOR], rows[BY_CACHED_PRIOR]
    assert {*blind.recipes} == {s.recipe for s in report.selections if s.method.startswith("specialist:")}
    assert (blind.inference_cost, blind.models) == (2, len({c for r in blind.recipes for c in r.checkpoints}))
    gain = blind.versus_best["test"]
    assert gain.difference == pytest.approx(blind.scores["test"] - report.rows[0].scores["test"], abs=1e-12)
    assert gain.low > 0, "they answer in two domains, and a run in one"
    assert told.scores["test"] > blind.scores["test"]
    assert domain_cells(told, report)[0].startswith(f"2 x: {BY_CACHED_PRIOR}")
    near, nearest = rows[BY_NEARNESS], rows[BY_NEAREST]
    assert (near.inference_cost, nearest.inference_cost) == (2, 1)
    assert near.recipes == nearest.recipes == blind.recipes
    assert near.versus_best["test"].low > 0, "features tell the domain"
    assert domain_cells(near, report)[0].startswith(f"2 x: {BY_NEARNESS}")
    assert any("softmax(-d^2 / 0.1)" in note for note in report.notes)
    assert second.passes == 0 < first.passes
    assert second.report == report
    planned = Workplace().plan(request_).report_passes
    monkeypatch.delattr(LanguageTask, "features")
    assert Workplace().plan(request_).report_passes == planned - 2, "of both specialists by position"


@pytest.mark.slow
def test_specialists_are_written_as_a_pyfunc_that_needs_nothing_of_ours_and_nothing_is_registered(
    request_: SoupRequest, mlflow_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    client, out = MlflowClient(mlflow_uri), tmp_path / "together"
    report = walk(replace(request_, margin=-9.0), Workplace(), in_turn, Silent()).report
    row = next(row for row in report.references or () if row.label == BY_POSTERIOR)

    def registered() -> list[object]:
        experiments = [one.experiment_id for one in client.search_experiments()]
        runs = [one.info.run_id for one in client.search_runs(experiments)]
        models = [one.model_id for one in client.search_logged_models(experiments)]
        versions = [(one.name, one.version) for one in client.search_model_versions()]
        aliases = [(one.name, dict(one.aliases)) for one in client.search_registered_models()]
        return [runs, models, versions, aliases]

    before = registered()
    with pytest.raises(SystemExit, match="0"):
        main(["ensemble", "models:/tiny@challenger", "--out", str(out), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["passes"] == 2
    assert [one["prior"] for one in told["members"]] == [0.5, 0.5]
    assert registered() == before
    task = LanguageTask(n="100", count="2")
    texts = [(text.tolist(), n) for text, n in task.examples(request_.report_on)]
    # As somebody loads it who has no Stockpot.
    script = (
        "import json, sys; sys.modules['stockpot'] = None\n"
        "import mlflow, numpy\n"
        "ids = numpy.array(json.load(sys.stdin))\n"
        "json.dump(mlflow.pyfunc.load_model(sys.argv[1]).predict(ids).tolist(), open(sys.argv[2], 'w'))"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", script, str(out), str(tmp_path / "said")],
        input=json.dumps([text for text, _ in texts]),
        cwd=tmp_path,
        check=True,
        text=True,
    )
    said = json.loads((tmp_path / "said").read_text())
    scores: dict[str, list[float]] = {}
    for logs, (text, n), domain in zip(said, texts, task.domains(request_.report_on), strict=True):
        each = [logs[place][text[place + 1]] for place in range(n - 1)]
        scores.setdefault(domain, []).append(float(np.mean(each)))
    found = {domain: float(np.mean(own)) for domain, own in scores.items()}
    cells = {domain: cell.score for domain, cell in (row.domains or {}).items()}
    assert found == pytest.approx(cells, abs=1e-4)
