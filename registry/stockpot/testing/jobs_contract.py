"""What every store promises about leases, jobs and reports: a part of `stockpot.testing.store_contract`."""

import time
from dataclasses import replace
from math import inf, nan

import pytest

from stockpot.entities import (
    Bound,
    CheckpointPlace,
    Job,
    JobRecord,
    JobState,
    KnownSweep,
    Lease,
    Opening,
    Score,
    SoupOutcome,
    Watermark,
    digest_of_bytes,
)
from stockpot.errors import StoreError
from stockpot.ports import Store
from stockpot.testing.store_values import (
    EVIDENCE,
    HALVED,
    TEST,
    VALIDATION,
    at_once,
    candidate,
    job,
    listed,
    report,
    soup,
)


def take(store: Store, owner: str, name: str = "soup", seconds: float = 1000) -> Lease:
    """Ask for a lease; with less than no seconds it has run out at once."""
    return store.take_lease(name, owner=owner, seconds=seconds)


def record(store: Store, mine: Job) -> JobRecord:
    """What is known of one job."""
    (found,) = store.job_records([mine.name])
    return found


class JobsContract:
    """Every sentence about leases, jobs and reports, held against the fixture ``store``."""

    def test_a_lease_that_nobody_holds_is_taken_by_the_stores_clock(self, store: Store) -> None:
        before = time.time()
        lease = take(store, "me", seconds=10)
        assert (lease.name, lease.owner) == ("soup", "me")
        assert before - 1 < lease.since < time.time() + 1
        assert lease.until == pytest.approx(lease.since + 10, abs=0.1)

    def test_a_lease_that_somebody_holds_is_refused_and_shows_the_holder(self, store: Store) -> None:
        held = take(store, "you")
        assert take(store, "me") == held
        assert not store.renew_lease("soup", owner="me", seconds=1000)
        assert take(store, "me") == held

    def test_an_owner_may_take_its_lease_again_and_renew_it(self, store: Store) -> None:
        held = take(store, "me", seconds=10)
        again = take(store, "me", seconds=1000)
        assert again.since == held.since
        assert again.until > held.until + 900
        assert store.renew_lease("soup", owner="me", seconds=-1)
        assert take(store, "you").owner == "you", "it ran out when it was renewed for less than no time"

    def test_a_lease_that_ran_out_is_free_and_lost_once_another_took_it(self, store: Store) -> None:
        take(store, "you", seconds=-1)
        assert store.renew_lease("soup", owner="you", seconds=-1), "nobody wanted it meanwhile"
        taken = take(store, "me")
        assert taken.owner == "me"
        assert not store.renew_lease("soup", owner="you", seconds=1000)
        store.release_lease("soup", owner="me")
        assert not store.renew_lease("soup", owner="you", seconds=1000)

    def test_of_threads_that_ask_for_a_lease_at_once_exactly_one_gets_it(self, store: Store) -> None:
        leases = at_once(lambda number: take(store, str(number)))
        assert len(set(leases)) == 1
        take(store, "nobody", "another", seconds=-1)
        leases = at_once(lambda number: take(store, str(number), "another"))
        assert len({lease.owner for lease in leases}) == 1

    def test_leases_of_other_names_are_independent(self, store: Store) -> None:
        take(store, "you")
        assert take(store, "me", "another").owner == "me"

    def test_a_released_lease_is_free(self, store: Store) -> None:
        take(store, "you")
        store.release_lease("soup", owner="you")
        assert not store.renew_lease("soup", owner="you", seconds=1000)
        assert take(store, "me").owner == "me"

    def test_only_the_owner_releases_a_lease(self, store: Store) -> None:
        held = take(store, "you")
        store.release_lease("soup", owner="me")
        store.release_lease("unheard of", owner="me")
        assert take(store, "me") == held

    def test_a_lease_is_given_up_with_what_was_measured_under_it(self, store: Store) -> None:
        store.commit_score(soup("a"), VALIDATION, Score((0.5,)), lease=take(store, "me"))
        assert store.holder("soup") is None
        store.commit_bound(soup("b"), VALIDATION, Bound(0.5), lease=take(store, "me"))
        assert store.holder("soup") is None
        lost, held = take(store, "me", seconds=-1), take(store, "you")
        store.commit_score(soup("c"), VALIDATION, Score((0.5,)), lease=lost)
        store.commit_bound(soup("d"), VALIDATION, Bound(0.5), lease=lost)
        assert store.holder("soup") == held, "another's by now"

    def test_the_holder_of_a_lease_is_seen_while_it_holds_it(self, store: Store) -> None:
        assert store.holder("soup") is None
        held = take(store, "you")
        assert store.holder("soup") == held == take(store, "me")
        store.renew_lease("soup", owner="you", seconds=-1)
        assert store.holder("soup") is None, "it has run out"
        assert store.renew_lease("soup", owner="you", seconds=1000), "the look took it from nobody"
        store.release_lease("soup", owner="you")
        assert store.holder("soup") is None

    def test_a_job_is_opened_by_whoever_holds_its_lease_and_the_newer_opening_counts(
        self, store: Store
    ) -> None:
        mine, opening = job("one", "two"), Opening("1.0", (VALIDATION, TEST))
        store.begin_job(mine)
        with pytest.raises(StoreError, match="held by nobody"):
            store.open_job(mine, opening, owner="me")
        take(store, "you", mine.lease)
        with pytest.raises(StoreError, match="held by you"):
            store.open_job(mine, opening, owner="me")
        assert store.opening(mine.name) is None
        store.open_job(mine, opening, owner="you")
        assert store.opening(mine.name) == opening
        halved = replace(opening, protocols=(HALVED,), halved_from=256)
        store.open_job(mine, halved, owner="you")
        assert store.opening(mine.name) == halved
        store.begin_job(mine)
        store.finish_job(mine, SoupOutcome(report(soup("a")), (), 7), EVIDENCE, owner="you")
        assert store.opening(mine.name) == halved
        assert store.opening(job("three").name) is None

    def test_jobs_at_work_are_those_whose_lease_is_held_the_oldest_first(self, store: Store) -> None:
        jobs = [job(run) for run in ("one", "two", "three", "four")]
        for one in jobs:
            store.begin_job(one)
        assert store.jobs_at_work() == ()
        for one in reversed(jobs):
            take(store, "me", one.lease)
        take(store, "me", "soup")
        take(store, "me", job("nobody began it").lease)
        assert store.jobs_at_work() == tuple(reversed(jobs))
        store.renew_lease(jobs[1].lease, owner="me", seconds=-1)
        store.release_lease(jobs[2].lease, owner="me")
        assert store.jobs_at_work() == (jobs[3], jobs[0])

    def test_a_job_has_no_answer_until_it_is_finished_by_whoever_holds_its_lease(self, store: Store) -> None:
        mine, outcome = job("one", "two"), SoupOutcome(report(soup("a", "b")), (), 7)
        store.begin_job(mine)
        assert store.answer(mine) is None
        with pytest.raises(StoreError, match="held by nobody"):
            store.finish_job(mine, outcome, EVIDENCE, owner="me")
        take(store, "you", mine.lease)
        with pytest.raises(StoreError, match="held by you"):
            store.finish_job(mine, outcome, EVIDENCE, owner="me")
        assert store.answer(mine) is None
        store.finish_job(mine, outcome, EVIDENCE, owner="you")
        answer = store.answer(mine)
        assert answer is not None
        assert (answer.outcome, answer.evidence) == (outcome, EVIDENCE)
        assert answer.at == pytest.approx(time.time(), abs=5)

    def test_a_newer_answer_replaces_an_older_one_and_beginning_again_none(self, store: Store) -> None:
        mine = job("one", "two")
        store.begin_job(mine)
        take(store, "me", mine.lease)
        for evaluations in (7, 0):
            store.finish_job(mine, SoupOutcome(report(soup("a")), (), evaluations), EVIDENCE, owner="me")
        at_once(lambda _: store.begin_job(mine))
        answer = store.answer(mine)
        assert answer is not None
        assert answer.outcome.evaluations == 0

    def test_a_job_that_failed_tells_why_until_it_is_answered(self, store: Store) -> None:
        mine = job("one", "two")
        store.begin_job(mine)
        with pytest.raises(StoreError, match="held by nobody"):
            store.fail_job(mine, "no split of this name", owner="me")
        take(store, "you", mine.lease)
        with pytest.raises(StoreError, match="held by you"):
            store.fail_job(mine, "no split of this name", owner="me")
        assert record(store, mine).state is JobState.RUNNING
        for fault in ("no split of this name", "no split of that name"):
            store.fail_job(mine, fault, owner="you")
        store.release_lease(mine.lease, owner="you")
        failed = record(store, mine)
        assert (failed.state, failed.fault) == (JobState.FAILED, "no split of that name")
        assert failed.failed_at == pytest.approx(time.time(), abs=5)
        assert failed.attempts == 1, "told twice under one lease"
        take(store, "me", mine.lease)
        store.fail_job(mine, "again", owner="me")
        assert record(store, mine).attempts == 2
        store.finish_job(mine, SoupOutcome(report(soup("a")), (), 7), EVIDENCE, owner="me")
        store.release_lease(mine.lease, owner="me")
        done = record(store, mine)
        assert (done.state, done.failed_at, done.fault, done.attempts) == (JobState.DONE, None, None, 2)
        assert done.answered_at is not None

    def test_an_answer_that_still_holds_outlives_a_later_failure_and_a_later_asking(
        self, store: Store
    ) -> None:
        mine = job("one", "two")
        store.begin_job(mine)
        store.confirm_job(mine)
        assert record(store, mine).state is JobState.STOPPED, "there is no answer to confirm"
        take(store, "me", mine.lease)
        store.finish_job(mine, SoupOutcome(report(soup("a")), (), 7), EVIDENCE, owner="me")
        answered = record(store, mine)
        store.confirm_job(mine)
        assert record(store, mine) == answered, "nothing has come since"
        store.fail_job(mine, "no such device", owner="me")
        store.release_lease(mine.lease, owner="me")
        store.ask_job(mine, "birds")
        assert record(store, mine).state is JobState.WAITING
        store.confirm_job(mine)
        known, found = record(store, mine), store.answer(mine)
        assert (known.state, known.failed_at, known.fault, known.attempts) == (JobState.DONE, None, None, 1)
        assert found is not None
        assert (found.outcome.evaluations, found.at) == (7, known.answered_at)

    def test_a_job_that_a_trigger_asked_for_waits_until_somebody_works_on_it(self, store: Store) -> None:
        mine, later = job("one"), job("one", "two")
        store.ask_job(mine, "birds")
        store.ask_job(later, "fish", predecessor=mine.name)
        store.ask_job(later, "birds", predecessor=later.name)
        first, grown = store.job_records([mine.name, later.name])
        assert (first.state, first.attempts, first.predecessor) == (JobState.WAITING, 0, None)
        assert first.asked_at == pytest.approx(time.time(), abs=5)
        assert (grown.state, grown.predecessor) == (JobState.WAITING, mine.name)
        assert store.asked_within(3600, ["birds", "cats"]) == 2
        assert store.asked_within(3600, ["fish"]) == store.asked_within(-3600, ["birds"]) == 0
        store.ask_job(mine, "birds", lost=first.asked_at)
        store.ask_job(mine, "birds", lost=first.asked_at)
        assert record(store, mine).attempts == 1, "that asking was lost once"
        held = take(store, "me", mine.lease)
        assert (record(store, mine).state, record(store, mine).lease) == (JobState.RUNNING, held)
        store.fail_job(mine, "fault", owner="me")
        store.release_lease(mine.lease, owner="me")
        assert record(store, mine).state is JobState.FAILED
        store.ask_job(mine, "birds")
        again = record(store, mine)
        assert (again.state, again.fault, again.attempts) == (JobState.WAITING, "fault", 2)

    def test_a_job_is_replaced_where_its_rule_wants_another_and_no_rule_wants_it(self, store: Store) -> None:
        failed, waiting, wanted, persons = job("one"), job("two"), job("three"), job("four")
        for one in (failed, waiting, wanted):
            store.ask_job(one, "birds")
        for one in (failed, persons):
            store.begin_job(one)
            take(store, "me", one.lease)
            store.fail_job(one, "no split", owner="me")
            store.release_lease(one.lease, owner="me")
        jobs = (failed, waiting, wanted, persons)
        states = [JobState.FAILED, JobState.WAITING, JobState.WAITING, JobState.FAILED]
        row = KnownSweep("parent", "birds", 1.0, None, None)
        store.keep_scan([row, replace(row, sweep="other", job=wanted.name)], {})
        assert [record(store, one).state for one in jobs] == states
        store.keep_scan([replace(row, job=wanted.name), replace(row, rule="fish", job=waiting.name)], {})
        states[0] = JobState.REPLACED
        assert [record(store, one).state for one in jobs] == states, "two rules want one each"
        take(store, "me", failed.lease)
        assert record(store, failed).state is JobState.RUNNING
        store.finish_job(failed, SoupOutcome(report(soup("a")), (), 7), EVIDENCE, owner="me")
        store.release_lease(failed.lease, owner="me")
        assert record(store, failed).state is JobState.DONE

    def test_jobs_are_found_by_name_and_by_sweep_the_oldest_first(self, store: Store) -> None:
        jobs = [job("one"), job("two", sweep="other"), job("three", model="letters"), job("four")]
        for one in jobs:
            store.begin_job(one)
        assert [found.name for found in store.job_records()] == [one.name for one in jobs]
        about = store.job_records(sweeps={"parent", "nobody's"})
        assert [found.name for found in about] == [jobs[place].name for place in (0, 2, 3)]
        found = store.job_records([jobs[1].name], sweeps=["another"])[0]
        assert (found.model, found.request, found.state) == ("digits", jobs[1].request, JobState.STOPPED)
        assert store.job_records(()) == store.job_records(sweeps=()) == ()

    def test_what_a_scan_has_seen_is_kept_and_replaced_by_what_a_later_one_saw(self, store: Store) -> None:
        now = store.clock()
        assert now == pytest.approx(time.time(), abs=5)
        assert store.sweeps_due(["birds"]) == ()
        done = KnownSweep("done", "birds", now, None, None)
        late, early = replace(done, sweep="late", look_at=now - 1), replace(done, sweep="e", look_at=now - 2)
        later = replace(done, sweep="later", look_at=now + 1000, tag="yes")
        others = replace(late, rule="fish", job=job("one").name)
        mark = Watermark(1.5, 0.1 + 0.2)
        store.keep_scan([done, late, early, later, others], {"a": mark, "b": mark})
        assert store.sweeps_due(["birds", "cats"]) == (early, late)
        assert store.sweeps_due(["birds", "fish"]) == (early, late, others)
        assert set(store.known_sweeps(["done", "later", "unheard of"], ["birds"])) == {done, later}
        assert store.known_sweeps(["late"], []) == store.known_sweeps([], ["birds"]) == ()
        assert store.watermarks(["a", "c"]) == {"a": mark}
        moved = replace(late, moved=now + 1, look_at=None, tag="no", job=job("two").name)
        store.keep_scan([moved], {"a": Watermark(1.5, 2.5)})
        store.keep_scan([], {})
        assert store.sweeps_due(["birds"]) == (early,)
        assert set(store.known_sweeps(["late"], ["birds", "fish"])) == {moved, others}
        assert store.watermarks(["a", "b"]) == {"a": Watermark(1.5, 2.5), "b": mark}

    def test_another_request_or_another_state_of_the_sweep_is_another_job(self, store: Store) -> None:
        mine = job("one", "two")
        store.begin_job(mine)
        take(store, "me", mine.lease)
        store.finish_job(mine, SoupOutcome(report(soup("a")), (), 7), EVIDENCE, owner="me")
        assert store.answer(job("two", "one")) is not None, "the order of the runs says nothing"
        for other in (job("one"), job("one", "two", model="letters"), job("one", "two", margin=-inf)):
            store.begin_job(other)
            assert store.answer(other) is None
        ended, moved = listed("one"), listed("one", accuracy=nan)
        assert (
            len(
                {Job.of(mine.request, [run]).name for run in (ended, moved, replace(ended, status="RUNNING"))}
            )
            == 3
        )

    def test_what_a_run_went_into_is_found_and_where_a_checkpoint_came_from(self, store: Store) -> None:
        first, second = job("one", "two"), job("one", "two", "three")
        for mine in (first, second):
            store.begin_job(mine)
            store.commit_candidates(mine, [candidate("one", "a"), candidate("two", "b")])
        store.commit_candidates(second, [candidate("one", "a"), candidate("three", "a")])
        assert store.places(digest_of_bytes(b"a")) == (
            CheckpointPlace("one", "model.safetensors", None),
            CheckpointPlace("three", "model.safetensors", None),
        )
        assert store.places(digest_of_bytes(b"c")) == ()
        soups = [
            store.begin_registration("digits", soup("a", "b")),
            store.begin_registration("letters", soup("a")),
        ]
        store.begin_registration("digits", soup("c"))
        assert store.registrations_with("one") == store.registrations_with("three") == tuple(soups)
        assert store.registrations_with("two") == tuple(soups[:1])
        assert store.registrations_with("nobody") == ()

    def test_reports_are_found_by_each_of_their_recipes_oldest_first(self, store: Store) -> None:
        first = report(soup("a"), soup("a", "b"))
        second = report(soup("a"), soup("b", "c"), soup("a", "b"), shifts=("fog",))
        for one in (first, second):
            store.commit_report(one)
        assert [filed.report for filed in store.reports(soup("a", "b").digest)] == [first, second]
        assert [filed.report for filed in store.reports(soup("b", "c").digest)] == [second]
        assert store.reports(soup("c").digest) == ()
        assert store.recipe(soup("b", "c").digest) == soup("b", "c")

    def test_committing_an_identical_report_again_changes_nothing(self, store: Store) -> None:
        store.commit_report(report(soup("a", "b")))
        filed = store.reports(soup("a", "b").digest)
        at_once(lambda _: store.commit_report(report(soup("a", "b"))))
        assert store.reports(soup("a", "b").digest) == filed

    def test_requests_on_a_dataset_are_counted_once_each(self, store: Store) -> None:
        assert store.requests_on(TEST.dataset) == 0
        asked = [
            report(soup("a")),
            report(soup("a"), soup("a", "b")),  # the same request found more
            report(soup("a"), runs=("two", "one")),
            report(soup("a"), runs=("one", "two", "three")),
            report(soup("a"), model="letters"),
            replace(report(soup("a"), shifts=("fog",)), protocols=()),
        ]
        again = replace(asked[0].request, again=True, verify_exact=True, wait=False)  # no other question
        asked.append(replace(asked[0], request=again))
        for one in asked:
            store.commit_report(one)
        assert store.requests_on(TEST.dataset) == 3
        assert store.requests_on(digest_of_bytes(b"another")) == 0
