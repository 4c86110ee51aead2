"""The page of a version: what strangers wrote is text on it, and nothing of it is hidden."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    Checkpoint,
    Comparison,
    Digest,
    Recipe,
    ReportRow,
    Run,
    Selection,
    SoupReport,
    SoupRequest,
    WeightsFormat,
    WeightsSource,
)
from stockpot.workflow.publishing.markdown import folded, shown
from stockpot.workflow.publishing.page import GATE, LIMIT, description, with_word_of_the_gate
from stockpot.workflow.publishing.verdict import sentence

A, B = (Digest(f"sha256:{letter * 64}") for letter in "ab")
HOSTILE = [
    "**better than the best single candidate: +9.99 points**",
    "[click](http://evil.example)",
    "![seen](http://evil.example/pixel.png)",
    "x\n\n# Approved\n\ny",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "http://evil.example/login",
    "www.evil.example",
    "mail@evil.example",
    "{run_id} {version}",
    "a | b | c",
    "`code` ``more``",
    "&lt;b&gt; &#42;",
    "1. one",
    "- item",
    "> quote",
    "x\\",
    "\u202eevil\u202c",
    "~~gone~~ ==mark== ^up^",
    "[ref]: http://evil.example",
    "---",
    "y" * 4600,
]
PLAIN = {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}


def _parsed(text: str) -> list[Any]:
    """With HTML, and with what most dialects have besides."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def _kinds(text: str) -> set[str]:
    tokens = _parsed(text)
    inline = [child for token in tokens for child in token.children or ()]
    return {token.type for token in (*tokens, *inline)}


def _text(text: str) -> str:
    inline = [child for token in _parsed(text) for child in token.children or ()]
    return "".join(token.content for token in inline if token.type in ("text", "text_special"))


@pytest.mark.parametrize("name", HOSTILE)
@given(more=st.text(max_size=20))
@settings(max_examples=20, deadline=None)
def test_a_name_is_shown_as_it_was_written_and_makes_nothing_else(name: str, more: str) -> None:
    for text in (name, name + more, more + name, f"- [{name}]"):
        for place in ("ran {} here", "{} here", "ran\n{}"):
            assert _kinds(place.format(shown(text))) <= PLAIN | {"softbreak"}
        assert not re.search(r"\w://|www\.\w|\w@\w", shown(text)), "no bare address becomes a link"
        assert _text(f"ran {shown(text)} here") == f"ran {folded(text)} here"


@given(st.text(max_size=200))
@example("\x00\ud800")
@settings(max_examples=300, deadline=None)
def test_any_text_is_one_line_of_what_can_be_seen(text: str) -> None:
    assert "\n" not in shown(text)
    assert len(folded(text)) <= 80
    assert _text(shown(f"x{text}x")) == folded(f"x{text}x")


def _candidate(number: int, name: str) -> Candidate:
    run = Run(f"{number:032x}", name, "7", "FINISHED", number, {}, {}, {})
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1)
    return Candidate(run, source, "", Checkpoint(Digest(f"sha256:{number:064x}"), 1, (), A))


def _gain(split: str, low: float, high: float) -> Comparison:
    return Comparison(split, 540, (low + high) / 2, low, high, 0.95, None)


def _report(
    methods: tuple[str, ...] = ("greedy",), split: str = "test", model: str = "birds"
) -> tuple[SoupReport, ReportRow]:
    request = SoupRequest(model=model, task="t", sweep="s", shifts=("fog",), report_on=split)
    scores = {"validation": 0.9, split: 0.8, "fog": 0.5, MEAN_OF_SHIFTS: 0.5}
    gains = {split: _gain(split, -0.004, 0.02), MEAN_OF_SHIFTS: _gain(MEAN_OF_SHIFTS, 0.0066, 0.0246)}
    row = ReportRow(f"{methods[0]} soup", methods, Recipe.mean([A, B]), scores, gains)
    best = replace(row, label="best single", methods=(), recipe=Recipe.mean([A]), versus_best={})
    found = Selection("greedy", "not_worse", (), row.recipe, 0.9)
    return SoupReport(request, (best, row), (found,), (), (), ()), row


def test_groups_that_count_the_same_are_told() -> None:
    report, row = _report()
    assert "The average of 2 fine-tuned models, selected by greedy" in description(report, row, [], "f.png")
    row = replace(row, recipe=Recipe.grouped([[A], [B, Digest(f"sha256:{'c' * 64}")]]))
    told = description(replace(report, rows=(*report.rows[:1], row)), row, [], "f.png")
    assert (
        "The average of 3 fine-tuned models in 2 groups, each of which counts the same, selected by" in told
    )


def test_no_name_makes_a_link_a_heading_or_a_verdict_on_the_page() -> None:
    report, row = _report()
    innocent = description(report, row, [_candidate(n, f"tune-{n}") for n in range(len(HOSTILE))], "f.png")
    hostile = description(report, row, [_candidate(n, name) for n, name in enumerate(HOSTILE)], "f.png")
    shape = [token.type for token in _parsed(innocent)]
    assert [token.type for token in _parsed(hostile)] == shape
    links = [c for t in _parsed(hostile) for c in t.children or () if c.type == "link_open"]
    assert len(links) == len(HOSTILE), "a link per ingredient, to its run"
    assert all(str(link.attrs["href"]).startswith("#/experiments/7/runs/") for link in links)
    assert hostile.count("{run_id}") == innocent.count("{run_id}") == 1
    assert hostile.count("{version}") == innocent.count("{version}") == 2


def test_the_name_of_a_split_makes_nothing_either() -> None:
    report, row = _report(split="x | y <b> [z](http://evil.example)")
    assert "link_open" not in _kinds(description(report, row, [], "f.png"))
    assert "html_inline" not in _kinds(description(report, row, [], "f.png"))


def test_the_verdict_tells_test_and_shift_and_which_is_secondary() -> None:
    _, row = _report()
    assert sentence(row, "test", None) == (
        "greedy soup: not shown to be better than the best single candidate: "
        "+0.80 points (95% interval -0.40 to +2.00, n = 540) on split test; "
        "better under shift: +1.56 points (95% interval +0.66 to +2.46, n = 540), a secondary comparison"
    )


def test_declared_before_anything_was_measured_stands_on_the_primary_comparison_alone() -> None:
    greedy, uniform = (description(*_report(methods), [], "f.png") for methods in (("greedy",), ("uniform",)))
    assert "declared before anything was measured" in greedy
    assert "declared before anything was measured" not in uniform
    assert "secondary comparison: the declared one is that of the greedy soup" in uniform


@pytest.mark.parametrize(
    ("requests", "told"), [(2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st")]
)
def test_requests_on_one_report_split_are_counted_and_told(requests: int, told: str) -> None:
    assert f"the {told} request on split test" in description(*_report(), [], "f.png", requests)
    assert "request on split" not in description(*_report(), [], "f.png", 1)


def test_the_page_tells_how_to_load_this_very_version() -> None:
    text = description(*_report(model="bi`rd{version}s".replace("version", "")), [], "f.png")
    assert '`mlflow.pyfunc.load_model("models:/birds/{version}")`' in text


@pytest.mark.parametrize("length", [0, 4000, 4500, 4850, 4990, 5000])
def test_the_word_of_the_gate_takes_no_room_from_what_a_person_wrote(length: int) -> None:
    """MLflow takes no more than that, and what is longer would be cut."""
    written = ("a note of Ada's " * 400)[:length]
    once = with_word_of_the_gate(written, "models:/birds/3 failed for champion. " + "score: & " * 200)
    assert len(once) <= LIMIT
    assert written in once
    assert (GATE in once) == (length < 4900)
    twice = with_word_of_the_gate(once, "models:/birds/3 passed for champion")
    assert written in twice
    assert "failed" not in twice
    assert twice.count(GATE) <= 1
