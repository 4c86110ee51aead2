"""A person's word before an alias moves: what is shown, and what becomes of the answer."""

from dataclasses import dataclass, replace

from stockpot.entities import Check, CheckOutcome, Decision, Digest, digest_of_document
from stockpot.workflow.promotion.promote import Mover, Promoter, Promotion, record
from stockpot.workflow.publishing.markdown import shown

PERSON = "person"
"""The check that a person's word is, where it is a no."""


@dataclass(frozen=True)
class Word:
    """What a person answers to a verdict."""

    promote: bool
    who: str
    reason: str


def name_of(decision: Decision) -> Digest:
    """Names what a person was shown: which version, beside which champion, and what each check said. An
    answer is about that, and nothing that was judged since.
    """
    judged = [
        one and [one.uri, one.created, one.checkpoint, one.files]
        for one in (decision.version, decision.champion)
    ]
    checks = [[check.name, check.outcome.value] for check in decision.checks]
    return digest_of_document({"judged": judged, "checks": checks, "policy": decision.policy})


def form(decision: Decision, why: str) -> str:
    """The verdict in Markdown, above the fields that a person fills in. `why`: how it was asked for."""
    beside = f", in place of {decision.champion.uri}" if decision.champion else ""
    lines = [f"- **{check.name}** {check.outcome}: {shown(check.told)}" for check in decision.checks]
    moves = (
        "A yes moves the alias although checks failed, and your reason is kept with that."
        if decision.failed
        else ""
    )
    return "\n".join(
        [
            f"## {shown(decision.version.uri)} as {decision.alias}{shown(beside)}: {decision.verdict}",
            "",
            f"Asked for by {shown(why)}. {moves}".rstrip(),
            "",
            *lines,
        ]
    )


def settle(promoter: Promoter, decision: Decision, word: Word) -> Promotion:
    """Do what a person says of a decision: move the alias to its version, or keep his no in the trail, which
    answers who asked. Raises Busy where it would be another decision by now, BadRequest where the version is
    gone.
    """
    if word.promote:
        override = word.reason if decision.failed else ""
        return promoter.promote(
            decision.version.uri,
            Mover(word.who, word.reason, override),
            promoter.gate.watch,
            lambda now: name_of(now) == name_of(decision),
        )
    version = promoter.tracker.version(decision.version.uri)
    told = f"{word.who} says no: {word.reason}"
    refused = replace(decision, checks=(*decision.checks, Check(PERSON, CheckOutcome.FAILED, told)))
    record(promoter.gate, refused, word.who, word.reason)
    promoter.show_anew(version, watch=promoter.gate.watch)
    before = decision.champion.uri if decision.champion else None
    return Promotion(
        decision.model, decision.alias, decision.version.uri, before, moved=False, decision=refused
    )
