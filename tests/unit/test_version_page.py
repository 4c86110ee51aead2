"""What the whole page of a version tells, and the HTML that shows it."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.kitchen import Kitchen, named

from stockpot.documents import to_document
from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    CandidatePoint,
    Check,
    CheckOutcome,
    Comparison,
    Decision,
    Digest,
    Exclusion,
    ExclusionReason,
    JudgedVersion,
    Mixture,
    ModelVersion,
    OverlayRule,
    Recipe,
    ReferenceRow,
    ReportRow,
    Score,
    Selection,
    SoupReport,
    Step,
    TrailKind,
)
from stockpot.errors import BadRequest
from stockpot.ports import Watcher
from stockpot.testing.store_values import TEST, VALIDATION, report
from stockpot.watching import Silent
from stockpot.webpage import render
from stockpot.webpage.figures import trajectory
from stockpot.workflow.reporting.neighbours import MOST, midpoints, without_each
from stockpot.workflow.reporting.reporter import Reporter
from stockpot.workflow.reporting.searches import Attempt, Search
from stockpot.workflow.reporting.version_page import RunStanding, VersionPage, version_page
from stockpot.workflow.trails import append

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">x</a>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "</style><style>body{display:none}</style>",
    "a\nb\x1b[31m\u202eevil",
    "&lt;b&gt;",
    "y" * 9000,
]
PNG = b"\x89PNG of nothing"


@dataclass
class Site(Kitchen):
    """A kitchen with a trail."""

    watch: Watcher = field(default_factory=Silent)

    def page(self, version: ModelVersion) -> VersionPage:
        return version_page(version.uri, self, "champion")

    def decide(self, version: ModelVersion, champion: ModelVersion | None, /, **more: object) -> None:
        """The gate's word, on record."""
        judged = JudgedVersion(version.uri, version.tags["stockpot.checkpoint"])  # type: ignore[arg-type]  # a digest
        against = JudgedVersion(champion.uri, None) if champion else None
        check = Check("score", CheckOutcome.FAILED, "it must lie above -0.5 points")
        decision = Decision("birds", "champion", judged, against, named("policy"), ("test",), (check,))
        fact = {**to_document(replace(decision, **more)), "verdict": "failed"}  # type: ignore[arg-type]  # its fields
        append(self, "birds", TrailKind.DECISION, fact, by="ada", reason="why not")


def told(
    ingredients: Sequence[Candidate], *, methods: tuple[str, ...] = ("greedy",), unit: str | None = None
) -> SoupReport:
    """A report on the average of these: each candidate scores a little less than the one before it."""
    names = [one.checkpoint.digest for one in ingredients]
    recipe, best = Recipe.mean(names), Recipe.mean(names[:1])
    made = report(recipe, sweep="parent", shifts=("fog",))
    scores = {"validation": 0.9, "test": 0.91, "fog": 0.6, MEAN_OF_SHIFTS: 0.6}
    gains = {
        split: Comparison(split, 540, 0.01, -0.004, 0.02, 0.95, None) for split in ("test", MEAN_OF_SHIFTS)
    }
    rows = (
        ReportRow("best single", (), best, {**scores, "validation": 0.89}, {}),
        ReportRow(f"{methods[0]} soup", methods, recipe, scores, gains),
    )
    steps = [
        Step(Recipe.mean([name]).digest, (name,), 0.89, None, kept=not i) for i, name in enumerate(names)
    ]
    for place in range(2, len(names) + 1):
        tried = tuple(names[:place])
        steps.append(Step(Recipe.mean(tried).digest, tried, 0.89 + place / 1e4, None, kept=True))
    refused = named("refused")
    steps.append(Step(named("r"), (*names, refused), None, 0.5, kept=False))
    points = [
        CandidatePoint(one.run.run_id, one.run.name, one.checkpoint.digest, 0.89 - place / 1000, None, None)
        for place, one in enumerate(ingredients)
    ]
    points.append(CandidatePoint("r" * 32, "refused", refused, 0.1, None, None))
    out = Exclusion(
        "e" * 32, ingredients[0].run.name, ExclusionReason.NO_WEIGHTS, "it logged none", "log some"
    )
    return replace(
        made,
        rows=rows,
        selections=(Selection("greedy", "not_worse", tuple(steps), recipe, 0.9),),
        candidates=tuple(points),
        exclusions=(out,),
        protocols=(VALIDATION, TEST),
        unit=unit,
    )


def soup(site: Site, *runs: str, name: str = "soup", **more: object) -> ModelVersion:
    ingredients = [
        replace(one, run=replace(one.run, params={"lr": f"0.{place}", "same": "1", "name": one.run.name}))
        for place, one in enumerate(site.logs(*runs))
    ]
    return cooked(site, ingredients, name=name, **more)


def cooked(site: Site, ingredients: Sequence[Candidate], *, name: str, **more: object) -> ModelVersion:
    found = told(ingredients, **more)  # type: ignore[arg-type]  # its own
    return site.soup(name, ingredients, told=replace(found, request=replace(found.request, model="birds")))


class Seen(HTMLParser):
    """The elements and texts of a page, as a browser takes them apart."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def html(page: VersionPage) -> Seen:
    return Seen(render(page, PNG))


def test_a_page_needs_no_other_file_and_runs_nothing_whatever_names_hold() -> None:
    site = Site()
    innocent = html(site.page(soup(site, *(f"tune-{n}" for n in range(len(HOSTILE))))))
    hostile = html(site.page(soup(site, *HOSTILE, name="hostile")))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in innocent.elements]
    assert {*hostile.elements[0][1]} == {"lang"}
    for tag, attributes in hostile.elements:
        assert tag not in {"script", "iframe", "object", "base", "form", "link", "foreignobject"}
        assert not [name for name in attributes if name.startswith("on")]
        addresses = [value or "" for name, value in attributes.items() if name in {"src", "href"}]
        assert all(address.startswith(("#", "data:image/png;base64,")) for address in addresses), addresses
    assert "<script>alert(1)</script>" in hostile.text, "a name is shown as it was written"
    assert "{{ 7 * 7 }}" in hostile.text
    assert "\x1b" not in hostile.text
    assert "\u202e" not in hostile.text
    style = render(site.page(site.tracker.versions_kept["birds"][0]), PNG).partition("</style>")[0]
    assert style.count("{") == style.count("}"), "no rule is left open"
    policy = next(a["content"] for t, a in hostile.elements if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_names_of_splits_tasks_and_methods_make_nothing_on_a_page_either(text: str) -> None:
    asked = text.replace("\n", " ")

    def page(split: str, rest: str) -> Seen:
        site = Site()
        told_of = site.page(soup(site, "one", "two", name=rest))
        request = replace(
            told_of.report.request, report_on=split, task=rest, task_args={"data": rest}, sweep=rest
        )
        rows = tuple(
            replace(
                row,
                label=row.label if row.recipe != told_of.row.recipe else rest,
                scores={(split if name == "test" else name): value for name, value in row.scores.items()},
                versus_best={
                    (split if name == "test" else name): value for name, value in row.versus_best.items()
                },
            )
            for row in told_of.report.rows
        )
        out = tuple(replace(one, detail=rest, mend=rest) for one in told_of.report.exclusions)
        report = replace(told_of.report, request=request, rows=rows, exclusions=out, notes=(rest,), unit=rest)
        return html(replace(told_of, report=report, row=rows[1], software={rest: rest}, link=None))

    innocent, hostile = page("plain", "plain"), page(asked, text)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in innocent.elements]
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]


def test_a_score_that_is_no_number_is_told_and_has_no_colour() -> None:
    site = Site()
    version = soup(site, "one", "two", "three")
    recipe = site.page(version).recipe
    site.store.commit_score(midpoints(recipe)[0, 1], VALIDATION, Score((float("nan"), 1.0, 1.0)))
    seen = html(site.page(version))
    assert "+nan" in seen.text
    assert not [a["style"] for t, a in seen.elements if t == "td" and "nan" in (a.get("style") or "")]


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=40), st.floats(-1e6, 1e6)
)
@example([(0.5, True)], 0.5)
@example([(1e-9, False), (-1e6, False)], 1e-9)
@settings(max_examples=200, deadline=None)
def test_each_trial_lies_within_the_axes_whatever_it_scored(
    trials: list[tuple[float, bool]], start: float
) -> None:
    attempts, incumbent = [], start
    for score, bounded in trials:
        kept = not bounded and score >= incumbent
        incumbent = score if kept else incumbent
        known, bound = (None, score) if bounded else (score, None)
        attempts.append(Attempt("x", "", known, bound, kept=kept, incumbent=incumbent))
    drawn = trajectory(
        Search("greedy", "", complete=True, start=start, start_name="a", attempts=tuple(attempts)), ""
    )
    assert len(drawn.dots) == len(trials) + 1
    for dot in drawn.dots:
        assert drawn.left <= dot.x <= drawn.right
        assert drawn.top <= dot.y <= drawn.bottom
    assert 2 <= len(drawn.up) <= 9
    assert all(drawn.top <= tick.at <= drawn.bottom for tick in drawn.up)
    heights = [dot.y for dot in drawn.dots if dot.kind == "kept"]
    assert heights == sorted(heights, reverse=True), "what is kept is never lower than before"


def test_two_hundred_ingredients_are_read_and_drawn_in_a_moment() -> None:
    site = Site()
    version = soup(site, *(f"tune-{n}" for n in range(200)))
    begun = time.process_time()
    page = site.page(version)
    text = render(page, PNG)
    assert time.process_time() - begun < 5
    assert len(text) < 1_000_000
    assert page.neighbourhood.left_out == 200 - MOST
    assert len(page.neighbourhood.barriers) == MOST * (MOST - 1) / 2
    assert f"The first {MOST} of 200 ingredients" in Seen(text).text
    assert len(page.ingredients) == 200


def test_the_same_version_has_the_same_page() -> None:
    site = Site()
    version = soup(site, "one", "two")
    assert render(replace(site.page(version), at=0), PNG) == render(replace(site.page(version), at=0), PNG)


def test_the_page_tells_when_it_was_written_since_aliases_move() -> None:
    site = Site()
    text = html(replace(site.page(soup(site, "one", "two")), at=86_400.0)).text
    assert "Written 1970-01-02 00:00 UTC" in text


def test_an_interval_without_ends_is_told_as_elsewhere() -> None:
    site = Site()
    page = site.page(soup(site, "one", "two"))
    gains = {**page.row.versus_best, "test": Comparison("test", 3, 0.01, -math.inf, math.inf, 0.95, None)}
    text = html(replace(page, row=replace(page.row, versus_best=gains))).text
    assert "+1.00 points none, too few origins" in text
    assert "inf" not in text.replace("influence", "").replace("inference", "")


def test_each_trial_is_told_in_order_with_what_it_had_to_beat() -> None:
    site = Site()
    page = site.page(soup(site, "one", "two", "three"))
    (search,) = page.searches
    assert [(one.what, one.kept) for one in search.attempts] == [
        ("two", True),
        ("three", True),
        ("refused", False),
    ]
    assert [one.incumbent for one in search.attempts] == [0.8902, 0.8903, 0.8903]
    text = html(page).text
    assert "3. refused: at most 50.00, rejected" in text
    assert "1. two: 89.02, accepted" in text


def across(found: SoupReport) -> SoupReport:
    """The same, of a specialist: chosen on other examples than those that rank the candidates."""
    (greedy,) = found.selections
    singles = len([step for step in greedy.steps if len(step.tried) == 1])
    steps = [
        replace(step, score=None if step.score is None else (0.5 if place < singles else 0.52))
        for place, step in enumerate(greedy.steps)
    ]
    own = replace(greedy, method="specialist:<b>owls", steps=tuple(steps), score=0.52)
    rows = (found.rows[0], replace(found.rows[1], methods=(own.method,), label="owls specialist"))
    mixture = Mixture({"<b>owls": 0.5, "mice": 0.5}, {"<b>owls": 40, "mice": 40}, (), {})
    return replace(found, selections=(own,), rows=rows, mixture=mixture)


def test_a_specialists_search_is_told_by_its_own_examples_alone() -> None:
    site = Site()
    ingredients = site.logs("one", "two", "three")
    found = across(told(ingredients))
    version = site.soup(
        "soup", ingredients, told=replace(found, request=replace(found.request, model="birds"))
    )
    page = site.page(version)
    (search,) = page.searches
    assert (search.start, search.start_name) == (0.5, "one"), "not the 0.89 of the whole split"
    assert [one.incumbent for one in search.attempts] == [0.52, 0.52, 0.52]
    seen = html(page)
    assert "one, the best run of <b>owls" in seen.text
    assert "b" not in {tag for tag, _ in seen.elements}


def test_a_specialist_is_judged_and_searched_on_its_own_examples() -> None:
    site = Site()
    ingredients = site.logs("a", "b")
    found = told(ingredients, methods=("specialist:python",))
    own = Comparison("test of python", 70, 0.002, -0.003, 0.007, 0.95, None)
    (search,) = found.selections
    best = Step(named("own"), (ingredients[0].checkpoint.digest,), 0.95, None, kept=True)
    more = search.steps[-2:]
    found = replace(
        found,
        rows=(found.rows[0], replace(found.rows[1], own=own)),
        selections=(replace(search, method="specialist:python", steps=(best, *more)),),
        request=replace(found.request, model="birds"),
    )
    page = html(site.page(site.soup("soup", ingredients, told=found))).text
    assert "Than the best run of python not better on difference 95 % interval n test of python +0.20" in page
    assert "Than the best single candidate" not in page
    assert "The first is the one that decides" not in page
    assert "greedy kept" not in page, "the generalist's reasons"
    assert "a, the best run of python 95.00 95.00" in page
    assert "on validation, its examples of python alone, in points" in page
    both = replace(
        found.rows[1],
        methods=("specialist:python", "specialist:man"),
        own_beside={"man": replace(own, split="test of man", difference=0.004)},
    )
    two = replace(found, rows=(found.rows[0], both))
    page = html(site.page(site.soup("other", ingredients, told=two))).text
    assert "Than the best run of python, man not better" in page
    assert "test of man +0.40" in page
    assert "The first is the one that decides" not in page, "both do"


def test_barriers_are_what_is_remembered_and_the_rest_names_its_command() -> None:
    site = Site()
    version = soup(site, "one", "two", "three")
    recipe = site.page(version).recipe
    pairs, rests = midpoints(recipe), without_each(recipe)
    turned = Recipe.mean(pairs[1, 2].checkpoints[::-1])
    site.store.commit_score(turned, VALIDATION, Score((1.0, 1.0, 0.0)))
    around = site.page(version).neighbourhood
    assert [(one.first, one.second, one.midpoint) for one in around.barriers] == [
        (0, 1, None),
        (0, 2, None),
        (1, 2, 2 / 3),
    ]
    assert around.barriers[2].difference == pytest.approx(2 / 3 - (0.889 + 0.888) / 2)
    assert around.influences[0].without == 2 / 3, "of three ingredients, two are left"
    assert around.influences[0].difference == pytest.approx(0.9 - 2 / 3)
    assert (around.unknown_barriers, around.unknown_influences) == (2, 2)
    text = html(site.page(version)).text
    assert f"stockpot report {version.uri} --barriers" in text
    assert f"stockpot report {version.uri} --influence" in text
    assert "-22.18" in text
    for one in (*pairs.values(), *rests.values()):
        site.store.commit_score(one, VALIDATION, Score((1.0, 1.0, 1.0)))
    assert "--barriers" not in html(site.page(version)).text


def test_without_one_of_its_ingredients_a_group_is_the_mean_of_the_others() -> None:
    a, b, c = (Digest(f"sha256:{letter * 64}") for letter in "abc")
    rule = OverlayRule("training", 8, "bn/1", a)
    soup = replace(Recipe.grouped([[a, b], [c]]), overlay=rule)
    assert without_each(soup) == {
        0: replace(Recipe.grouped([[b], [c]]), overlay=rule),
        1: replace(Recipe.grouped([[a], [c]]), overlay=rule),
        2: replace(Recipe.mean([a, b]), overlay=rule),
    }


def test_of_two_ingredients_each_is_what_is_left_without_the_other() -> None:
    site = Site()
    around = site.page(soup(site, "one", "two")).neighbourhood
    assert [one.without for one in around.influences] == [0.889, 0.89], "known since they were ranked"


def test_without_a_champion_the_page_says_so_and_names_the_gate() -> None:
    site = Site()
    version = soup(site, "one", "two")
    page = site.page(version)
    assert (page.championship.champion, page.championship.judgement) == (None, None)
    text = html(page).text
    assert "No version has the alias champion" in text
    assert f"stockpot gate {version.uri}" in text


def test_the_page_tells_what_the_gate_said_and_what_changed_since_the_champion() -> None:
    site = Site()
    one, two, three = site.logs("one", "two", "three")
    champion = cooked(site, [one, two], name="champion")
    version = cooked(site, [one, three], name="challenger")
    site.tracker.point_alias("birds", "champion", champion.version)
    assert "Nobody has compared it with that one on record" in html(site.page(version)).text
    site.decide(version, champion)
    page = site.page(version)
    assert page.championship.is_current
    changes = page.championship.changes
    assert changes is not None
    assert [[c.run.name for c in runs] for runs in (changes.added, changes.removed)] == [["three"], ["two"]]
    assert changes.kept == 1
    assert {one.split: one.same_question for one in changes.scores}["test"]
    text = html(page).text
    assert "it must lie above -0.5 points" in text
    assert "Nobody has compared it" not in text
    assert f"What is different since {champion.uri}" in text
    assert f"stockpot promote {champion.uri} --reason 'rolled back: why'" in text


def test_a_word_against_another_champion_or_about_other_weights_is_not_this_ones() -> None:
    site = Site()
    former, version = (soup(site, f"{name} 1", f"{name} 2", name=name) for name in ("former", "version"))
    now = soup(site, "now 1", "now 2", name="now")
    site.tracker.point_alias("birds", "champion", now.version)
    site.decide(version, now, version=JudgedVersion(version.uri, named("other weights under this number")))
    assert site.page(version).championship.judgement is None
    site.decide(version, former)
    page = site.page(version)
    assert page.championship.judgement is not None
    assert not page.championship.is_current
    assert "That is not who has the alias now" in html(page).text
    site.decide(version, now)
    assert site.page(version).championship.is_current, "the last word counts"


def test_of_the_champion_the_page_tells_by_which_word_it_came_and_since_whom() -> None:
    site = Site()
    former, version = (soup(site, f"{name} 1", f"{name} 2", name=name) for name in ("former", "version"))
    site.decide(version, former)
    site.tracker.point_alias("birds", "champion", version.version)
    page = site.page(version)
    assert page.championship.reigns
    assert page.championship.changes is not None
    assert page.championship.changes.since == former.uri
    assert "It is the champion" in html(page).text


def test_nothing_is_known_of_how_a_strangers_champion_was_made() -> None:
    site = Site()
    version = soup(site, "one", "two")
    site.tracker.versions_kept["birds"].append(ModelVersion("birds", "7", None, None, {}))
    site.tracker.point_alias("birds", "champion", "7")
    championship = site.page(version).championship
    assert championship.changes is None
    assert "models:/birds/7 is no soup of Stockpot's" in html(site.page(version)).text


def test_deleted_runs_and_those_of_another_mlflow_are_told_as_such() -> None:
    site = Site()
    version = soup(site, "one", "two", "three")
    first, second, third = site.page(version).ingredients
    site.tracker.delete_run(first.run_id)
    del site.tracker.runs_kept[second.run_id]
    standings = [one.standing for one in site.page(version).ingredients]
    assert standings == [RunStanding.DELETED, RunStanding.GONE, RunStanding.THERE]
    text = html(site.page(version)).text
    assert "one deleted" in text
    assert "two not in this MLflow" in text
    assert third.name == "three"


def test_settings_are_those_in_which_ingredients_differ() -> None:
    site = Site()
    page = site.page(soup(site, "one", "two"))
    assert page.settings == ("lr", "name")
    assert [one.settings["lr"] for one in page.ingredients] == ["0.0", "0.1"]


def test_scores_of_another_unit_are_told_in_it() -> None:
    site = Site()
    text = html(site.page(soup(site, "one", "two", unit="nats"))).text
    assert "Scores are in nats" in text
    assert "+0.01 nats" in text


def test_a_uniform_soup_alone_has_a_page_that_calls_it_secondary() -> None:
    site = Site()
    text = html(site.page(soup(site, "one", "two", methods=("uniform",)))).text
    assert "secondary comparison: the declared one is that of the greedy soup" in text


def test_every_other_request_that_ended_in_the_soup_has_its_table() -> None:
    site = Site()
    ingredients = site.logs("one", "two")
    version = cooked(site, ingredients, name="soup")
    found = told(ingredients)
    asked = replace(found.request, model="birds", margin=-0.1)
    site.store.commit_report(replace(found, request=asked))
    page = site.page(version)
    assert page.report.request.margin == -0.1, "the newest is the page's own"
    (other,) = page.others
    assert other.report.request.margin == -0.5
    assert "Other requests that ended in this soup" in html(page).text


def test_the_table_of_another_request_has_rows_of_several_recipes_too() -> None:
    site = Site()
    ingredients = site.logs("one", "two")
    version = cooked(site, ingredients, name="soup")
    found = told(ingredients)
    recipes = tuple(Recipe.mean([one.checkpoint.digest]) for one in ingredients)
    routed = ReferenceRow("each asked about its domain", recipes, {"test": 0.5}, {})
    for margin in (-0.1, -0.2):
        asked = replace(found.request, model="birds", margin=margin)
        site.store.commit_report(replace(found, request=asked, references=(routed,)))
    page = site.page(version)
    other = next(one for one in page.others if one.report.references)
    assert other.report.request.margin == -0.1
    _, _, table = html(page).text.partition("Other requests that ended in this soup")
    assert "each asked about its domain" in table


def test_a_version_that_stockpot_never_made_is_refused() -> None:
    site = Site()
    site.tracker.versions_kept["birds"] = [ModelVersion("birds", "1", None, None, {})]
    with pytest.raises(BadRequest, match="models:/birds/1 is no soup: Stockpot did not register it"):
        version_page("models:/birds/1", site, "champion")


def test_the_page_of_a_copy_does_not_replace_the_originals() -> None:
    site = Site()
    version = soup(site, "one", "two")
    copy = site.tracker.copy_version(version.uri, "prod")
    reporter = Reporter(site, lambda _: PNG, render, lambda _: "champion")
    page = reporter.show(version)
    run = site.tracker.runs_kept[version.run_id or ""]
    assert run.files["report.html"] == reporter.html(page)
    with pytest.raises(BadRequest, match=rf"{copy.uri} is a copy of {version.uri}") as refused:
        reporter.show(copy)
    assert f"stockpot report {version.uri}" in refused.value.mend
    assert re.search(r"models:/prod/1", html(reporter.page(copy.uri)).text)


def test_a_version_with_copied_tags_does_not_replace_the_page_of_the_soup_whose_run_it_has() -> None:
    site = Site()
    victim, good = soup(site, "one", "two", name="victim"), soup(site, "three", "four", name="good")
    reporter = Reporter(site, lambda _: PNG, render, lambda _: "champion")
    reporter.show(victim)
    page = site.tracker.runs_kept[victim.run_id or ""].files["report.html"]
    forged = replace(good, version="7", run_id=victim.run_id)
    site.tracker.versions_kept["birds"].append(forged)
    with pytest.raises(BadRequest, match="tells of another soup than its run"):
        reporter.show(forged)
    assert site.tracker.runs_kept[victim.run_id or ""].files["report.html"] == page
