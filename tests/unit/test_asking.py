"""What people do in MLflow's pages is answered by the gate, once, and a click is never undone."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.gate_site import GOOD, WORSE, Site

from stockpot.documents import to_document
from stockpot.entities import Seen, TrailKind, WeightsSource, tags
from stockpot.errors import NoRoomForWeights, NotArrived, NotPermitted, StockpotError, TrackingError
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.promotion.asking import Answered, answer, sentence
from stockpot.workflow.promotion.policies import Policies, Policy
from stockpot.workflow.promotion.promote import Promoter
from stockpot.workflow.promotion.watching import look
from stockpot.workflow.trails import append

pytestmark = pytest.mark.usefixtures("one_thread")
POLICY = Policy(task="tiny", margin=-20)
POLICIES = Policies(Path("policies.toml"), {"tiny": POLICY, "nowhere": POLICY})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def answers(site: Site) -> tuple[Answered, ...]:
    """After a look, as the flow does it."""
    look(site.gate, models=["tiny"], seen=Seen.POLL)
    return answer(site.gate, POLICIES, site.promoter)


def champion(site: Site) -> str | None:
    return site.tracker.aliases.get(("tiny", "champion"))


def test_the_alias_for_candidates_asks_once_and_the_champion_moves(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(GOOD, alias="candidate")
    (one,) = answers(site)
    assert one.promotion is not None
    assert (one.promotion.moved, champion(site)) == (True, "2")
    assert one.told.startswith("models:/tiny/2, alias candidate in MLflow: champion of tiny moved from")
    assert answers(site) == ()


def test_a_candidate_that_fails_is_told_once_and_again_when_it_is_asked_for_again(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(WORSE, alias="candidate")
    (one,) = answers(site)
    assert one.promotion is not None
    assert (one.promotion.moved, champion(site)) == (False, "1")
    assert answers(site) == ()
    site.tracker.move_alias("tiny", "candidate", None)
    assert answers(site) == ()
    site.tracker.move_alias("tiny", "candidate", "2")
    assert [again.ask.uri for again in answers(site)] == ["models:/tiny/2"]


def test_two_approved_versions_that_are_as_good_take_no_turns(site: Site) -> None:
    approved = {tags.RECIPE: "sha256:0", tags.APPROVAL: "approved"}
    site.register(GOOD, approved)
    site.register(GOOD, {tags.APPROVAL: "approved"})  # which Stockpot never made
    site.register(GOOD, {**approved, tags.APPROVAL: "rejected"})
    assert [one.ask.why for one in answers(site)] == ["tag stockpot.approval in MLflow"] * 2
    assert champion(site) == "2"
    assert answers(site) == ()


def test_a_champion_that_was_moved_by_hand_is_judged_after_the_fact_and_stays(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(WORSE)
    assert answers(site) == ()
    site.tracker.move_alias("tiny", "champion", "2")
    (one,) = answers(site)
    assert one.decision is not None
    assert one.decision.champion is not None
    assert (one.decision.verdict, one.decision.champion.uri) == ("failed", "models:/tiny/1")
    assert one.told.endswith("alias champion moved by hand: the gate says failed; nothing was undone")
    assert champion(site) == "2"
    assert answers(site) == ()
    model = site.tracker.registered_model("tiny")
    assert model is not None
    newest = site.store.trail(model.trail)[-1]
    assert (newest.kind, newest.by) == (TrailKind.DECISION, "unknown")


def test_the_whole_pages_of_a_champion_by_hand_and_of_the_one_before_are_written_anew(site: Site) -> None:
    site.register(GOOD, {tags.ROLE: "soup"}, alias="champion")
    site.register(GOOD, {tags.ROLE: "soup"})
    answers(site)
    site.tracker.move_alias("tiny", "champion", "2")
    shown: list[str] = []
    look(site.gate, models=["tiny"], seen=Seen.POLL)
    answer(
        site.gate, POLICIES, lambda policy: replace(site.promoter(policy), show=lambda v: shown.append(v.uri))
    )
    assert shown == ["models:/tiny/2", "models:/tiny/1"]


def test_a_champion_whose_predecessor_was_deleted_is_judged_alone(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(GOOD)
    answers(site)
    site.tracker.move_alias("tiny", "champion", "2")
    site.tracker.remove_version("tiny", "1")
    (one,) = answers(site)
    assert one.decision is not None
    assert one.decision.champion is None


def test_a_promotion_by_us_is_not_judged_a_second_time(site: Site) -> None:
    from stockpot.workflow.promotion.promote import Mover

    site.register(GOOD, alias="champion")
    version = site.register(GOOD)
    assert site.promoter(POLICY).promote(version.uri, Mover("Ada", "newer"), Silent()).moved
    assert answers(site) == ()


def decisions(site: Site) -> int:
    """How many there are on record."""
    model = site.tracker.registered_model("tiny")
    assert model is not None
    return sum(entry.kind is TrailKind.DECISION for entry in site.store.trail(model.trail))


def test_a_version_that_passed_gets_the_alias_although_whoever_judged_it_was_stopped(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(GOOD, alias="candidate")
    for _ in range(2):
        look(site.gate, models=["tiny"])
        site.tracker.writable = False
        (refused,) = answer(site.gate, POLICIES, site.promoter)
        site.tracker.writable = True
        assert refused.fault
    assert (champion(site), decisions(site)) == ("1", 1)
    (one,) = answers(site)
    assert one.promotion is not None
    assert (one.promotion.moved, champion(site), decisions(site)) == (True, "2", 1)
    site.tracker.move_alias("tiny", "champion", "1")
    assert [found.ask.by_hand for found in answers(site)] == [True]
    assert champion(site) == "1", "a person's word is last"


def test_what_moved_since_the_look_is_answered_after_the_next_one(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(WORSE)
    look(site.gate, models=["tiny"])
    site.tracker.move_alias("tiny", "candidate", "2")
    assert answer(site.gate, POLICIES, site.promoter) == ()
    assert [len(answers(site)) for _ in range(2)] == [1, 0]


def test_two_that_answer_at_once_judge_each_version_once(site: Site) -> None:
    approved = {tags.RECIPE: "sha256:0", tags.APPROVAL: "approved"}
    for _ in range(2):
        site.register(GOOD, approved)
    look(site.gate, models=["tiny"])
    others: list[tuple[Answered, ...]] = []

    def promoter(policy: Policy) -> Promoter:
        """While this one begins, another process answers."""
        if not others:
            others.append(())
            others.append(answer(site.gate, POLICIES, site.promoter))
        return site.promoter(policy)

    assert len(answer(site.gate, POLICIES, promoter)) == 2
    assert (others[-1], decisions(site), champion(site)) == ((), 2, "2")


def test_a_version_that_needs_a_larger_device_keeps_nobody_from_an_answer(site: Site) -> None:
    approved = {tags.RECIPE: "sha256:0", tags.APPROVAL: "approved"}
    for _ in range(2):
        site.register(GOOD, approved)
    look(site.gate, models=["tiny"])
    full = iter([NoRoomForWeights("80 GB do not fit")])

    def promoter(policy: Policy) -> Promoter:
        for error in full:
            raise error
        return site.promoter(policy)

    found = answer(site.gate, POLICIES, promoter)
    assert [one.fault for one in found] == ["80 GB do not fit", ""]
    assert sentence(found) == "1 version judged; 1 version could not be, as the log tells"
    assert champion(site) == "2"


@pytest.mark.parametrize("fault", [NotArrived, NotPermitted, TrackingError])
def test_a_download_that_broke_off_is_no_answer(tmp_path: Path, fault: type[StockpotError]) -> None:
    class Breaks(MemoryTracker):
        """Hands out half of each file, until it is whole."""

        broken = True

        def fetch(self, source: WeightsSource, into: Path) -> Path:
            if self.broken:
                raise fault(f"{source.path} broke off")
            return super().fetch(source, into)

    tracker = Breaks()
    site = Site(tmp_path, tracker=tracker)
    site.register(GOOD, alias="candidate")
    for _ in range(2):
        (one,) = answers(site)
        assert one.fault == "model.safetensors broke off"
    assert decisions(site) == 0
    tracker.broken = False
    assert [one.fault for one in answers(site)] == [""]
    assert champion(site) == "1"


def test_a_version_that_got_the_number_of_a_deleted_one_asks_anew(site: Site) -> None:
    """By either of the two ways; where nobody looked between the two, an alias seems to stay."""
    site.register(GOOD, alias="champion")
    told = {tags.RECIPE: "sha256:0", tags.APPROVAL: "approved"}
    for count, asked in enumerate([None, None, told, told], start=1):
        version = site.register(WORSE, asked, alias=None if asked else "candidate")
        assert version.version == "2"
        assert [one.ask.uri for one in answers(site)] == ["models:/tiny/2"]
        assert answers(site) == ()
        assert decisions(site) == count
        site.tracker.remove_version("tiny", "2")
    assert champion(site) == "1"


def test_a_champion_by_hand_that_got_the_number_of_a_judged_one_is_judged(site: Site) -> None:
    site.register(GOOD, alias="champion")
    answers(site)
    for _ in range(2):
        site.register(WORSE, alias="champion")
        assert [one.ask.by_hand for one in answers(site)] == [True]
        assert answers(site) == ()
        site.tracker.remove_version("tiny", "2")


def test_a_decision_of_before_versions_were_dated_is_about_whichever_has_the_number(site: Site) -> None:
    version = site.register(WORSE, alias="candidate")
    look(site.gate, models=["tiny"])
    judged = site.promoter(POLICY).judge(version.uri)
    assert judged.version.created == version.created > 0
    fact = {**to_document(judged), "verdict": judged.verdict.value}
    fact["version"].pop("created")
    append(site.gate, "tiny", TrailKind.DECISION, {**fact, "verdict": "failed"}, by="an older release")
    assert answers(site) == ()


def test_a_champion_that_is_approved_asks_for_nothing(site: Site) -> None:
    site.register(GOOD, {tags.RECIPE: "sha256:0", tags.APPROVAL: "approved"}, alias="champion")
    assert [answers(site) for _ in range(2)] == [(), ()]
    assert decisions(site) == 0


def test_a_champion_that_moved_since_the_look_lets_a_candidate_wait_for_the_next_one(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(GOOD)
    site.register(GOOD, alias="candidate")
    look(site.gate, models=["tiny"])
    site.tracker.move_alias("tiny", "champion", "2")
    assert answer(site.gate, POLICIES, site.promoter) == ()
    assert (champion(site), decisions(site)) == ("2", 0)
    assert [one.ask.uri for one in answers(site)] == ["models:/tiny/3", "models:/tiny/2"]
