"""What becomes of a delivery: it is accepted, or refused for one reason."""

from enum import StrEnum


class Verdict(StrEnum):
    """Of one delivery, in the words that its sender and the log are told."""

    ACCEPTED = "accepted"
    IGNORED = "accepted: nothing that Stockpot looks at"
    UNSIGNED = "refused: without MLflow's three headers, each once and well-formed"
    FORGED = "refused: not signed with a secret that is known here"
    LATE = "refused: signed too long ago"
    EARLY = "refused: signed in the future: the clocks differ"
    REPLAYED = "refused: taken before"
    TOO_LARGE = "refused: too large"
    TOO_SLOW = "refused: it did not arrive in time"
    CUT_OFF = "refused: cut off"
    UNREADABLE = "refused: signed, and nothing that MLflow sends"

    @property
    def status(self) -> int:
        """The answer's, of HTTP. On none of these MLflow sends again, as it does on 429 and 500 to 504."""
        return _STATUS[self]


_STATUS = {
    Verdict.ACCEPTED: 200,
    Verdict.IGNORED: 202,
    Verdict.UNSIGNED: 401,
    Verdict.FORGED: 401,
    Verdict.LATE: 401,
    Verdict.EARLY: 401,
    Verdict.REPLAYED: 409,
    Verdict.TOO_LARGE: 413,
    Verdict.TOO_SLOW: 408,
    Verdict.CUT_OFF: 400,
    Verdict.UNREADABLE: 400,
}
