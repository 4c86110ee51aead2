"""Where a policy wants a person's word, nothing moves without it, and it counts for what he was shown."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.gate_site import GOOD, WORSE, Site

from stockpot.entities import Ask, Decision, Seen, TrailEntry, TrailKind, tags
from stockpot.errors import BadRequest, Busy
from stockpot.workflow.promotion.asking import Answered, answer, is_open
from stockpot.workflow.promotion.persons import Word, form, name_of, settle
from stockpot.workflow.promotion.policies import Policies, Policy
from stockpot.workflow.promotion.watching import look

pytestmark = pytest.mark.usefixtures("one_thread")
POLICY = Policy(task="tiny", margin=-20, confirm="prefect")
POLICIES = Policies(Path("policies.toml"), {"tiny": POLICY})
YES, NO = Word(promote=True, who="Ada", reason="seen"), Word(promote=False, who="Bo", reason="not before May")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def asked(site: Site) -> tuple[list[Ask], tuple[Answered, ...]]:
    """What people are asked after a look, and what was answered without them."""
    found: list[Ask] = []

    def ask_person(ask: Ask) -> str:
        found.append(ask)
        return "a form"

    look(site.gate, models=["tiny"], seen=Seen.POLL)
    return found, answer(site.gate, POLICIES, site.promoter, ask_person)


def shown(site: Site, uri: str) -> Decision:
    return site.promoter(POLICY).judge(uri)


def champion(site: Site) -> str | None:
    return site.tracker.aliases.get(("tiny", "champion"))


def entries(site: Site, kind: TrailKind) -> list[TrailEntry]:
    model = site.tracker.registered_model("tiny")
    assert model is not None
    return [entry for entry in site.store.trail(model.trail) if entry.kind is kind]


def test_nothing_moves_until_a_person_said_yes_who_then_stands_in_the_trail(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(GOOD, alias="candidate")
    (ask,), done = asked(site)
    assert (ask.uri, done, champion(site), entries(site, TrailKind.DECISION)) == (version.uri, (), "1", [])
    assert [again.name for again in asked(site)[0]] == [ask.name], "as long as nobody has answered"
    assert is_open(site.gate, "tiny", POLICY, ask.name)
    promotion = settle(site.promoter(POLICY), shown(site, version.uri), YES)
    assert (promotion.moved, champion(site)) == (True, "2")
    (decision,), move = entries(site, TrailKind.DECISION), entries(site, TrailKind.MOVE)[-1]
    assert {(one.by, one.reason) for one in (decision, move)} == {("Ada", "seen")}
    assert asked(site) == ([], ())
    assert not is_open(site.gate, "tiny", POLICY, ask.name)
    settle(site.promoter(POLICY), shown(site, version.uri), YES)
    assert len(entries(site, TrailKind.DECISION)) == 1, "an answer that comes twice"


def test_a_no_is_kept_and_answers_until_it_is_asked_for_anew(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(GOOD, {tags.ROLE: "soup"}, alias="candidate")
    (ask,), _ = asked(site)
    written: list[str] = []
    promoter = replace(site.promoter(POLICY), show=lambda page: written.append(page.uri))
    promotion = settle(promoter, shown(site, version.uri), NO)
    assert (promotion.moved, champion(site), written) == (False, "1", [version.uri])
    (entry,) = entries(site, TrailKind.DECISION)
    assert (entry.by, entry.fact["verdict"]) == ("Bo", "failed")
    assert entry.fact["checks"][-1]["told"] == "Bo says no: not before May"
    assert asked(site) == ([], ())
    site.tracker.move_alias("tiny", "candidate", None)
    asked(site)
    site.tracker.move_alias("tiny", "candidate", "2")
    (again,), _ = asked(site)
    assert again.name != ask.name


def test_a_yes_to_what_failed_keeps_the_reason_as_that_of_an_override(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(WORSE, alias="candidate")
    asked(site)
    decision = shown(site, version.uri)
    told = form(decision, "alias candidate in MLflow")
    assert told.startswith("## models:/tiny/2 as champion, in place of models:/tiny/1: failed\n")
    assert "- **score** failed: " in told
    assert "A yes moves the alias although checks failed" in told
    assert settle(site.promoter(POLICY), decision, YES).moved
    (entry,) = entries(site, TrailKind.DECISION)
    assert (entry.fact["verdict"], entry.fact["override"]) == ("overridden", "seen")


def test_a_yes_counts_for_what_was_shown_alone(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(GOOD)
    version = site.register(GOOD, alias="candidate")
    asked(site)
    decision = shown(site, version.uri)
    assert name_of(shown(site, version.uri)) == name_of(decision)
    site.tracker.move_alias("tiny", "champion", "2")
    with pytest.raises(Busy, match="another by now than what was shown"):
        settle(site.promoter(POLICY), decision, YES)
    assert (champion(site), entries(site, TrailKind.DECISION)) == ("2", [])
    assert name_of(shown(site, version.uri)) != name_of(decision)
    (ask, *_), done = asked(site)
    assert ask.uri == version.uri
    assert [one.ask.by_hand for one in done] == [True], "a hand's move is judged as ever"


def test_a_version_that_was_deleted_meanwhile_is_nobodys_to_answer(site: Site) -> None:
    version = site.register(GOOD, alias="candidate")
    (ask,), _ = asked(site)
    decision = shown(site, version.uri)
    site.tracker.remove_version("tiny", "1")
    for word in (YES, NO):
        with pytest.raises(BadRequest):
            settle(site.promoter(POLICY), decision, word)
    look(site.gate, models=["tiny"])
    assert not is_open(site.gate, "tiny", POLICY, ask.name)
    assert entries(site, TrailKind.DECISION) == []


def test_where_nobody_can_be_asked_it_waits_and_a_policy_knows_prefect_alone(site: Site) -> None:
    site.register(GOOD, alias="candidate")
    look(site.gate, models=["tiny"])
    assert answer(site.gate, POLICIES, site.promoter) == ()
    assert champion(site) is None
    with pytest.raises(BadRequest, match="confirm must be"):
        Policy(task="tiny", confirm="slack")


def test_who_cannot_be_asked_is_a_fault_of_that_ask_alone(site: Site) -> None:
    site.register(GOOD, alias="candidate")
    look(site.gate, models=["tiny"])

    def ask_person(ask: Ask) -> str:
        raise BadRequest(f"{ask.uri}: no deployment")

    (done,) = answer(site.gate, POLICIES, site.promoter, ask_person)
    assert (done.fault, champion(site)) == ("models:/tiny/1: no deployment", None)
    assert [ask.uri for ask in asked(site)[0]] == ["models:/tiny/1"], "it is asked for still"


def test_a_form_holds_no_markup_of_others(site: Site) -> None:
    version = site.register({"<b>.safetensors": b"x"})
    told = form(shown(site, version.uri), "alias *candidate*")
    assert "<b>" not in told
    assert "*candidate*" not in told
