"""Jobs in SQL, and where they found their candidates."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    ColumnElement,
    case,
    delete,
    exists,
    false,
    func,
    literal,
    select,
    type_coerce,
    update,
)

from stockpot.documents import from_document, to_document
from stockpot.entities import (
    Answer,
    Candidate,
    CheckpointPlace,
    Digest,
    Evidence,
    Job,
    JobRecord,
    Lease,
    Opening,
    SoupOutcome,
    SoupRequest,
)
from stockpot.errors import StockpotError
from stockpot.store.claims import require_lease
from stockpot.store.places import place_of
from stockpot.store.sql_registrations import HELD, Clock, lease_of
from stockpot.store.tables import CandidateRow, JobRow, LeaseRow, SweepRow
from stockpot.store.transactions import Transactions, in_parts, insert_once

T = TypeVar("T")
DAY = 24 * 3600
REQUEST = type_coerce(JobRow.request, JSON)
"""Plain, since it may be in an older program's words."""
SWEEP = REQUEST["sweep"].as_string()
EXPERIMENT = REQUEST["experiment"].as_string()
LET_GO = exists().where(
    SweepRow.sweep == SWEEP, SweepRow.rule == JobRow.rule, SweepRow.job != JobRow.name
) & ~exists().where(SweepRow.sweep == SWEEP, SweepRow.job == JobRow.name)
"""Its rule wants another job of the sweep, and no rule wants this one."""
KNOWN = select(
    JobRow.name,
    JobRow.model,
    REQUEST.label("request"),
    *(JobRow.created_at, JobRow.asked_at, JobRow.answered_at, JobRow.failed_at),
    *(JobRow.fault, JobRow.attempts, JobRow.predecessor, LET_GO.label("replaced")),
    *(LeaseRow.owner, LeaseRow.since, LeaseRow.until),
).outerjoin(LeaseRow, (LeaseRow.name == literal(Job.LEASES) + JobRow.name) & HELD)
"""What a record tells."""


class SqlJobs(Transactions):
    """Who asked what, and what came of it."""

    def begin_job(self, job: Job) -> None:
        with self._transaction(self._writes) as session:
            # What a dead process held, and nobody took over, since another one had done it.
            session.execute(delete(LeaseRow).where(LeaseRow.until < Clock() - DAY))
            insert_once(
                session,
                JobRow,
                name=job.name,
                model=job.request.model,
                request=job.request,
                created_at=time.time(),
            )

    def commit_candidates(self, job: Job, candidates: Sequence[Candidate]) -> None:
        with self._transaction(self._writes) as session:
            for candidate in candidates:
                found = place_of(candidate)
                insert_once(
                    session,
                    CandidateRow,
                    job=job.name,
                    run_id=found.run_id,
                    path=found.path,
                    model_id=found.model_id,
                    checkpoint=candidate.checkpoint.digest,
                )

    def open_job(self, job: Job, opening: Opening, *, owner: str) -> None:
        with self._transaction(self._writes) as session:
            require_lease(job, lease_of(session, job.lease), owner)
            opened = update(JobRow).where(JobRow.name == job.name)
            session.execute(opened.values(opening=to_document(opening)))

    def opening(self, job: Digest) -> Opening | None:
        with self._transaction(self._reads) as session:
            document = session.scalar(select(JobRow.opening).where(JobRow.name == job))
        return readable(Opening, document)

    def jobs_at_work(self) -> tuple[Job, ...]:
        found = (
            select(JobRow.name, REQUEST.label("request"))
            .join(LeaseRow, LeaseRow.name == literal(Job.LEASES) + JobRow.name)
            .where(HELD)
            .order_by(LeaseRow.since, LeaseRow.name)
        )
        with self._transaction(self._reads) as session:
            rows = session.execute(found).all()
        requests = ((row.name, readable(SoupRequest, row.request)) for row in rows)
        return tuple(Job(name, request) for name, request in requests if request is not None)

    def finish_job(self, job: Job, outcome: SoupOutcome, evidence: Evidence, *, owner: str) -> None:
        answered = {
            "outcome": to_document(outcome),
            "evidence": to_document(evidence),
            "answered_at": Clock(),
            "failed_at": None,
            "fault": None,
        }
        with self._transaction(self._writes) as session:
            require_lease(job, lease_of(session, job.lease), owner)
            session.execute(update(JobRow).where(JobRow.name == job.name).values(**answered))

    def fail_job(self, job: Job, fault: str, *, owner: str) -> None:
        with self._transaction(self._writes) as session:
            lease = lease_of(session, job.lease)
            held = require_lease(job, lease, owner)
            told = JobRow.failed_at.is_not(None) & (JobRow.failed_at >= held.since)
            attempts = case((told, JobRow.attempts), else_=JobRow.attempts + 1)
            failed = update(JobRow).where(JobRow.name == job.name)
            session.execute(failed.values(failed_at=Clock(), fault=fault, attempts=attempts))

    def confirm_job(self, job: Job) -> None:
        later = JobRow.failed_at.is_not(None) | (JobRow.asked_at > JobRow.answered_at)
        found = update(JobRow).where(JobRow.name == job.name, JobRow.answered_at.is_not(None), later)
        with self._transaction(self._writes) as session:
            session.execute(found.values(answered_at=Clock(), failed_at=None, fault=None))

    def ask_job(
        self, job: Job, rule: str, *, predecessor: Digest | None = None, lost: float | None = None
    ) -> None:
        self.begin_job(job)
        with self._transaction(self._writes) as session:
            unheard = false() if lost is None else JobRow.asked_at == lost
            asked = {
                "asked_at": Clock(),
                "rule": rule,
                "predecessor": func.coalesce(JobRow.predecessor, predecessor),
                "attempts": case((unheard, JobRow.attempts + 1), else_=JobRow.attempts),
            }
            session.execute(update(JobRow).where(JobRow.name == job.name).values(**asked))

    def asked_within(self, seconds: float, rules: Collection[str]) -> int:
        lately = JobRow.asked_at > Clock() - seconds
        asked = select(func.count()).select_from(JobRow).where(lately, JobRow.rule.in_(rules))
        with self._transaction(self._reads) as session:
            return session.scalar(asked) or 0

    def job_records(
        self, names: Collection[Digest] | None = None, *, sweeps: Collection[str] | None = None
    ) -> tuple[JobRecord, ...]:
        with self._transaction(self._reads) as session:
            rows = [
                row
                for among in _among(names, sweeps)
                for row in session.execute(KNOWN.where(among) if among is not None else KNOWN)
            ]
        return tuple(_record(row) for row in sorted(rows, key=lambda row: (row.created_at, row.name)))

    def answer(self, job: Job) -> Answer | None:
        kept = select(JobRow.outcome, JobRow.evidence, JobRow.answered_at).where(JobRow.name == job.name)
        with self._transaction(self._reads) as session:
            row = session.execute(kept).one_or_none()
        if row is None or row.answered_at is None:
            return None
        outcome, evidence = readable(SoupOutcome, row.outcome), readable(Evidence, row.evidence)
        if outcome is None or evidence is None:
            return None
        return Answer(outcome, row.answered_at, evidence)

    def places(self, checkpoint: Digest) -> tuple[CheckpointPlace, ...]:
        found = (
            select(CandidateRow.run_id, CandidateRow.path, CandidateRow.model_id)
            .where(CandidateRow.checkpoint == checkpoint)
            .distinct()
            .order_by(CandidateRow.run_id, CandidateRow.path)
        )
        with self._transaction(self._reads) as session:
            return tuple(CheckpointPlace(*row) for row in session.execute(found))


def _among(
    names: Collection[Digest] | None, sweeps: Collection[str] | None
) -> Iterator[ColumnElement[bool] | None]:
    """A condition for each statement; None where all jobs are wanted."""
    if names is None and sweeps is None:
        yield None
    wanted = ((JobRow.name, names), (SWEEP, sweeps))
    for column, values in wanted:
        yield from (column.in_(some) for some in in_parts(values or ()))


def _record(row: Any) -> JobRecord:
    lease = None if row.owner is None else Lease(f"{Job.LEASES}{row.name}", row.owner, row.since, row.until)
    return JobRecord(
        name=row.name,
        model=row.model,
        request=readable(SoupRequest, row.request),
        created_at=row.created_at,
        asked_at=row.asked_at,
        answered_at=row.answered_at,
        failed_at=row.failed_at,
        fault=row.fault,
        attempts=row.attempts,
        predecessor=row.predecessor,
        replaced=row.replaced,
        lease=lease,
    )


def readable(kind: type[T], document: Any) -> T | None:
    """None where there is none, or it was written before a field was added or dropped."""
    try:
        return None if document is None else from_document(kind, document)
    except StockpotError:
        return None
