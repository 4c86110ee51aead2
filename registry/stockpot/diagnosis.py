"""What a look at one part of an installation found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from stockpot.errors import StockpotError, Unexpected
from stockpot.prose import visible
from stockpot.secrets import without_secrets


class Health(StrEnum):
    """How it stands with a part."""

    OK = "ok"
    WARNING = "warning"
    """Requests are answered, though not as well as they might be."""
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line of `stockpot doctor`, without secrets."""

    part: str
    health: Health
    told: str
    mend: str = ""
    """The command, or what to do; empty where all is well."""
    exit_code: int = 0
    """Of the error that a fault is."""

    @classmethod
    def ok(cls, part: str, told: str) -> "Diagnosis":
        """All is well."""
        return cls(part, Health.OK, visible(without_secrets(told)))

    @classmethod
    def warning(cls, part: str, told: str, *, mend: str) -> "Diagnosis":
        """Something to know of."""
        shown = visible(without_secrets(mend, parts=False))
        return cls(part, Health.WARNING, visible(without_secrets(told)), shown)

    @classmethod
    def fault(cls, part: str, error: Exception) -> "Diagnosis":
        """What this error tells; one that nobody foresaw as Unexpected."""
        known = error if isinstance(error, StockpotError) else Unexpected.of(error)
        told = "; ".join([known.what, *known.faults])
        return cls(part, Health.FAULT, told, known.mend, known.exit_code)


def looked(part: str, look: Callable[[], Iterable[Diagnosis]]) -> Iterator[Diagnosis]:
    """What a look finds, and as a fault what ends it."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - one part's fault, and the others are looked at all the same
        yield Diagnosis.fault(part, error)
