"""Reports in SQL."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time

from sqlalchemy import distinct, func, select

from stockpot.documents import to_document
from stockpot.entities import Digest, FiledReport, SoupReport, digest_of_document
from stockpot.store.reports import dataset_of, question_of
from stockpot.store.tables import ReportedRow, ReportRow
from stockpot.store.transactions import Transactions, insert_once, keep_recipe


class SqlReports(Transactions):
    """The reports of requests."""

    def commit_report(self, report: SoupReport) -> None:
        digest = digest_of_document(to_document(report))
        with self._transaction(self._writes) as session:
            new = insert_once(
                session,
                ReportRow,
                digest=digest,
                question=question_of(report),
                dataset=dataset_of(report),
                document=report,
                created_at=time.time(),
            )
            if new:
                for recipe in {row.recipe.digest: row.recipe for row in report.rows}.values():
                    keep_recipe(session, recipe)
                    session.add(ReportedRow(report=digest, recipe=recipe.digest))

    def reports(self, recipe: Digest) -> tuple[FiledReport, ...]:
        rows = (
            select(ReportRow)
            .join(ReportedRow, ReportedRow.report == ReportRow.digest)
            .where(ReportedRow.recipe == recipe)
            .order_by(ReportRow.id)
        )
        with self._transaction(self._reads) as session:
            return tuple(FiledReport(row.document, row.created_at) for row in session.scalars(rows))

    def requests_on(self, dataset: Digest) -> int:
        asked = select(func.count(distinct(ReportRow.question))).where(ReportRow.dataset == dataset)
        with self._transaction(self._reads) as session:
            return session.scalar(asked) or 0
