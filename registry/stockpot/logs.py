"""The log for programs: one JSON object a line on stderr, with what the process works on."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from stockpot.secrets import without_secrets

LOG = logging.getLogger("stockpot")
"""What is said of the progress, where nobody else is told."""
_HERE: ContextVar[Mapping[str, str]] = ContextVar("stockpot_works_on")
_EVERYWHERE: list[Mapping[str, str]] = []
"""What all threads of this process work on."""


class JsonLines(logging.Formatter):
    """Writes a record as an object: time (UTC), level, logger, message; model, sweep and job that are worked
    on; the flow run's name; of an error its kind, its faults and its mend. No secrets.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            **_worked_on(),
        }
        for name in ("flow_run_name", "error", "faults", "mend"):
            if found := getattr(record, name, None):
                told[name] = found
        if record.exc_info:
            told["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(told)


@contextmanager
def working_on(**what: str | None) -> Iterator[None]:
    """Lines that are logged meanwhile tell it. Threads that this one has started tell it too, as long as the
    process works on nothing else.
    """
    told = {name: value for name, value in what.items() if value}
    before = _HERE.set(told)
    _EVERYWHERE.append(told)
    try:
        yield
    finally:
        _EVERYWHERE.remove(told)
        _HERE.reset(before)


def write_json() -> None:
    """From now on all that is logged on stderr is JSON, whoever set its handler up; ours from INFO on.

    Prefect sets the root's handlers when it is imported: then this is to be called again.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, tuple(logging.root.manager.loggerDict))]
    for logger in loggers:
        old = [found for found in logger.handlers if _is_stream(found)]
        if old or logger in {logging.root, LOG}:
            level = min((found.level for found in old), default=logging.NOTSET)
            logger.handlers[:] = [*(each for each in logger.handlers if each not in old), _handler(level)]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False  # the root's handler may be told to be silent, as Prefect's is beside a command
    logging.captureWarnings(capture=True)


def writes_json() -> bool:
    """Whether `write_json` was called."""
    return any(isinstance(handler.formatter, JsonLines) for handler in LOG.handlers)


def _is_stream(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


def _handler(level: int) -> logging.Handler:
    made = logging.StreamHandler()
    made.setLevel(level)
    made.setFormatter(JsonLines())
    return made


def _worked_on() -> Mapping[str, str]:
    everywhere = [*_EVERYWHERE]
    alike = everywhere and all(told == everywhere[0] for told in everywhere)
    return _HERE.get(everywhere[0] if alike else {})
