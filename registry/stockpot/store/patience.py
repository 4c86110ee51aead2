"""A lost connection is no lost walk: transactions that may be repeated are tried again."""

import re
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError

from stockpot.errors import StoreError
from stockpot.ports import Store

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=type)

WAITS = (0.1, 0.3, 1, 3, 5, 10, 15, 30, 30, 30)
"""Seconds between tries: two minutes in all, in which a server is restarted or another one takes over."""
PASSING = ("08", "40", "53", "55P03", "57")
"""Beginnings of PostgreSQL's codes for faults that pass: connections, conflicts, resources, a shutdown."""
FULL = re.compile("too many (clients|connections)|connection slots|no more connections")
"""Of PostgreSQL and of PgBouncer."""


def tries_again(store: S) -> S:
    """Repeat each transaction of this store that a passing fault of PostgreSQL ended.

    All of them may be repeated, also where only the answer to a commit was lost: a second time they find
    what they wrote the first time.
    """
    parts = [part for part in Store.__mro__ if part.__module__.startswith("stockpot.")]
    for name in {name for part in parts for name in vars(part) if not name.startswith("_")}:
        setattr(store, name, patient(getattr(store, name), may_pass))
    return store


def patient(method: Callable[P, T], passes: Callable[[BaseException | None], bool]) -> Callable[P, T]:
    """The method, tried again for two minutes while what ends it `passes`."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for wait in WAITS:
            try:
                return method(*args, **kwargs)
            except StoreError as error:
                if not passes(error.__cause__):
                    raise
            time.sleep(wait)
        return method(*args, **kwargs)

    return call


def is_full(error: BaseException | None) -> bool:
    """Whether a server has no connection left, which it says without a code."""
    return may_pass(error) and FULL.search(str(error)) is not None


def may_pass(error: BaseException | None) -> bool:
    """Whether another try may succeed. SQLite waits for its turn by itself."""
    if not isinstance(error, DBAPIError):
        return False
    if type(error.orig).__module__.startswith("sqlite3"):
        return False
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return error.connection_invalidated or (code is None or code.startswith(PASSING))
