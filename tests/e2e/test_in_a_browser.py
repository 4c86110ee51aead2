"""What a person sees of a soup in MLflow's UI, and does there: in a real Chromium, on a real server.

`STOCKPOT_SCREENSHOTS=FOLDER` (`make screenshots`) writes the README's pictures, of the demo's own soup.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.chromium import opened, running_chromium, save_picture

from stockpot import calls
from stockpot.entities import PublishedSoup, Register, SoupRequest
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.watching import Silent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HOSTILE = """<img src=x onerror="document.title='x'"><script>document.title='x'</script> [a](#/b) | **b**"""
POLICY = """
[model.{model}]
task = "stockpot.testing.tiny:TinyTask"
task_args = {{ kind = "dense", n = 80 }}
split = "test"
shifts = ["shifted"]
"""
TOP = "[data-testid=breadcrumbRegisteredModel]"
OTHERS = ("other", "tagged")
DESCRIPTION = '[data-testid="note-editor-preview-content"]'


@dataclass(frozen=True)
class Site:
    """A server of MLflow with three soups of one sweep."""

    uri: str
    greedy: PublishedSoup
    uniform: PublishedSoup
    other: PublishedSoup
    """The greedy one, of another registered model..."""
    tagged: PublishedSoup
    """... and of a third."""


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, start_mlflow: Callable[..., AbstractContextManager[str]]
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("browser")
    home = folder / "home"
    home.mkdir()
    (home / "policies.toml").write_text("".join(POLICY.format(model=name) for name in ("tiny", *OTHERS)))
    with start_mlflow(folder) as uri, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_REGISTRY_URI", uri)
        patch.setenv("STOCKPOT_HOME", str(home))
        request = _planted(uri)
        greedy, uniform = calls.soup(request, watch=Silent()).soups
        others = [
            calls.soup(replace(request, model=name, methods=("greedy",)), watch=Silent()).soups[0]
            for name in OTHERS
        ]
        yield Site(uri, greedy, uniform, *others)


def _planted(uri: str) -> SoupRequest:
    from mlflow import MlflowClient

    names = (HOSTILE, *(f"tune-{number}" for number in range(1, 5)))
    runs = {name: weights("dense", seed=seed) for seed, name in enumerate(names)}
    return SoupRequest(
        model="tiny",
        sweep=plant_sweep(MlflowClient(uri), "sweeps", runs),
        task="stockpot.testing.tiny:TinyTask",
        task_args={"kind": "dense", "n": "80"},
        shifts=("shifted",),
        margin=-20.0,
        register=Register.ALL,
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: "Browser") -> Iterator["Page"]:
    with opened(chromium) as page:
        yield page


def show(page: "Page", soup: PublishedSoup) -> "Locator":
    """Open a version's page; its description, with the figure loaded."""
    assert soup.link is not None
    page.goto(soup.link)
    page.reload()  # an address that differs in its fragment alone loads nothing
    description = page.locator(DESCRIPTION)
    description.wait_for()
    wait_for_pictures(description)
    return description


def wait_for_pictures(part: "Locator") -> None:
    loaded = "async e => Promise.all([...e.querySelectorAll('img')].map(each => each.decode()))"
    part.evaluate(loaded)


def test_a_versions_page_shows_what_decides_and_runs_nothing_of_a_runs_name(page: "Page", site: Site) -> None:
    from playwright.sync_api import expect

    description = show(page, site.greedy)
    expect(description.locator("strong").first).to_contain_text("greedy soup: ")
    expect(description.locator("strong").first).to_contain_text("than the best single candidate")
    heads = description.locator("th").all_inner_texts()
    assert [head.strip() for head in heads[-4:]] == ["validation", "test", "mean of shifts", "gain on test"]
    assert all(head.endswith("\N{EM SPACE}") for head in heads), "MLflow leaves no space between columns"
    rows = [row.split("\t") for row in description.locator("tbody tr").all_inner_texts()]
    assert [row[0].strip() for row in rows[:3]] == ["best single", "greedy soup", "uniform soup"]
    (picture,) = description.locator("img").all()
    assert picture.evaluate("e => e.naturalWidth") > 500
    ingredients = description.locator("li a")
    assert ingredients.count() == 3
    expect(ingredients.filter(has_text="<img src=x onerror=")).to_have_count(1)
    expect(page).to_have_title("tiny v1 - MLflow")


def test_links_lead_from_the_version_to_its_ingredients_and_back(page: "Page", site: Site) -> None:
    from playwright.sync_api import expect

    description = show(page, site.greedy)
    for ingredient in description.locator("li a").all():
        name = ingredient.inner_text().removesuffix("…")
        with page.expect_popup() as opening:
            ingredient.click()
        run = opening.value
        expect(run.get_by_role("heading", level=2).first).to_contain_text(name)
        expect(run).not_to_have_title("x")
        run.close()
    page.locator(f"a[href$='/runs/{site.greedy.run_id}']").click()
    expect(page.get_by_role("heading", name="soup-greedy-of-3").first).to_be_visible()
    expect(page.get_by_text("Logged models (4)")).to_be_visible()  # three of them come in
    expect(page.get_by_role("link", name="sweep", exact=True)).to_be_visible()
    page.get_by_role("link", name="tiny").first.click()
    expect(page.locator(DESCRIPTION)).to_be_visible()


def test_the_soups_own_model_tells_of_its_version(page: "Page", site: Site) -> None:
    from playwright.sync_api import expect

    show(page, site.greedy)
    page.get_by_test_id("source-model-link").click()
    versions = page.get_by_text("Model versions").locator("xpath=../..")
    expect(versions.get_by_role("link", name="tiny")).to_be_visible()


def test_a_version_that_is_made_candidate_by_clicking_becomes_champion(page: "Page", site: Site) -> None:
    from playwright.sync_api import expect

    show(page, site.other)
    give_alias(page, "candidate")
    _, answered = calls.answer(watch=Silent())
    assert [one.told for one in answered] == [
        "models:/other/1, alias candidate in MLflow: champion of other moved from nobody to models:/other/1"
    ]
    show(page, site.other)
    expect(page.get_by_title("champion", exact=True)).to_be_visible()
    expect(gates_word(page)).to_contain_text("The gate: models:/other/1 passed for champion, ")
    assert calls.answer(watch=Silent())[1] == ()


def give_alias(page: "Page", alias: str) -> None:
    page.get_by_text("Aliases:").locator("..").get_by_role("button").last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").fill(alias)
    dialog.get_by_role("combobox").press("Enter")
    dialog.get_by_role("button", name="Save aliases").click()
    dialog.wait_for(state="hidden")
    page.get_by_title(alias, exact=True).wait_for()


def gates_word(page: "Page") -> "Locator":
    """The paragraph behind the verdict."""
    return page.locator(f"{DESCRIPTION} p").nth(1)


def test_a_version_that_fails_stays_candidate_and_its_page_tells_why(page: "Page", site: Site) -> None:
    from playwright.sync_api import expect

    calls.promote(site.greedy.uri, reason="the first", watch=Silent())
    show(page, site.uniform)
    give_alias(page, "candidate")
    ((answer),) = calls.answer(watch=Silent())[1]
    assert answer.promotion is not None
    assert not answer.promotion.moved
    show(page, site.uniform)
    expect(page.get_by_title("candidate", exact=True)).to_be_visible()
    expect(page.get_by_title("champion", exact=True)).to_have_count(0)
    told = gates_word(page)
    expect(told).to_contain_text("The gate: models:/tiny/2 failed for champion, beside models:/tiny/1, ")
    expect(told).to_contain_text("score: ")


def test_the_tag_for_approvals_asks_the_gate_too(page: "Page", site: Site) -> None:
    from playwright.sync_api import expect

    show(page, site.tagged)
    page.get_by_placeholder("Name").fill("stockpot.approval")
    page.get_by_placeholder("Value").fill("approved")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("cell", name="stockpot.approval", exact=True).wait_for()
    ((answer),) = calls.answer(watch=Silent())[1]
    assert answer.promotion is not None
    assert answer.promotion.moved
    show(page, site.tagged)
    expect(page.get_by_title("champion", exact=True)).to_be_visible()


def test_the_report_opens_in_mlflows_viewer_with_its_figure_and_heat_map(page: "Page", site: Site) -> None:
    from playwright.sync_api import expect

    done = calls.report(site.greedy.uri, barriers=True, influence=True, watch=Silent())
    assert done.page.version.uri == site.greedy.uri
    with page.expect_popup() as opening:
        show(page, site.greedy).get_by_role("link", name="Everything else").click()
    report = opening.value.frame_locator("iframe.mlflow-html-iframe")
    expect(report.locator(".verdict")).to_contain_text("than the best single candidate")
    (picture,) = report.locator("img").all()
    assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") > 500
    expect(report.locator(".heat td:not(.own):not(.none):not(.unknown)")).to_have_count(3)
    expect(report.locator(".heat th").filter(has_text="<img src=x onerror=")).to_be_visible()
    assert report.locator("script, img:not([src^='data:'])").count() == 0


@pytest.fixture
def pictured(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    start_mlflow: Callable[..., AbstractContextManager[str]],
) -> Iterator[tuple[str, Path]]:
    """A version's page, and the folder for its pictures: the demo's and the README's, if they are wanted."""
    folder = os.environ.get("STOCKPOT_SCREENSHOTS")
    if folder is None:
        yield request.getfixturevalue("site").greedy.link, tmp_path
        return
    home = tmp_path / ".stockpot" / "demo"
    told = subprocess.run(
        [sys.executable, "-m", "stockpot.demo", "--no-flow"], cwd=tmp_path, check=True, stdout=subprocess.PIPE
    )
    assert b"models:/digits/1" in told.stdout
    with start_mlflow(home) as uri:
        yield f"{uri}/#/models/digits/versions/1", Path(folder)


def test_a_picture_of_a_versions_page_is_small(chromium: "Browser", pictured: tuple[str, Path]) -> None:
    link, folder = pictured
    with opened(chromium, width=1120) as page:
        page.goto(link)
        wait_for_pictures(page.locator(DESCRIPTION))
        save_picture(page, folder / "version-page.png", top=TOP, bottom=DESCRIPTION)
    assert (folder / "version-page.png").stat().st_size < 200_000
