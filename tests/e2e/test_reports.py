"""Each request that ends in a soup is told on its page: the newest in full, the others by name."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stockpot.cli import main
from stockpot.entities import PublishedSoup, SoupRequest
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.slow


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def request_(tiny_sweep: SoupRequest) -> SoupRequest:
    return replace(tiny_sweep, methods=("greedy",), shifts=(), margin=-100.0)


def _soup(request: SoupRequest) -> PublishedSoup:
    (soup,) = walk(request, Workplace(), in_turn, Silent()).soups
    return soup


def _page(client: "MlflowClient") -> str:
    return str(client.get_model_version("tiny", "1").description)


def test_a_second_request_that_ends_in_the_same_soup_is_shown_and_the_first_one_named(
    request_: SoupRequest, client: "MlflowClient", capsys: pytest.CaptureFixture[str]
) -> None:
    _soup(request_)
    first = _page(client)
    assert "on split test" in first.split("\n", maxsplit=1)[0]
    assert "Other requests" not in first

    shifted = replace(request_, report_on="shifted")
    soup = _soup(shifted)
    assert soup.adopted
    page = _page(client)
    assert "on split shifted" in page.split("\n", maxsplit=1)[0]
    assert "Other requests that ended in this soup:" in page
    named = page.split("Other requests")[1].split("**Ingredients**")[0]
    told = "stockpot.testing.tiny:TinyTask(kind=dense, n=80), margin -100: greedy soup"
    assert told in named.replace("\\", "")
    assert "UTC, on split test" in named
    figure = page.split("get-artifact?path=")[1].split("&")[0]
    assert figure in {file.path for file in client.list_artifacts(soup.run_id)}
    assert figure not in first, "a figure of other numbers"
    tags = client.get_model_version("tiny", "1").tags
    assert "shifted" in tags["stockpot.verdict_sentence"]

    for request in (request_, shifted):
        _soup(request)
        assert _page(client) == page, "a repeated request brings no news"

    with pytest.raises(SystemExit, match="0"):
        main(["show", soup.uri])
    told = " ".join(capsys.readouterr().out.split())
    assert "Other requests that ended in this soup" in told
    assert "on split shifted" in told.split("Other requests")[1]
    with pytest.raises(SystemExit, match="0"):
        main(["show", soup.uri, "--json"])
    reports = json.loads(capsys.readouterr().out)["reports"]
    assert [one["report"]["request"]["report_on"] for one in reports] == ["test", "shifted"]
    assert [one["version"] for one in reports] == ["models:/tiny/1"] * 2


def test_show_tells_the_requests_of_the_version_that_was_asked_for_and_names_it(
    request_: SoupRequest, client: "MlflowClient", capsys: pytest.CaptureFixture[str]
) -> None:
    _soup(request_)
    _soup(replace(request_, report_on="shifted"))
    other = _soup(replace(request_, model="other"))
    client.rename_registered_model("tiny", "birds")
    for uri, told in (("models:/birds/1", 1), (other.uri, 0)):
        with pytest.raises(SystemExit, match="0"):
            main(["show", uri])
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.startswith("- models:/") for line in lines) == told
        assert sum(line.startswith(f"- {uri}: ") for line in lines) == told


def test_what_a_person_wrote_on_a_page_stays_when_the_request_is_repeated(
    request_: SoupRequest, client: "MlflowClient"
) -> None:
    _soup(request_)
    client.update_model_version("tiny", "1", "Approved by Ada.")
    _soup(request_)
    assert _page(client) == "Approved by Ada."


def test_the_page_of_a_version_that_was_promoted_into_another_model_is_left_alone(
    request_: SoupRequest, client: "MlflowClient"
) -> None:
    _soup(request_)
    client.copy_model_version("models:/tiny/1", "production")
    before = client.get_model_version("production", "1").description
    _soup(replace(request_, model="production", report_on="shifted"))
    assert client.get_model_version("production", "1").description == before
