"""Jobs in SQL, and where they found their candidates."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import JSON, delete, literal, select, type_coerce, update

from stockpot.documents import from_document, to_document
from stockpot.entities import (
    Answer,
    Candidate,
    CheckpointPlace,
    Digest,
    Evidence,
    Job,
    Opening,
    SoupOutcome,
    SoupRequest,
)
from stockpot.errors import StockpotError
from stockpot.store.claims import require_lease
from stockpot.store.places import place_of
from stockpot.store.sql_registrations import Clock, lease_of
from stockpot.store.tables import CandidateRow, JobRow, LeaseRow
from stockpot.store.transactions import Transactions, insert_once

T = TypeVar("T")
DAY = 24 * 3600


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
        return _readable(Opening, document)

    def jobs_at_work(self) -> tuple[Job, ...]:
        found = (
            select(JobRow.name, type_coerce(JobRow.request, JSON).label("request"))
            .join(LeaseRow, LeaseRow.name == literal(Job.LEASES) + JobRow.name)
            .where(LeaseRow.until >= Clock())
            .order_by(LeaseRow.since, LeaseRow.name)
        )
        with self._transaction(self._reads) as session:
            rows = session.execute(found).all()
        requests = ((row.name, _readable(SoupRequest, row.request)) for row in rows)
        return tuple(Job(name, request) for name, request in requests if request is not None)

    def finish_job(self, job: Job, outcome: SoupOutcome, evidence: Evidence, *, owner: str) -> None:
        answered = {
            "outcome": to_document(outcome),
            "evidence": to_document(evidence),
            "answered_at": Clock(),
        }
        with self._transaction(self._writes) as session:
            require_lease(job, lease_of(session, job.lease), owner)
            session.execute(update(JobRow).where(JobRow.name == job.name).values(**answered))

    def answer(self, job: Job) -> Answer | None:
        kept = select(JobRow.outcome, JobRow.evidence, JobRow.answered_at).where(JobRow.name == job.name)
        with self._transaction(self._reads) as session:
            row = session.execute(kept).one_or_none()
        if row is None or row.answered_at is None:
            return None
        outcome, evidence = _readable(SoupOutcome, row.outcome), _readable(Evidence, row.evidence)
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


def _readable(kind: type[T], document: Any) -> T | None:
    """None where there is none, or it was written before a field was added or dropped."""
    try:
        return None if document is None else from_document(kind, document)
    except StockpotError:
        return None
