"""Sweeps that finished since a scan last looked are asked for, each once."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import (
    UNFINISHED,
    Digest,
    Job,
    JobRecord,
    JobState,
    KnownSweep,
    Run,
    SoupRequest,
    SweepSelector,
    Watermark,
    backoff,
)
from stockpot.entities.tags import SOUP
from stockpot.errors import BadRequest, Busy, NotPermitted, UnknownSweep
from stockpot.prose import counted, listed, minute
from stockpot.workflow.jobs import fault_line, job_of
from stockpot.workflow.leases import Hold, holder
from stockpot.workflow.scanning.aliases import AliasedVersion, aliased_versions, by_sweep
from stockpot.workflow.scanning.findings import Asked, Scan, Sighting, Standing
from stockpot.workflow.scanning.forest import Forest, SeenSweep, sweep_of
from stockpot.workflow.scanning.marks import Marks
from stockpot.workflow.scanning.matching import match
from stockpot.workflow.scanning.rules import Rule, Rules

if TYPE_CHECKING:
    from stockpot.ports import Store, Tracker

HOUR, DAY = 3600.0, 24 * 3600.0
MONTH = 30 * DAY
SETTLED = HOUR
"""Seconds without a run that begins or ends, after which a parent that still runs was forgotten. Within, it
is between two trials.
"""
SOON = 600.0
"""Seconds until what others are about to change is looked at again."""


def scan(rules: Rules, tracker: "Tracker", store: "Store", *, lost_after: float, dry: bool = False) -> Scan:
    """Find the sweeps that finished since the last scan, and ask for those that are due.

    Args:
        rules: Which sweeps, and what is made of them.
        tracker: Where they were logged.
        store: Holds what was looked at, and the jobs.
        lost_after: Seconds after which a job that was asked for, and that nobody has worked on, is lost;
            doubled with each attempt, until a day. 0 for a process that works on what it asks for: it takes
            up at once what another such process left, or has not come to yet, and counts no attempt.
        dry: Change nothing. What is due is told all the same.

    Raises Busy where another scan is under way, BadRequest for a filter that MLflow refuses, and what MLflow
    and the store raise.
    """
    if dry:
        return _Scanner(rules, tracker, store, lost_after, None).run()
    hold = Hold(store, rules.lease, "the scan for finished sweeps")
    if (held := hold.attempt()) is not None:
        raise Busy(
            f"another scan is under way: {holder(held)}", mend="nothing: that one sees what this one would"
        )
    with hold.kept_alive():
        return _Scanner(rules, tracker, store, lost_after, hold).run()


class _Scanner:
    """One scan. `hold`: its lease; None for one that changes nothing."""

    def __init__(
        self, rules: Rules, tracker: "Tracker", store: "Store", lost_after: float, hold: Hold | None
    ) -> None:
        self._rules = rules
        self._tracker = tracker
        self._store = store
        self._lost_after = lost_after
        self._hold = hold
        self._now = store.clock()
        self._budget: float = float("inf")
        if rules.budget_per_day is not None:
            self._budget = rules.budget_per_day - store.asked_within(DAY, rules.names)
        self._all = {one.experiment_id: one for one in tracker.experiments()}
        self._covered = {
            number: one for number, one in self._all.items() if any(r.covers(one.name) for r in rules.rules)
        }
        self._marks = Marks(rules, self._covered, store, self._now)
        self._due: set[str] = set()
        """Sweeps that are to be looked at, whether anything ended or not."""
        self._versions, self._notes = aliased_versions(rules, tracker)
        self._aliased: dict[str | None, AliasedVersion] = {}
        """By the sweep."""
        self._asked: list[Asked] = []

    def run(self) -> Scan:
        """Find, keep what was found, and only then decide: a scan that is killed loses nothing."""
        self._note_rules_without_experiments()
        due = self._store.sweeps_due(self._rules.names)
        self._due = {row.sweep for row in due}
        seen = self._seen()
        known: dict[str, dict[str, KnownSweep]] = defaultdict(dict)
        for row in self._store.known_sweeps(seen, self._rules.names):
            known[row.sweep][row.rule] = row
        ruled = self._ruled(seen, known)
        rows = {run_id: self._row(*found, known[run_id]) for run_id, found in ruled.items()}
        gone = [row for row in due if row.sweep not in ruled]
        # What the rules left out by a slip is looked at again; the rest is gone for good.
        tomorrow = self._now + DAY
        over = [replace(row, look_at=tomorrow if self._now - row.moved < MONTH else None) for row in gone]
        self._keep([*rows.values(), *over], self._marks.moved())
        records: dict[str | None, list[JobRecord]] = defaultdict(list)
        for record in self._store.job_records(sweeps=ruled):
            if record.request is not None:
                records[record.request.sweep].append(record)
        sightings: list[Sighting] = []
        looks: list[KnownSweep] = []
        # What failed comes last, or hopeless ones would use the budget up each day.
        failing = {sweep for sweep, kept in records.items() if any(record.failed_at for record in kept)}
        for run_id in sorted(ruled, key=lambda found: (found in failing, ruled[found][0].moved, found)):
            one, rule = ruled[run_id]
            sighting, row = self._look(one, rule, rows[run_id], records[run_id])
            looks += [row, *_taken_over(row, known[run_id])]
            sightings += [sighting] if sighting else []
        sightings += [self._gone(row) for row in gone if row.sweep not in seen]
        self._keep(looks, {})
        if waiting := sum(sighting.standing is Standing.BUDGET for sighting in sightings):
            self._notes.append(
                f"the budget of {self._rules.budget_per_day} a day is used up: {counted(waiting, 'sweep')} "
                "must wait until jobs that were asked for are older than 24 hours"
            )
        return Scan(tuple(sightings), tuple(self._notes), tuple(self._asked))

    def _seen(self) -> dict[str, SeenSweep]:
        """The sweeps of runs that ended since the last scan, what people ask for, and what is due."""
        forest = Forest(self._now)
        for floor, ids in self._marks.floors().items():
            forest.add(self._tracker.select_runs(ids, ended_since=round(floor * 1000)))
        self._marks.seen_until = forest.ended
        if self._hold is None and self._marks.begin:
            forest.add(self._tracker.select_runs(sorted(self._marks.begin), unfinished=True))
        forest.add(self._tracker.select_runs([*self._covered], tag=SOUP))
        forest.fetch(
            self._tracker, [*self._all], {*self._due, *(version.run_id for version in self._versions)}
        )
        self._aliased = by_sweep(self._versions, forest)
        found = {run_id: one for run_id, one in forest.sweeps().items() if self._may_be_sweep(one)}
        self._notes += [
            f"{version.told}, whose run is deleted, or in an experiment that no rule names"
            for sweep, version in self._aliased.items()
            if sweep not in found
        ]
        return found

    def _word(self, parent: Run) -> str | None:
        """What people ask for the sweep by: its parent's tag, a version with an alias."""
        version = self._aliased.get(parent.run_id)
        words = parent.tags.get(SOUP), version.told if version else None
        return ", ".join(filter(None, words)) or None

    def _may_be_sweep(self, one: SeenSweep) -> bool:
        """Of a plain run nothing is asked. What is below a run that began before all scans may be older."""
        parent = one.parent
        if parent.experiment_id not in self._covered:
            return False
        told = one.runs or self._word(parent) or parent.run_id in self._due
        return bool(told) or parent.started < self._marks.earliest(parent.experiment_id) * 1000

    def _is_new(self, one: SeenSweep, row: KnownSweep | None) -> bool:
        """Whether there is more to know of a sweep than what its row tells."""
        word = self._word(one.parent)
        if row is None or one.parent.run_id in self._due:
            return True
        return one.moved > row.moved or (bool(word) and word != row.tag)

    def _may_be_new(self, one: SeenSweep, rows: Mapping[str, KnownSweep]) -> bool:
        """Before it is known which rule is meant: also where one begins, which may be about old sweeps."""
        begin = self._marks.begin.get(one.parent.experiment_id, ())
        told = [rows.get(name) for name in {*rows, *begin}] or [None]
        return any(self._is_new(one, row) for row in told)

    def _ruled(
        self, seen: Mapping[str, SeenSweep], known: Mapping[str, Mapping[str, KnownSweep]]
    ) -> dict[str, tuple[SeenSweep, Rule]]:
        """Those that a rule is about, and of which there is more to know, with the rule."""
        found = {}
        parents = [one.parent for run_id, one in seen.items() if self._may_be_new(one, known[run_id])]
        every = match(parents, self._rules, self._covered, self._tracker, self._aliased)
        for run_id, matched in every.items():
            row = known[run_id].get(matched.rule.name) if matched.rule else None
            if not self._is_new(seen[run_id], row):
                continue
            parent, tag = seen[run_id].parent, seen[run_id].parent.tags.get(SOUP)
            if matched.wrong:
                self._notes.append(f"the sweep {_told(parent)} is left alone: {matched.wrong}")
            elif matched.rule is None and tag:
                self._notes.append(
                    f"the sweep {_told(parent)} has the tag {SOUP}, and no rule matches it: "
                    f"stockpot rules check --rules {self._rules.file} tells what each matches"
                )
            elif matched.rule and (row or self._is_wanted(seen[run_id], matched.rule)):
                found[run_id] = seen[run_id], matched.rule
                if matched.others:
                    names = listed([matched.rule.name, *matched.others])
                    self._notes.append(
                        f"the sweep {_told(parent)} is matched by the rules {names}: the first one counts"
                    )
        return found

    def _is_wanted(self, one: SeenSweep, rule: Rule) -> bool:
        parent = one.parent
        asked = self._word(parent) or parent.run_id in self._due
        return bool(asked) or one.moved >= self._marks.begun(rule, parent.experiment_id)

    def _row(self, one: SeenSweep, rule: Rule, rows: Mapping[str, KnownSweep]) -> KnownSweep:
        """To be looked at now: what is kept before it is looked at is not lost."""
        word, row = self._word(one.parent), rows.get(rule.name)
        if row is None:
            return KnownSweep(one.parent.run_id, rule.name, one.moved, self._now, word)
        return replace(row, moved=max(one.moved, row.moved), look_at=self._now, tag=word)

    def _keep(self, rows: Sequence[KnownSweep], marks: Mapping[str, Watermark]) -> None:
        if self._hold is not None and (rows or marks):
            self._store.keep_scan(rows, marks)

    def _look(
        self, one: SeenSweep, rule: Rule, row: KnownSweep, records: Sequence[JobRecord]
    ) -> tuple[Sighting | None, KnownSweep]:
        """What becomes of a sweep, and its row from now on."""
        if self._budget <= 0 and not records:
            return self._sighted(one, rule, Standing.BUDGET), row
        listing: Sequence[Run] | None = None
        if self._hold is not None or records or not self._marks.is_whole(one.parent):
            try:
                listing = tuple(self._tracker.runs(SweepSelector(one.parent.run_id)))
            except UnknownSweep as error:
                return self._sighted(one, rule, Standing.GONE, error.what), replace(row, look_at=None)
            one = sweep_of(one.parent, listing, self._now)
        row = replace(row, moved=max(row.moved, one.moved))
        if not one.runs:
            if word := self._word(one.parent):
                asked = f"the tag {SOUP}" if one.parent.tags.get(SOUP) else f"a version ({word})"
                self._notes.append(f"the run {_told(one.parent)} has {asked}, and no runs below it")
            return None, replace(row, look_at=None)
        again = self._unfinished_until(one, rule)
        if again is not None:
            still = counted(one.running, "run") if one.running else "its parent run"
            told = f"{still} not ended"
            return self._sighted(one, rule, Standing.UNFINISHED, told), replace(row, look_at=again)
        try:
            request = rule.request_for(one.parent.run_id, partial=one.running > 0)
            job = None if listing is None else job_of(request, self._tracker, listing)
        except (BadRequest, NotPermitted) as error:  # a base that is gone, for example: others' sweeps go on
            sighting = self._sighted(one, rule, Standing.FAILED, fault_line(error))
            return sighting, replace(row, look_at=self._now + HOUR)
        row = replace(row, job=job.name if job else None)
        sighting, look_at = self._decide(one, rule, row, request, job, records)
        return sighting, replace(row, look_at=look_at)

    def _unfinished_until(self, one: SeenSweep, rule: Rule) -> float | None:
        """When to look again at a sweep of which something runs; None for one that is finished, or of which
        what is finished is wanted by now.
        """
        idle = self._now - one.moved
        parent_runs = one.parent.status in UNFINISHED and not one.parent.tags.get(SOUP) and idle < SETTLED
        if not one.running and not parent_runs:
            return None
        # Its next end is seen anyway: this is for runs that are deleted, or end without a time.
        again = self._now + min(DAY, max(SOON, idle / 10))
        if not one.running:
            again = one.moved + SETTLED
        if rule.partial_after_hours is not None:
            again = min(again, one.moved + rule.partial_after_hours * HOUR)
        return again if again > self._now else None

    def _decide(
        self,
        one: SeenSweep,
        rule: Rule,
        row: KnownSweep,
        request: SoupRequest,
        job: Job | None,
        records: Sequence[JobRecord],
    ) -> tuple[Sighting, float | None]:
        """What becomes of a sweep that is finished, and when to look at it again."""
        name = row.job
        # It is the one that is wanted now, whichever was before.
        record = next((replace(found, replaced=False) for found in records if found.name == name), None)
        state = record.state if record else None
        lost = None
        if record and state is JobState.DONE:
            return self._sighted(one, rule, Standing.ANSWERED, job=name), None
        if record and record.lease is not None:
            return self._sighted(one, rule, Standing.RUNNING, holder(record.lease), name), self._now + SOON
        if record and state is JobState.FAILED:
            again = (record.failed_at or 0.0) + backoff(record.attempts)
            if again > self._now:
                tried = counted(record.attempts, "attempt")
                told = f"{record.fault}; {tried}, the next one after {minute(again)}"
                return self._sighted(one, rule, Standing.FAILED, told, name), again
        if record and state is JobState.WAITING and record.asked_at is not None:
            # Ever later, too: where workers are busy for a day, it waits in their queue.
            again = record.asked_at + min(DAY, self._lost_after * 2 ** min(record.attempts, 20))
            if again > self._now:
                told = f"since {minute(record.asked_at)}"
                return self._sighted(one, rule, Standing.WAITING, told, name), again
            lost = record.asked_at if self._lost_after else None
        counted_today = record and record.asked_at is not None and record.asked_at > self._now - DAY
        if self._budget <= 0 and not counted_today:
            return self._sighted(one, rule, Standing.BUDGET, job=name), self._now
        self._budget -= not counted_today
        before = _predecessor(job, records) if job else None
        if self._hold is not None and job is not None:
            self._hold.renew()
            self._keep([row], {})  # from here on the job before is replaced, and not this one
            self._store.ask_job(job, rule.name, predecessor=before.name if before else None, lost=lost)
            attempts = (record.attempts if record else 0) + (lost is not None)
            self._asked.append(Asked(request, job, attempts))
        version = self._aliased.get(one.parent.run_id)
        clauses = [
            *([version.told] if version else []),
            *(["it grew since an earlier job"] if before else []),
            *(["finished runs alone"] if request.partial and one.running else []),
            *([f"{counted(record.attempts, 'attempt')} failed"] if record and record.attempts else []),
        ]
        sighting = self._sighted(one, rule, Standing.DUE, ", ".join(clauses), name)
        return sighting, self._now + self._lost_after

    def _sighted(
        self, one: SeenSweep, rule: Rule, standing: Standing, detail: str = "", job: Digest | None = None
    ) -> Sighting:
        experiment = self._covered[one.parent.experiment_id].name
        return Sighting(one.parent.run_id, one.parent.name, experiment, rule.name, standing, detail, job)

    def _gone(self, row: KnownSweep) -> Sighting:
        told = "its parent run is deleted, or in an experiment that no rule names"
        return Sighting(row.sweep, row.sweep, "", row.rule, Standing.GONE, told)

    def _note_rules_without_experiments(self) -> None:
        for rule in self._rules.rules:
            if not any(rule.covers(one.name) for one in self._all.values()):
                self._notes.append(
                    f"rule {rule.name!r} names no experiment: there is none like {listed(rule.experiments)}"
                )


def _taken_over(row: KnownSweep, rules: Iterable[str]) -> list[KnownSweep]:
    """The rows of the same sweep for the rules that it was under before: nothing is left to do for those."""
    return [replace(row, rule=rule, look_at=None) for rule in rules if rule != row.rule]


def _predecessor(job: Job, records: Sequence[JobRecord]) -> JobRecord | None:
    """The newest job of the same request about an earlier state of the sweep."""
    asked = replace(job.request, partial=False)
    same = [r for r in records if r.request and replace(r.request, partial=False) == asked]
    return next((record for record in reversed(same) if record.name != job.name), None)


def _told(run: Run) -> str:
    return f"{run.name} ({run.run_id})"
