"""Jobs in SQL, and where they found their candidates."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from collections.abc import Sequence

from sqlalchemy import select, update

from stockpot.documents import from_document, to_document
from stockpot.entities import Answer, Candidate, CheckpointPlace, Digest, Evidence, Job, SoupOutcome
from stockpot.errors import StockpotError
from stockpot.store.claims import require_lease
from stockpot.store.places import place_of
from stockpot.store.sql_registrations import Clock, lease_of
from stockpot.store.tables import CandidateRow, JobRow
from stockpot.store.transactions import Transactions, insert_once


class SqlJobs(Transactions):
    """Who asked what, and what came of it."""

    def begin_job(self, job: Job) -> None:
        with self._transaction(self._writes) as session:
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
        with self._transaction(self._reads) as session:
            row = session.get(JobRow, job.name)
            if row is None or row.outcome is None or row.answered_at is None:
                return None
            try:
                outcome, evidence = (
                    from_document(SoupOutcome, row.outcome),
                    from_document(Evidence, row.evidence),
                )
            except StockpotError:  # written before a field was added or dropped
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
