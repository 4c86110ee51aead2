"""Which sweeps a scan finds, what it asks for, and when it looks again; on a clock that the test moves."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stockpot.entities import Job, JobRecord, JobState, ModelVersion, SoupOutcome, SoupRequest, backoff
from stockpot.errors import Busy, NotPermitted
from stockpot.store import MemoryStore
from stockpot.testing.store_values import EVIDENCE, report, soup
from stockpot.tracking import MemoryTracker
from stockpot.workflow.jobs import job_of
from stockpot.workflow.scanning.findings import Asked, Scan, Standing
from stockpot.workflow.scanning.rules import Rule, Rules
from stockpot.workflow.scanning.scan import DAY, HOUR, scan

NOON = 1_800_000_000.0
BIRDS = Rule("birds", ("birds*",), {"model": "birds", "task": "arrays"}, since=0.0)


@dataclass
class World:
    """MLflow, the store and the clock of all machines."""

    tracker: MemoryTracker
    store: MemoryStore
    rules: Rules
    now: float = NOON

    def run(
        self, parent: str | None = None, *, status: str = "FINISHED", experiment: str = "birds", **tags: str
    ) -> str:
        """A run that begins now, and has ended unless it runs."""
        number = self.tracker.add_experiment(experiment)
        named = {name.replace("_", "."): value for name, value in tags.items()}
        run_id = self.tracker.add_run(number, "run", parent=parent, status=status, tags=named)
        self.change(run_id, started=round(self.now * 1000))
        if status == "FINISHED":
            self.end(run_id)
        return run_id

    def change(self, run_id: str, **fields: object) -> None:
        kept = self.tracker.runs_kept[run_id]
        kept.run = replace(kept.run, **fields)  # type: ignore[arg-type]  # a run's fields

    def end(self, run_id: str) -> None:
        self.change(run_id, status="FINISHED", ended=round(self.now * 1000))

    def sweep(self, size: int = 2, **tags: str) -> str:
        """A finished sweep."""
        parent = self.run(**tags)
        for _ in range(size):
            self.run(parent)
        return parent

    def version(self, model: str, number: int, run_id: str, **tags: str) -> None:
        """A registered version of a run's model."""
        made = ModelVersion(model, str(number), run_id, None, tags)
        self.tracker.versions_kept.setdefault(model, []).append(made)

    def scan(self, *, dry: bool = False, lost_after: float = HOUR) -> Scan:
        self.now += 1
        return scan(self.rules, self.tracker, self.store, lost_after=lost_after, dry=dry)

    def standings(self, **options: bool) -> list[Standing]:
        return [sighting.standing for sighting in self.scan(**options).sightings]

    def answer(self, asked: Asked) -> None:
        self.work(asked, lambda: self.store.finish_job(asked.job, outcome(), EVIDENCE, owner="h/1/x"))

    def fail(self, asked: Asked) -> None:
        self.work(asked, lambda: self.store.fail_job(asked.job, "no split", owner="h/1/x"))

    def work(self, asked: Asked, act: Callable[[], None]) -> None:
        self.now += 1
        self.store.take_lease(asked.job.lease, owner="h/1/x", seconds=60)
        act()
        self.store.release_lease(asked.job.lease, owner="h/1/x")

    def records(self) -> tuple[JobRecord, ...]:
        return self.store.job_records()


def outcome() -> SoupOutcome:
    return SoupOutcome(report(soup("a")), (), 7)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World(MemoryTracker(), MemoryStore(), Rules(tmp_path / "rules.toml", (BIRDS,)))
    monkeypatch.setattr(time, "time", lambda: made.now)
    return made


def test_a_finished_sweep_is_asked_for_once_and_let_alone_when_it_is_answered(world: World) -> None:
    parent = world.sweep()
    world.run()  # a plain run is no sweep
    assert world.standings(dry=True) == [Standing.DUE]
    assert world.records() == ()
    found = world.scan()
    (asked,) = found.asked
    assert asked.request.sweep == parent
    assert asked.job == job_of(asked.request, world.tracker)
    assert found.sightings[0].job == asked.job.name
    assert world.scan() == Scan((), (), ()), "it is asked for, and nothing else has ended"
    world.answer(asked)
    world.now += 2 * HOUR
    assert world.standings() == [Standing.ANSWERED]
    world.now += DAY
    assert world.scan() == Scan((), (), ())


def test_day_one_begins_with_the_first_scan_unless_told_otherwise(world: World) -> None:
    world.rules = replace(world.rules, rules=(replace(BIRDS, since=None),))
    world.sweep()
    running = world.run()
    for _ in range(2):
        world.run(running)
    last = world.run(running, status="RUNNING")
    assert world.scan() == Scan((), (), ())
    world.now += HOUR
    world.end(last)
    (asked,) = world.scan().asked
    assert asked.request.sweep == running
    world.rules = replace(world.rules, rules=(replace(BIRDS, since=NOON),))
    assert len(world.scan(lost_after=DAY).asked) == 1, "the older one, now that the rule says since when"


def test_an_unfinished_sweep_is_asked_for_when_its_last_run_has_ended(world: World) -> None:
    parent = world.run(status="RUNNING")
    world.run(parent)
    last = world.run(parent, status="RUNNING")
    (sighting,) = world.scan().sightings
    assert (sighting.standing, sighting.detail) == (Standing.UNFINISHED, "1 run not ended")
    assert world.scan().sightings == ()
    world.now += DAY
    assert world.standings() == [Standing.UNFINISHED], "now and then it is looked at all the same"
    world.end(last)
    (sighting,) = world.scan().sightings
    assert (sighting.standing, sighting.detail) == (Standing.UNFINISHED, "its parent run not ended")
    world.now += HOUR
    assert world.standings() == [Standing.DUE], "nobody ended the parent"


def test_a_parent_that_has_ended_or_is_tagged_need_not_settle(world: World) -> None:
    for ends in (True, False):
        parent = world.run(status="RUNNING")
        world.run(parent)
        assert world.standings() == [Standing.UNFINISHED]
        if ends:
            world.end(parent)
        else:
            tags = {**world.tracker.runs_kept[parent].run.tags, "stockpot.soup": "now"}
            world.change(parent, tags=tags)
        assert world.standings() == [Standing.DUE]


def test_what_is_finished_of_a_sweep_that_stands_still_is_averaged(world: World) -> None:
    world.rules = replace(world.rules, rules=(replace(BIRDS, partial_after_hours=24),))
    parent = world.run()
    world.run(parent)
    dead = world.run(parent, status="RUNNING")
    assert world.standings() == [Standing.UNFINISHED]
    world.now += DAY + 1
    (partial,) = world.scan().asked
    assert partial.request.partial
    world.answer(partial)
    world.end(dead)
    (whole,) = world.scan().asked
    assert not whole.request.partial
    assert world.records()[-1].predecessor == partial.job.name


def test_an_unfinished_sweep_is_looked_at_before_its_time_too(world: World) -> None:
    world.rules = replace(world.rules, rules=(replace(BIRDS, partial_after_hours=24),))
    parent = world.run()
    world.run(parent)
    dead = world.run(parent, status="RUNNING")
    assert world.standings() == [Standing.UNFINISHED]
    del world.tracker.runs_kept[dead]
    world.now += HOUR
    assert world.standings() == [Standing.DUE], "nobody tells that a run was deleted"


def test_a_run_between_that_a_script_forgot_to_end_holds_nothing_up(world: World) -> None:
    parent = world.run()
    between = world.run(parent, status="RUNNING")
    world.run(between)
    assert world.standings() == [Standing.DUE]


def test_a_rule_for_tagged_sweeps_leaves_the_others_alone(world: World) -> None:
    world.rules = replace(world.rules, rules=(replace(BIRDS, only_tagged=True),))
    world.sweep()
    tagged = world.sweep(stockpot_soup="please")
    assert [asked.request.sweep for asked in world.scan().asked] == [tagged]


def test_a_sweep_that_grew_is_another_job_which_names_the_one_before(world: World) -> None:
    parent = world.sweep()
    (first,) = world.scan().asked
    world.answer(first)
    world.now += DAY
    world.run(parent)
    found = world.scan()
    (second,) = found.asked
    assert second.job.name != first.job.name
    assert found.sightings[0].detail == "it grew since an earlier job"
    assert [record.predecessor for record in world.records()] == [None, first.job.name]


def test_what_failed_is_asked_for_again_ever_later(world: World) -> None:
    assert [backoff(attempts) for attempts in (0, 1, 2, 3, 9, 5000)] == [0, 600, 1200, 2400, DAY, DAY]
    world.sweep()
    for attempts in range(3):
        (asked,) = world.scan().asked
        assert asked.attempts == attempts
        world.fail(asked)
        world.now += HOUR if attempts == 0 else 0  # until it is looked at again
        before = world.scan(dry=True)
        if attempts == 0:
            assert before.sightings[0].detail == "1 attempt failed"
            continue
        world.now += HOUR
        world.now = max(world.now, (world.records()[0].failed_at or 0) + backoff(attempts + 1))
    (record,) = world.records()
    assert (record.attempts, record.fault) == (3, "no split")


def test_a_sweep_that_may_not_be_read_costs_the_others_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.sweep(), world.sweep()

    def refused(request: SoupRequest, *about: Any) -> Job:
        if request.sweep == first:
            raise NotPermitted("nobody may read its base", mend="ask for the right")
        return job_of(request, *about)

    monkeypatch.setattr("stockpot.workflow.scanning.scan.job_of", refused)
    found = world.scan()
    assert [asked.request.sweep for asked in found.asked] == [second]
    (failed,) = [one for one in found.sightings if one.sweep == first]
    assert (failed.standing, failed.detail) == (Standing.FAILED, "nobody may read its base")


def test_a_failure_is_told_until_its_next_attempt(world: World) -> None:
    world.sweep()
    (asked,) = world.scan().asked
    for _ in range(4):
        world.fail(asked)
    world.now += HOUR
    (sighting,) = world.scan().sightings
    assert sighting.standing is Standing.FAILED
    assert sighting.detail.startswith("no split; 4 attempts, the next one after 2027-01-15")
    assert world.scan().sightings == ()
    world.now += HOUR
    assert world.standings() == [Standing.DUE]


def test_an_asking_that_nobody_followed_is_lost_after_an_hour_and_has_another_name_then(world: World) -> None:
    world.sweep()
    (first,) = world.scan().asked
    world.now += HOUR / 2
    assert world.scan().asked == ()
    world.now += HOUR
    (second,) = world.scan().asked
    assert (first.attempts, second.attempts) == (0, 1)
    assert first.job == second.job
    world.now += 1.5 * HOUR
    assert world.standings() == [Standing.WAITING], "workers may be busy: ever later"
    world.store.take_lease(second.job.lease, owner="h/1/x", seconds=DAY)
    world.now += 2 * HOUR
    assert world.standings() == [Standing.RUNNING]


def test_a_scan_that_works_itself_takes_up_what_another_left_or_has_not_come_to(world: World) -> None:
    world.sweep()
    for _ in range(2):
        (asked,) = world.scan(lost_after=0).asked
        assert asked.attempts == 0
    assert world.records()[0].attempts == 0


def test_a_budget_that_is_used_up_lets_the_rest_wait_for_tomorrow(world: World) -> None:
    world.rules = replace(world.rules, budget_per_day=2)
    sweeps = []
    for _ in range(5):
        world.now += 1
        sweeps.append(world.sweep())
    found = world.scan()
    assert [asked.request.sweep for asked in found.asked] == sweeps[:2], "the one that ended first first"
    assert [one.standing for one in found.sightings][2:] == [Standing.BUDGET] * 3
    assert "the budget of 2 a day is used up: 3 sweeps must wait" in found.notes[0]
    world.fail(found.asked[0])
    world.now += 2 * HOUR
    (again,) = world.scan(lost_after=DAY).asked
    assert again.request.sweep == sweeps[0], "that one counts already"
    world.fail(again)
    for expected in (sweeps[1:3], sweeps[3:], sweeps[:1]):
        world.now += DAY + 1
        asked = world.scan(lost_after=HOUR).asked
        assert [one.request.sweep for one in asked] == expected, "what failed comes last"
        for one in asked:
            world.answer(one)


def test_what_is_asked_for_again_costs_the_budget_nothing(world: World) -> None:
    world.rules = replace(world.rules, budget_per_day=2)
    first = world.sweep()
    world.scan()
    world.now += HOUR
    second = world.sweep()
    assert [asked.request.sweep for asked in world.scan().asked] == [first, second], (
        "nobody heard of the first"
    )


def test_a_tag_asks_for_a_sweep_of_any_age_and_names_its_rule(world: World) -> None:
    fish = replace(BIRDS, name="fish", request={"model": "fish", "task": "arrays"})
    world.rules = replace(world.rules, rules=(replace(BIRDS, since=None), replace(fish, only_tagged=True)))
    old = world.sweep()
    world.now += DAY
    assert world.scan() == Scan((), (), ())
    parent = world.tracker.runs_kept[old].run
    world.change(old, tags={**parent.tags, "stockpot.soup": '{"rule": "fish"}'})
    (asked,) = world.scan(lost_after=DAY).asked
    assert asked.request.model == "fish"
    assert world.scan(lost_after=DAY).sightings == ()
    world.change(old, tags={**parent.tags, "stockpot.soup": "2027-01-16"})
    found = world.scan(lost_after=DAY)
    assert [asked.request.model for asked in found.asked] == ["birds"]
    assert "is matched by the rules birds, fish: the first one counts" in found.notes[0]


def test_an_alias_that_a_rule_names_asks_for_the_sweep_of_the_versions_run_once(world: World) -> None:
    fish = replace(BIRDS, name="fish", alias="soup-this", request={"model": "fish", "task": "arrays"})
    world.rules = replace(world.rules, rules=(replace(BIRDS, since=None), replace(fish, only_tagged=True)))
    first, second = world.sweep(), world.sweep()
    world.now += DAY
    world.sweep()
    runs = list(world.tracker.runs_kept)
    for number, run_id in ((1, runs[1]), (2, runs[2]), (3, second)):
        world.version("fish", number, run_id)
    assert world.scan().sightings == (), "no version has the alias"

    def asked_by(version: int) -> list[tuple[str | None, str]]:
        world.tracker.aliases["fish", "soup-this"] = str(version)
        return [(one.request.sweep, one.request.model) for one in world.scan(lost_after=DAY).asked]

    assert asked_by(1) == [(first, "fish")], "whatever its age, and for the rule of the alias"
    assert asked_by(1) == []
    assert asked_by(3) == [(second, "fish")], "the parent's own version"
    for asked in (1, 2, 3, 1):
        assert asked_by(asked) == [], "the same request about the same sweep"
    assert {record.request and record.request.sweep for record in world.records()} == {first, second}


def test_an_alias_of_another_model_counts_and_one_that_leads_nowhere_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rules = replace(world.rules, rules=(replace(BIRDS, since=None, alias="found@best"),))
    parent, elsewhere = world.sweep(), world.run(world.run(experiment="cats"), experiment="cats")
    for number, run_id in ((1, "gone"), (2, elsewhere), (3, world.run(parent))):
        world.version("found", number, run_id)
    world.version("found", 4, parent, **{"stockpot.recipe": "sha256:0"})
    world.now += DAY
    assert world.scan() == Scan((), (), ())
    for number in (1, 2):
        world.tracker.aliases["found", "best"] = str(number)
        found = world.scan()
        told = f"models:/found@best is models:/found/{number}, whose run is deleted, or in an experiment that"
        assert (found.sightings, found.notes[0][: len(told)]) == ((), told)
    world.tracker.aliases["found", "best"] = "4"
    assert world.scan() == Scan((), (), ()), "a soup asks for nothing"
    world.tracker.aliases["found", "best"] = "3"
    (sighting,) = world.scan().sightings
    assert (sighting.sweep, sighting.detail) == (parent, "models:/found@best is models:/found/3")

    def refused(uri: str) -> ModelVersion:
        raise NotPermitted(f"nobody may read {uri}", mend="ask for the right")

    monkeypatch.setattr(world.tracker, "version", refused)
    assert world.scan().notes == ("rule 'birds': nobody may read models:/found@best",)


def test_what_no_rule_can_do_anything_with_is_told(world: World) -> None:
    cats = replace(BIRDS, name="cats", experiments=("cats", "lions-*"))
    world.rules = replace(world.rules, rules=(replace(BIRDS, filter="tags.stage = 'final'"), cats))
    world.sweep(stockpot_soup="yes")
    world.run(stockpot_soup='{"rule": "birds"}')
    world.run(stockpot_soup='{"rule": "brids"}')
    told = " ".join(world.scan().notes)
    assert "rule 'cats' names no experiment: there is none like cats, lions-*" in told
    assert "has the tag stockpot.soup, and no rule matches it" in told
    assert "has the tag stockpot.soup, and no runs below it" in told
    assert "is left alone: its tag stockpot.soup names the rule 'brids'; there are birds, cats" in told


def test_a_sweep_that_is_deleted_is_told_once_and_costs_the_others_nothing(world: World) -> None:
    gone, stays = world.sweep(), world.sweep()
    assert len(world.scan().asked) == 2
    for run_id in [
        run_id for run_id, kept in world.tracker.runs_kept.items() if kept.run.tags or run_id == gone
    ]:
        if gone in (run_id, world.tracker.runs_kept[run_id].run.tags.get("mlflow.parentRunId")):
            del world.tracker.runs_kept[run_id]
    world.now += 2 * HOUR
    found = world.scan()
    assert {one.sweep: one.standing for one in found.sightings} == {gone: Standing.GONE, stays: Standing.DUE}
    world.now += 2 * HOUR
    assert world.standings() == [Standing.DUE]


def test_other_rules_leave_a_retry_that_is_due_to_those_that_asked(world: World) -> None:
    """Another file of rules, or one with a slip for a while."""
    world.sweep()
    world.fail(world.scan().asked[0])
    world.now += 2 * HOUR
    ours = world.rules
    for others in (
        replace(BIRDS, name="cats", experiments=("cats",)),
        replace(BIRDS, experiments=("brids*",)),
    ):
        world.rules = replace(ours, rules=(others,))
        assert world.scan().asked == ()
    world.rules = ours
    world.now += DAY
    assert len(world.scan().asked) == 1


def test_each_file_of_rules_has_its_own_soup_of_a_sweep_its_own_budget_and_its_own_lease(
    world: World,
) -> None:
    parent, ours = world.sweep(), replace(world.rules, budget_per_day=1)
    fish = replace(BIRDS, name="fish", request={"model": "fish", "task": "arrays"})
    theirs = replace(ours, rules=(fish,), budget_per_day=1)
    for rules, other, model in ((ours, theirs, "birds"), (theirs, ours, "fish")):
        world.rules = rules
        world.store.take_lease(other.lease, owner="h/1/x", seconds=60)
        (asked,) = world.scan().asked
        assert (asked.request.model, asked.request.sweep) == (model, parent)
        assert world.scan(lost_after=DAY).sightings == ()
        world.store.release_lease(other.lease, owner="h/1/x")
        world.fail(asked)
    assert [record.state for record in world.records()] == [JobState.FAILED] * 2, "nobody's is replaced"
    world.now += 2 * HOUR
    assert [asked.request.model for asked in world.scan().asked] == ["fish"]


def test_a_renamed_rule_finds_what_has_an_answer_and_asks_for_nothing_again(world: World) -> None:
    world.sweep()
    world.answer(world.scan().asked[0])
    world.rules = replace(world.rules, rules=(replace(BIRDS, name="warblers"),))
    assert world.standings() == [Standing.ANSWERED]
    assert world.standings() == []


def test_a_new_rule_above_another_takes_the_sweeps_that_it_matches_over_and_no_others(world: World) -> None:
    failed, others = world.sweep(stage="final"), world.sweep()
    for asked in world.scan().asked:
        world.fail(asked)
    finals = replace(
        BIRDS, name="finals", filter="tags.stage = 'final'", request={"model": "f", "task": "arrays"}
    )
    world.rules = replace(world.rules, rules=(finals, BIRDS))
    (asked,) = [asked for asked in world.scan(lost_after=DAY).asked if asked.request.sweep == failed]
    assert asked.request.model == "f"
    states = {
        (record.request and record.request.sweep, record.model): record.state for record in world.records()
    }
    assert states == {
        (failed, "birds"): JobState.REPLACED,
        (failed, "f"): JobState.WAITING,
        (others, "birds"): JobState.FAILED,
    }
    world.answer(asked)
    world.now += DAY
    assert {sighting.sweep for sighting in world.scan().sightings} == {failed, others}
    world.now += DAY
    assert {sighting.sweep for sighting in world.scan().sightings} == {others}, "the older rule lets go of it"


def test_a_failed_job_is_replaced_when_its_rule_is_mended_or_its_sweep_grows(world: World) -> None:
    def states() -> list[JobState]:
        return [record.state for record in world.records()]

    parent = world.sweep()
    world.fail(world.scan().asked[0])
    world.rules = replace(world.rules, rules=())
    world.now += DAY
    world.scan()
    assert states() == [JobState.FAILED], "a rule that is gone wants nothing else"
    mended = replace(BIRDS, request={"model": "birds", "task": "arrays", "margin": -1.0})
    world.rules = replace(world.rules, rules=(mended,))
    (asked,) = world.scan().asked
    assert states() == [JobState.REPLACED, JobState.WAITING]
    world.fail(asked)
    world.rules = replace(world.rules, rules=(BIRDS,))
    world.now += DAY
    (again,) = world.scan().asked
    assert (again.attempts, states()) == (1, [JobState.WAITING, JobState.REPLACED])
    world.fail(again)
    world.run(parent)
    world.answer(world.scan().asked[0])
    assert states() == [JobState.REPLACED, JobState.REPLACED, JobState.DONE]


def test_a_run_that_ended_in_the_future_hides_no_sweep(world: World) -> None:
    jumped = world.sweep()
    world.change(jumped, ended=round((NOON + 1000 * DAY) * 1000))
    (first,) = world.scan().asked
    world.answer(first)
    world.now += HOUR
    later = world.sweep()
    assert {sighting.sweep for sighting in world.scan().sightings} == {jumped, later}
    world.run(jumped)
    assert jumped in {asked.request.sweep for asked in world.scan(lost_after=DAY).asked}


def test_a_slow_clock_is_seen_within_an_hour(world: World) -> None:
    world.sweep()
    world.scan()
    slow = world.sweep()
    for run_id, kept in world.tracker.runs_kept.items():
        if slow in (run_id, kept.run.tags.get("mlflow.parentRunId")):
            world.change(run_id, ended=round((world.now - HOUR / 2) * 1000))
    assert [asked.request.sweep for asked in world.scan().asked] == [slow]


def test_one_scan_at_a_time(world: World) -> None:
    world.store.take_lease(world.rules.lease, owner="h/1/x", seconds=60)
    with pytest.raises(Busy, match="another scan is under way: process 1 on h"):
        world.scan()
    world.sweep()
    assert world.standings(dry=True) == [Standing.DUE], "who changes nothing may look"


def test_a_scan_that_is_killed_between_finding_and_asking_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sweep()
    with monkeypatch.context() as dying:
        dying.setattr(world.store, "job_records", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.scan()
    assert len(world.scan().asked) == 1
