"""What a flow run shows in Prefect's UI."""

import re
from dataclasses import replace

import pytest

from stockpot.entities import (
    Comparison,
    DomainScore,
    Mixture,
    Recipe,
    ReportRow,
    SoupReport,
    SoupRequest,
    digest_of_bytes,
)
from stockpot.watching import Silent
from stockpot_flows import artifacts
from stockpot_flows.artifacts import StageArtifacts, artifact_key, verdict_in_markdown


class Listening(Silent):
    def __init__(self) -> None:
        self.advanced: list[str] = []

    def advance(self, stage: str) -> None:
        self.advanced.append(stage)


def _walk(stage: str, totals: list[int], steps: int) -> tuple[list[str], list[float]]:
    """Start a stage in a flow run, once per total, and advance it: what was passed on, what is shown."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    inner = Listening()

    @flow
    def walk() -> None:
        stages = StageArtifacts(inner, "birds")
        for total in totals:
            stages.start(stage, total)
        for _ in range(steps):
            stages.advance(stage)

    walk()
    key = ArtifactFilter(key=ArtifactFilterKey(any_=[f"birds-{stage.replace(' ', '-')}"]))
    with get_client(sync_client=True) as api:
        shown = [float(str(artifact.data)) for artifact in api.read_artifacts(artifact_filter=key)]
    return inner.advanced, shown


def test_a_stage_of_unknown_length_is_passed_on_and_shows_nothing(prefect: None) -> None:
    assert _walk("list many runs", [0], steps=2) == (["list many runs"] * 2, [])


def test_a_stage_that_was_never_started_is_passed_on(prefect: None) -> None:
    assert _walk("never started", [], steps=1) == (["never started"], [])


def test_a_stage_that_starts_again_without_length_leaves_its_artifact_alone(prefect: None) -> None:
    assert _walk("begun twice", [2, 0], steps=2) == (["begun twice"] * 2, [0.0])


@pytest.mark.parametrize("steps", [2, 5])
def test_a_stage_ends_at_a_hundred_per_cent_even_when_it_took_more_steps(prefect: None, steps: int) -> None:
    _, shown = _walk(f"stage of {steps}", [2], steps)
    assert shown == [100.0]


def test_where_prefect_does_not_answer_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(**_: object) -> None:
        raise ConnectionError("no API")

    monkeypatch.setattr(artifacts, "create_progress_artifact", down)
    inner = Listening()
    stages = StageArtifacts(inner, "birds")
    stages.start("rank", 2)
    stages.advance("rank")
    assert inner.advanced == ["rank"]
    assert "an artifact could not be shown: no API" in caplog.text


def test_two_models_never_share_an_artifact() -> None:
    names = ["birds", "Birds", "bi rds", "bi-rds", "птицы", "鳥", "b" * 300, "b" * 301]
    keys = [artifact_key(name, "verdict") for name in names]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch("[a-z0-9-]+-verdict", key) for key in keys)
    assert keys[0] == "birds-verdict"


def test_the_verdict_tells_what_the_command_prints_also_by_domain() -> None:
    recipes = [Recipe.mean([digest_of_bytes(text) for text in some]) for some in ((b"a",), (b"a", b"b"))]
    gain = Comparison("test", 540, 0.01, 0.002, 0.02, 0.95, None)
    cells = {"owls": DomainScore(0.7, None), "mice": DomainScore(0.9, None)}
    best = ReportRow("best single", (), recipes[0], {"test": 0.8}, {}, domains=cells)
    soup = ReportRow("greedy soup", ("greedy",), recipes[1], {"test": 0.8}, {"test": gain}, domains=cells)
    request = SoupRequest(model="birds", task="t", sweep="s")
    mixture = Mixture({"owls": 0.5, "mice": 0.5}, {"owls": 40, "mice": 40}, (), {})
    plain = SoupReport(request, (best, soup), (), (), (), ())
    told = verdict_in_markdown(replace(plain, mixture=mixture))
    assert told.startswith(verdict_in_markdown(plain))
    further = told.removeprefix(verdict_in_markdown(plain))
    assert "| test, by domain | owls | mice |" in further
    assert "the mixture is owls 0.5, mice 0.5" in further
    assert told.startswith("**greedy soup: better than the best single candidate")
