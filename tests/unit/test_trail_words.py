"""What an audit says of an entry."""

from dataclasses import replace

import pytest

from stockpot.cli.trails import told_of
from stockpot.documents import to_document
from stockpot.entities import (
    Check,
    CheckOutcome,
    Decision,
    GateScore,
    JudgedVersion,
    TrailDraft,
    TrailEntry,
    TrailKind,
    TrailOf,
    digest_of_bytes,
)

SEVEN = "models:/birds/7"
DIGEST = digest_of_bytes(b"any")
DECISION = Decision(
    model="birds",
    alias="champion",
    version=JudgedVersion("models:/birds/7", DIGEST, 9, (GateScore("test", DIGEST, DIGEST, 0.91376),)),
    champion=JudgedVersion("models:/birds/3", DIGEST, 9, (GateScore("test", DIGEST, DIGEST, 0.5),)),
    policy=DIGEST,
    suite=("test",),
    checks=(Check("bytes", CheckOutcome.PASSED, "ok"), Check("size", CheckOutcome.FAILED, "9 > 8")),
)


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (
            DECISION,
            f"{SEVEN} against models:/birds/3, for champion: failed; size: 9 > 8; test 91.38 after 50.00",
        ),
        (
            replace(DECISION, champion=None, override="why"),
            f"{SEVEN} against nobody, for champion: overridden; size: 9 > 8; test 91.38; overridden: why",
        ),
        (
            replace(DECISION, checks=DECISION.checks[:1]),
            f"{SEVEN} against models:/birds/3, for champion: passed; test 91.38 after 50.00",
        ),
    ],
)
def test_a_decision_is_told_with_its_verdict_and_what_it_rests_on(decision: Decision, told: str) -> None:
    fact = {**to_document(decision), "verdict": decision.verdict.value}
    entry = TrailEntry.of(TrailOf("birds", 1), TrailDraft(TrailKind.DECISION, fact), None, 1.0)
    assert told_of(entry) == told


def test_a_score_that_is_no_number_is_told() -> None:
    nan = replace(DECISION.version, scores=(replace(DECISION.version.scores[0], value=float("nan")),))
    fact = {**to_document(replace(DECISION, version=nan)), "verdict": "failed"}
    entry = TrailEntry.of(TrailOf("birds", 1), TrailDraft(TrailKind.DECISION, fact), None, 1.0)
    assert told_of(entry).endswith("; test nan after 50.00")


def test_a_decision_in_another_programs_words_is_told_as_far_as_it_is_plain() -> None:
    draft = TrailDraft(TrailKind.DECISION, {"verdict": "passed", "n": 719, "more": [1]})
    assert told_of(TrailEntry.of(TrailOf("birds", 1), draft, None, 1.0)) == "verdict passed, n 719"
