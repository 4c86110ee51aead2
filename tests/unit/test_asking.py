"""What people do in MLflow's pages is answered by the gate, once, and a click is never undone."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.gate_site import GOOD, WORSE, Site

from stockpot.documents import to_document
from stockpot.entities import Digest, FailedAsk, Seen, TrailKind, WeightsSource, backoff, tags
from stockpot.entities.ask import DAY
from stockpot.errors import Busy, NoRoomForWeights, NotArrived, NotPermitted, StockpotError, TrackingError
from stockpot.store import MemoryStore
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


class MovedClock(MemoryStore):
    """A store whose clock the test sets forward."""

    ahead = 0.0

    def clock(self) -> float:
        return super().clock() + self.ahead


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, store=MovedClock())


def later(site: Site, seconds: float) -> None:
    assert isinstance(site.store, MovedClock)
    site.store.ahead += seconds


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
        assert not refused.waits
        for _ in range(5):  # somebody looks every few minutes
            later(site, 300)
            look(site.gate, models=["tiny"])
    assert (champion(site), decisions(site)) == ("1", 1)
    (one,) = answers(site)
    assert one.promotion is not None
    assert (one.promotion.moved, champion(site), decisions(site)) == (True, "2", 1)
    site.tracker.move_alias("tiny", "champion", "1")
    assert [found.ask.by_hand for found in answers(site)] == [True]
    assert champion(site) == "1", "a person's word is last"


def test_the_last_decision_answers_where_an_earlier_one_had_let_the_version_pass(site: Site) -> None:
    site.register(GOOD, alias="champion")
    site.register(GOOD, alias="candidate")
    look(site.gate, models=["tiny"])
    site.tracker.writable = False
    (stopped,) = answer(site.gate, POLICIES, site.promoter)
    site.tracker.writable = True
    assert stopped.fault
    strict = Policies(Path("policies.toml"), {"tiny": replace(POLICY, margin=20)})
    (failed,) = answer(site.gate, strict, site.promoter)
    assert failed.promotion is not None
    assert (failed.promotion.moved, decisions(site)) == (False, 2)
    assert answer(site.gate, strict, site.promoter) == ()


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


class Breaks(MemoryTracker):
    """Hands out no weights, until `fault` is None. `fetched`: what was asked for."""

    def __init__(self, fault: BaseException | None) -> None:
        super().__init__()
        self.fault = fault
        self.fetched: list[str] = []

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        self.fetched.append(source.uri)
        if self.fault is not None:
            raise self.fault
        return super().fetch(source, into)


def breaking(tmp_path: Path, fault: BaseException) -> tuple[Site, Breaks]:
    """A site with a candidate whose weights do not arrive."""
    tracker = Breaks(fault)
    site = Site(tmp_path, tracker=tracker, store=MovedClock())
    site.register(GOOD, alias="candidate")
    return site, tracker


@pytest.mark.parametrize("fault", [NotArrived, NotPermitted, TrackingError])
def test_a_download_that_broke_off_is_no_answer_and_is_tried_again_after_a_pause_that_grows(
    tmp_path: Path, fault: type[StockpotError]
) -> None:
    site, tracker = breaking(tmp_path, fault("it broke off"))
    for attempts, pause in enumerate((600, 1200, 2400), start=1):
        (one,) = answers(site)
        assert (one.fault, one.waits, len(tracker.fetched)) == ("it broke off", False, attempts)
        later(site, pause - 60)
        for _ in range(2):  # whichever process looks
            (one,) = answers(site)
            assert (one.fault, one.waits, len(tracker.fetched)) == ("it broke off", True, attempts)
            assert f"broke off; {attempts} attempt" in one.told
            assert "or as soon as it is asked for anew" in one.told
        assert sentence([one]) == "0 versions judged; 1 version will be tried again later"
        later(site, 120)
    assert decisions(site) == 0
    tracker.fault = None
    assert [one.fault for one in answers(site)] == [""]
    assert (champion(site), site.store.failed_asks()) == ("1", ())


def test_pauses_are_a_day_at_most_and_a_clock_that_was_set_back_makes_none_longer() -> None:
    assert [backoff(attempts) for attempts in (0, 1, 2, 8)] == [0, 600, 1200, 76800]
    assert backoff(9) == backoff(10**6) == DAY
    failed = FailedAsk(Digest("sha256:1"), "tiny", 1, "models:/tiny/1", "tag", "it broke off", 1, 9 * DAY)
    waits = [failed.waits(failed.failed_at + later) for later in (0, 599, 600, -DAY / 2, -DAY)]
    assert waits == [True, True, False, True, False]


def test_what_is_asked_for_anew_is_tried_at_once(tmp_path: Path) -> None:
    site, tracker = breaking(tmp_path, NotArrived("it broke off"))
    approved = site.register(GOOD, {tags.APPROVAL: "approved"})
    assert [(one.waits, one.ask.uri) for _ in range(2) for one in answers(site)] == [
        (waits, f"models:/tiny/{number}") for waits in (False, True) for number in (1, 2)
    ]
    tracker.fault = None
    for number in (None, "1"):
        site.tracker.move_alias("tiny", "candidate", number)
        found = {one.ask.uri: one.waits for one in answers(site)}
        assert found.pop("models:/tiny/2")
    assert found == {"models:/tiny/1": False}
    assert champion(site) == "1"
    for word in ("", "approved"):
        site.tracker.tag_version(approved, tags.APPROVAL, word)
        again = answers(site)
    assert [(one.ask.uri, one.waits) for one in again] == [("models:/tiny/2", False)]
    assert site.store.failed_asks() == ()


def test_another_policy_is_tried_at_once(tmp_path: Path) -> None:
    site, tracker = breaking(tmp_path, NotArrived("it broke off"))
    answers(site)
    mended = Policies(Path("policies.toml"), {"tiny": replace(POLICY, margin=-30)})
    (one,) = answer(site.gate, mended, site.promoter)
    assert (one.waits, len(tracker.fetched), len(site.store.failed_asks())) == (False, 2, 1)


def test_a_champion_by_hand_whose_weights_do_not_arrive_is_tried_again_after_a_pause(tmp_path: Path) -> None:
    tracker = Breaks(NotArrived("it broke off"))
    site = Site(tmp_path, tracker=tracker, store=MovedClock())
    site.register(GOOD)
    assert answers(site) == ()
    site.tracker.move_alias("tiny", "champion", "1")
    assert [[one.waits for one in answers(site)] for _ in range(2)] == [[False], [True]]
    later(site, 601)
    tracker.fault = None
    (one,) = answers(site)
    assert one.decision is not None


def test_a_fault_of_the_machine_ends_one_look_and_not_all_that_follow(tmp_path: Path) -> None:
    """The version that fills the disk each time keeps the others waiting for one look."""
    site, tracker = breaking(tmp_path, OSError(28, "No space left on device"))
    with pytest.raises(StockpotError, match="No space left on device"):
        answers(site)
    tracker.fault = None
    site.register(GOOD, {tags.APPROVAL: "approved"})
    full, other = answers(site)
    assert full.waits
    assert full.fault.endswith("cannot write a checkpoint: No space left on device")
    assert other.promotion is not None
    assert champion(site) == "2"


def test_whoever_is_told_to_end_has_not_failed(tmp_path: Path) -> None:
    site, _ = breaking(tmp_path, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        answers(site)
    assert site.store.failed_asks() == ()


def test_what_failed_stays_where_an_alias_was_moved_since_the_look(tmp_path: Path) -> None:
    site, _ = breaking(tmp_path, NotArrived("it broke off"))
    site.register(GOOD, {tags.APPROVAL: "approved"})
    answers(site)
    before = site.store.failed_asks()
    assert len(before) == 2
    site.tracker.move_alias("tiny", "candidate", None)
    assert answer(site.gate, POLICIES, site.promoter) == ()
    assert site.store.failed_asks() == before


def test_whoever_is_told_to_end_leaves_what_had_failed_before(tmp_path: Path) -> None:
    site, tracker = breaking(tmp_path, NotArrived("it broke off"))
    answers(site)
    (before,) = site.store.failed_asks()
    later(site, 601)
    tracker.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        answers(site)
    assert site.store.failed_asks() == (before,)


def test_a_kill_costs_no_pause_and_a_second_one_does(tmp_path: Path) -> None:
    """As a machine that has too little memory for a version: nobody is left to keep that he failed."""
    site, tracker = breaking(tmp_path, NotArrived("told to nobody"))
    kept: list[FailedAsk] = []

    class Kept(MovedClock):
        """Whoever is killed keeps nothing more."""

        def keep_ask(self, ask: FailedAsk) -> None:
            if not ask.fault:
                kept.append(ask)
                super().keep_ask(ask)

    site.store = Kept()
    for attempts in (1, 2):
        (one,) = answers(site)
        assert (one.waits, len(tracker.fetched)) == (False, attempts)
    (one,) = answers(site)
    assert (one.waits, len(tracker.fetched), len(kept)) == (True, 2, 2)
    assert one.fault == "whoever judged it was stopped, or is at it"
    later(site, 601)
    assert [one.waits for one in answers(site)] == [False]


def test_what_somebody_else_is_at_is_no_failure(site: Site) -> None:
    site.register(GOOD, alias="candidate")
    look(site.gate, models=["tiny"])

    def busy(_: Policy) -> Promoter:
        raise Busy("the alias keeps moving")

    (one,) = answer(site.gate, POLICIES, busy)
    assert (one.fault, one.failed, site.store.failed_asks()) == ("the alias keeps moving", None, ())
    assert [one.fault for one in answers(site)] == [""]


def test_a_failure_is_forgotten_when_the_version_is_gone_or_nobody_has_looked_for_days(
    tmp_path: Path,
) -> None:
    site, _ = breaking(tmp_path, NotArrived("it broke off"))
    answers(site)
    (failed,) = site.store.failed_asks()
    others = replace(failed, born=failed.born + 1, name=Digest("sha256:1"))  # in another MLflow
    site.store.keep_ask(others)
    site.tracker.remove_version("tiny", "1")
    answers(site)
    assert site.store.failed_asks() == (others,)
    later(site, 4 * 24 * 3600)
    answers(site)
    assert site.store.failed_asks() == ()


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
