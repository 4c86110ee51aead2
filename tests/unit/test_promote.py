"""An alias moves once, from the version that was judged against, and only where the gate lets it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from tests.unit.gate_site import GOOD, WORSE, Site, tagged

from stockpot.documents import from_document
from stockpot.entities import Decision, GateVerdict, ModelVersion, TrailEntry, TrailKind, tags
from stockpot.errors import BadRequest, Busy, GateFailed, NotPermitted, StoreError
from stockpot.testing.signers import PlainVerifier
from stockpot.testing.tiny import weights
from stockpot.watching import Lines, Silent
from stockpot.workflow.promotion.gate import Gate
from stockpot.workflow.promotion.policies import Policy
from stockpot.workflow.promotion.promote import TRIES, Mover, Promoter, Promotion, require_alias

pytestmark = pytest.mark.usefixtures("one_thread")
WHO = Mover("Ada on this host", "better in fog")
EASY = Policy(task="tiny", margin=-20)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def champion(site: Site) -> str | None:
    return site.tracker.aliases.get(("tiny", "champion"))


def trail(site: Site) -> tuple[TrailEntry, ...]:
    found = site.tracker.registered_model("tiny")
    return () if found is None else site.store.trail(found.trail)


class Meddled(Gate):
    """Somebody does something right after each judgement."""

    meddle: Callable[[], None]

    def judge(
        self, version: ModelVersion, champion: ModelVersion | None, policy: Policy, override: str = ""
    ) -> Decision:
        decision = super().judge(version, champion, policy, override)
        self.meddle()
        return decision


def meddled(site: Site, meddle: Callable[[], None]) -> Promoter:
    gate = Meddled(site.tracker, site.store, site.supply, site.bench, Silent(), PlainVerifier())
    object.__setattr__(gate, "meddle", meddle)
    return Promoter(gate, EASY)


def promote(promoter: Promoter, uri: str, who: Mover = WHO) -> Promotion:
    return promoter.promote(uri, who, Silent())


def test_a_version_that_passes_gets_the_alias_and_its_page_tells_what_the_gate_said(site: Site) -> None:
    before, version = site.register(GOOD, alias="champion"), site.register(GOOD, {"stockpot.alias": "x"})
    done = promote(site.promoter(EASY), version.uri)
    kinds = [entry.kind for entry in trail(site)]
    assert kinds == [TrailKind.WATCH, TrailKind.DECISION, TrailKind.MOVE]
    _, decided, moved = trail(site)
    assert {(entry.by, entry.reason) for entry in (decided, moved)} == {(WHO.by, WHO.reason)}
    assert from_document(Decision, decided.fact) == done.decision
    assert decided.fact["verdict"] == "passed"
    assert (moved.fact["before"], moved.fact["after"], moved.fact["seen"]) == ("1", "2", "promote")
    assert (done.moved, done.before, champion(site)) == (True, before.uri, "2")
    assert done.told == "champion of tiny moved from models:/tiny/1 to models:/tiny/2"
    told = dict(site.tracker.version(version.uri).tags)
    assert told.pop("stockpot.gate").startswith(f"{version.uri} passed for champion, beside {before.uri}, ")
    assert told == {"stockpot.alias": "x"}
    done.require_moved()


def test_the_whole_pages_of_soups_that_were_judged_are_written_anew(site: Site) -> None:
    """Theirs alone: a copy has none, nor what others made. One that cannot be written stops nothing."""
    shown: list[str] = []
    ours = {tags.ROLE: "soup"}
    before, version = site.register(GOOD, ours, alias="champion"), site.register(GOOD, ours)

    def show(found: ModelVersion) -> None:
        shown.append(f"{found.uri}, champion {champion(site)}")
        raise ZeroDivisionError

    answering, said = Mover("Ada", "a leak", override="legal asks"), list[str]()
    promoter = replace(site.promoter(EASY), show=show)
    assert promoter.promote(version.uri, answering, Lines(said.append)).moved
    assert shown == [f"{version.uri}, champion 2", f"{before.uri}, champion 2"]
    assert f"stockpot report {version.uri}" in " ".join(said)
    assert promoter.promote(site.register(GOOD).uri, answering, Silent()).moved
    assert shown[2:] == [f"{version.uri}, champion 3"]


def test_the_second_time_nothing_is_judged_and_nothing_moves(site: Site) -> None:
    version = site.register(GOOD)
    first, second = (promote(site.promoter(), version.uri) for _ in range(2))
    assert (first.moved, first.before, first.decision is None) == (True, None, False)
    assert (second.moved, second.before, second.decision) == (False, version.uri, None)
    assert len(trail(site)) == 3
    assert second.told == "models:/tiny/1 is champion already: nothing was judged, and nothing moved"
    second.require_moved()


def test_a_version_that_fails_moves_nothing(site: Site) -> None:
    site.register(GOOD, alias="champion")
    done = promote(site.promoter(), site.register(WORSE).uri)
    assert (done.moved, champion(site)) == (False, "1")
    assert done.told == "champion of tiny stays with models:/tiny/1"
    assert [entry.fact.get("verdict") for entry in trail(site)][1:] == ["failed"]
    assert done.decision is not None
    (fault,) = done.decision.failed
    told = site.tracker.version("models:/tiny/2").tags["stockpot.gate"]
    assert told.startswith("models:/tiny/2 failed for champion, beside models:/tiny/1, ")
    assert told.endswith(f" UTC. score: {fault.told}")
    with pytest.raises(GateFailed, match=r"models:/tiny/2 may not be champion"):
        done.require_moved()


def test_a_person_who_answers_for_it_moves_the_alias_all_the_same(site: Site) -> None:
    site.register(GOOD, alias="champion")
    done = promote(site.promoter(), site.register(WORSE).uri, Mover("Ada", "a leak", override="legal asks"))
    assert (done.moved, champion(site)) == (True, "2")
    assert done.decision is not None
    assert (done.decision.verdict, done.decision.override) == (GateVerdict.OVERRIDDEN, "legal asks")
    assert [check.name for check in done.decision.failed] == ["score"]


def test_an_alias_that_was_moved_by_hand_meanwhile_is_judged_against_anew(site: Site) -> None:
    site.register(WORSE, alias="champion")
    better, version = site.register(GOOD), site.register(weights(seed=9, spread=2.0))
    moves = iter([better.version])

    def move_once() -> None:
        for moved in moves:
            site.tracker.point_alias("tiny", "champion", moved)

    done = promote(meddled(site, move_once), version.uri)
    assert (done.moved, champion(site)) == (False, better.version)
    assert done.decision is not None
    assert done.decision.champion is not None
    assert done.decision.champion.uri == better.uri


def test_an_alias_that_keeps_moving_is_left_alone_and_said(site: Site) -> None:
    versions = [site.register(weights(seed=seed)) for seed in range(3)]
    turns = iter(versions * TRIES)

    def move() -> None:
        site.tracker.point_alias("tiny", "champion", next(turns).version)

    with pytest.raises(Busy, match=r"champion of tiny was moved 5 times while models:/tiny/4 was judged"):
        promote(meddled(site, move), site.register(GOOD).uri)


def test_a_version_that_is_deleted_meanwhile_is_told_and_the_alias_stays(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(GOOD)

    def delete() -> None:
        del site.tracker.versions_kept["tiny"][1]

    with pytest.raises(BadRequest, match="models:/tiny/2"):
        promote(meddled(site, delete), version.uri)
    assert champion(site) == "1"
    with pytest.raises(BadRequest, match="models:/tiny/2"):
        promote(site.promoter(), version.uri)


def test_another_version_that_got_the_number_meanwhile_is_judged_itself(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(GOOD)
    once = iter([WORSE])

    def replace_it() -> None:
        for other in once:
            del site.tracker.versions_kept["tiny"][1]
            assert site.register(other).uri == version.uri

    assert not promote(meddled(site, replace_it), version.uri).moved
    assert champion(site) == "1"


def test_who_lost_the_lease_meanwhile_moves_nothing(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(GOOD)

    def take_over() -> None:
        site.store._leases.clear()

    with pytest.raises(StoreError, match="took over the promotion of tiny"):
        promote(meddled(site, take_over), version.uri)
    assert champion(site) == "1"


def test_of_two_at_once_the_second_is_judged_against_the_first(site: Site) -> None:
    site.register(GOOD, alias="champion")
    versions, ready = [site.register(GOOD), site.register(GOOD)], Barrier(2)

    def one(version: ModelVersion) -> Promotion:
        ready.wait(30)
        return promote(site.promoter(EASY), version.uri)

    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(pool.map(one, versions), key=lambda done: str(done.before))
    assert (first.before, second.before) == ("models:/tiny/1", first.version)
    assert f"models:/tiny/{champion(site)}" == second.version


def test_who_and_why_are_said_in_words_that_can_be_kept() -> None:
    with pytest.raises(BadRequest, match="--by is empty; --reason is empty"):
        Mover(" ", "")
    with pytest.raises(BadRequest, match="--override holds a NUL"):
        Mover("Ada", "why", override="\0")


def test_another_alias_than_the_policys_is_refused(site: Site) -> None:
    require_alias(None, EASY, "tiny")
    require_alias("champion", EASY, "tiny")
    with pytest.raises(BadRequest, match="guards the alias champion, not staging") as error:
        require_alias("staging", EASY, "tiny")
    assert "--to champion" in error.value.mend
    assert site.tracker.aliases == {}


def test_the_champion_itself_is_judged_alone(site: Site) -> None:
    decision = site.judge(site.register(GOOD, tagged(GOOD), alias="champion"))
    assert decision.champion is None
    assert not decision.failed, "compared with itself it was not shown to be no worse"


def test_a_page_that_takes_no_tag_is_told_and_the_alias_moves(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(version: ModelVersion, tag: str, value: str) -> None:
        raise NotPermitted(f"{tag} of {version.uri}", mend="ask for it")

    monkeypatch.setattr(site.tracker, "tag_version", refuse)
    said: list[str] = []
    gate = replace(site.gate, watch=Lines(said.append))
    assert promote(Promoter(gate, EASY), site.register(GOOD).uri).moved
    assert any("the page of models:/tiny/1 does not tell what the gate said" in line for line in said)


def test_the_page_of_a_soup_tells_the_gates_last_word_behind_the_verdict_and_no_other_page_is_touched(
    site: Site,
) -> None:
    soup, other = site.register(GOOD, {"stockpot.recipe": "sha256:0"}), site.register(GOOD)
    pages = site.tracker.descriptions
    pages[soup.uri] = "**greedy soup: better**\n\nThe average of 3\n\nAda: *looked at*"
    pages[other.uri] = "Bob's"
    for version in (other, soup, other, soup):
        promote(site.promoter(EASY), version.uri)
    verdict, gate, *rest = pages[soup.uri].split("\n\n")
    assert verdict == "**greedy soup: better**"
    assert gate.startswith("**The gate:** models:/tiny/1 passed for champion, beside models:/tiny/2, ")
    assert rest == ["The average of 3", "Ada: *looked at*"]
    assert pages[other.uri] == "Bob's"


def test_where_a_person_wrote_the_page_the_gates_word_opens_it(site: Site) -> None:
    site.register(GOOD, alias="champion")
    soup = site.register(WORSE, {"stockpot.recipe": "sha256:0"})
    mine = "- see #7\n\n```\n\ncode\n```"
    site.tracker.descriptions[soup.uri] = mine
    for _ in range(2):
        promote(site.promoter(), soup.uri)
    gate, _, rest = site.tracker.descriptions[soup.uri].partition("\n\n")
    assert gate.startswith("**The gate:** models:/tiny/2 failed for champion, beside models:/tiny/1, ")
    assert "score: " in gate
    assert rest == mine
