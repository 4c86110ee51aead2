"""What a report is about, for every store."""

from stockpot.documents import to_document
from stockpot.entities import Digest, SoupReport, digest_of_document


def question_of(report: SoupReport) -> Digest:
    """Names the request together with the candidates that it found.

    A request that is repeated over the same candidates is the same question, also with --again or
    --verify-exact, which look at no new data; over more candidates it is another.
    """
    runs = sorted(candidate.run_id for candidate in report.candidates)
    return digest_of_document([to_document(report.request.question), runs])


def dataset_of(report: SoupReport) -> Digest | None:
    """The dataset of the report split; None where nothing was measured on it."""
    split = report.request.report_on
    return next((protocol.dataset for protocol in report.protocols if protocol.split == split), None)
