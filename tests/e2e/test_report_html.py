"""The whole page of a version, from the walk that writes it to the command that writes it anew."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from stockpot import calls, webpage
from stockpot.cli import main
from stockpot.entities import Register, SoupRequest
from stockpot.errors import BadRequest, CannotHelp
from stockpot.testing.tiny import TinyTask
from stockpot.watching import Lines
from stockpot.workflow.reporting.neighbours import midpoints, without_each

URI = "models:/tiny/1"


def _page(run_id: str) -> str:
    return _undated(Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report.html")))


def _undated(file: Path) -> str:
    """But for when it was written."""
    text, number = re.subn(r"Written \d{4}-\d\d-\d\d \d\d:\d\d UTC", "", file.read_text())
    assert number == 1
    return text


def test_a_version_has_its_page_from_the_start_and_barriers_when_somebody_asks(
    tiny_sweep: SoupRequest,
) -> None:
    request = replace(tiny_sweep, methods=("uniform",))
    (soup,) = calls.soup(request, flow=False).registered
    first = _page(soup.run_id)
    version = MlflowClient().get_model_version("tiny", "1")
    run = MlflowClient().get_run(soup.run_id)
    link = f"#/experiments/{run.info.experiment_id}/runs/{soup.run_id}/artifacts/report.html"
    assert f"]({link})" in (version.description or "")
    assert f"stockpot report {URI} --barriers" in first
    assert 'src="data:image/png;base64,iVBOR' in first

    said: list[str] = []
    done = calls.report(URI, barriers=True, influence=True, watch=Lines(said.append))
    recipe = done.page.recipe
    near = {one.digest for one in (*midpoints(recipe).values(), *without_each(recipe).values())}
    assert len(near) == 15, "ten pairs, and five soups of four"
    assert done.evaluations == 15
    assert "15 forward passes over split validation" in said[0], "passes are said before"
    assert (done.page.neighbourhood.unknown_barriers, done.page.neighbourhood.unknown_influences) == (0, 0)
    whole = _page(soup.run_id)
    assert "--barriers" not in whole

    assert calls.report(URI, barriers=True, influence=True).evaluations == 0, "all is remembered"
    assert _page(soup.run_id) == whole


@pytest.mark.slow
def test_what_a_task_measures_as_a_whole_has_barriers_too(tiny_sweep: SoupRequest) -> None:
    request = replace(tiny_sweep, task="stockpot.testing.tiny:MeasuredTask", methods=("uniform",))
    calls.soup(replace(request, register=Register.ALL), flow=False)
    around = calls.report(URI, barriers=True, influence=True).page.neighbourhood
    assert len(around.barriers) == 10
    assert all(barrier.difference is not None for barrier in around.barriers)
    assert all(influence.difference is not None for influence in around.influences)


@pytest.mark.slow
def test_where_the_weights_of_one_are_gone_the_others_are_compared_all_the_same(
    tiny_sweep: SoupRequest, tmp_path: Path, home: Path
) -> None:
    (soup,) = calls.soup(replace(tiny_sweep, methods=("uniform",)), flow=False).registered
    lost = calls.report(URI, out=tmp_path / "before.html").page.candidates[0].run
    (tmp_path / "artifacts" / lost.run_id / "artifacts" / "model.safetensors").unlink()
    shutil.rmtree(home / "cache")
    said: list[str] = []
    done = calls.report(URI, barriers=True, influence=True, watch=Lines(said.append))
    around = done.page.neighbourhood
    assert {(one.first, one.second) for one in around.barriers if one.midpoint is None} == {
        (0, other) for other in range(1, 5)
    }
    assert [one.ingredient for one in around.influences if one.without is not None] == [0]
    assert [lost.name in line for line in said if "weights are gone" in line] == [True]
    assert "4 of 10 pairs have not been evaluated" in _page(soup.run_id)


@pytest.mark.slow
def test_a_page_changes_with_the_newest_report_and_with_nothing_else(
    tiny_sweep: SoupRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = replace(tiny_sweep, methods=("uniform",))
    (soup,) = calls.soup(request, flow=False).registered
    whole = _page(soup.run_id)
    calls.soup(request, flow=False)
    assert _page(soup.run_id) == whole, "who repeats a request changes nothing"
    calls.soup(replace(request, margin=-50.0), flow=False)
    assert "margin -0.5:" in _page(soup.run_id), "the page shows the newest report, and the other one"

    with pytest.raises(SystemExit, match="0"):
        main(["report", URI, "--out", str(tmp_path / "here.html")])
    assert _undated(tmp_path / "here.html") == _page(soup.run_id)
    assert f"here.html: the report of {URI}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
def test_a_page_that_cannot_be_drawn_keeps_no_soup_from_its_version(
    tiny_sweep: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise ZeroDivisionError("somebody's token")

    monkeypatch.setattr(webpage, "render", fails)
    said: list[str] = []
    outcome = calls.soup(tiny_sweep, flow=False, watch=Lines(said.append))
    (soup, *_) = outcome.registered
    assert MlflowClient().get_model_version("tiny", "1").run_id == soup.run_id
    assert f"stockpot report {soup.uri}" in " ".join(said)


@pytest.mark.slow
def test_scores_that_cannot_be_compared_with_the_reports_are_not_measured(
    tiny_sweep: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.soup(replace(tiny_sweep, methods=("uniform",)), flow=False)
    monkeypatch.setattr(TinyTask, "version", "2")
    with pytest.raises(CannotHelp, match="version of the task") as refused:
        calls.report(URI, barriers=True)
    assert "run the version's request again here" in refused.value.mend
    with pytest.raises(BadRequest, match="is a folder"):
        calls.report(URI, out=tmp_path)
    with pytest.raises(BadRequest):
        calls.report("models:/tiny/7")
