"""A tracker that crashes around one of its calls."""

from typing import Any, Literal

from stockpot.ports import Tracker

CREATING_CALLS = ("create_run", "create_ingredient_model", "create_model", "create_version")
WRITING_CALLS = ("prove_writable", "upload", "record", "set_alias", "note_version")
"""Those may be repeated at will."""


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing may catch it and go on."""


class CrashingTracker:
    """Passes every call on, and raises Crash before or after the nth call of the named method,
    and at every call from then on.

    It counts the calls that reach the tracker in `calls`. Cast it to Tracker.
    """

    def __init__(
        self, inner: Tracker, call: str = "", when: Literal["before", "after"] = "before", nth: int = 1
    ) -> None:
        self.calls: list[str] = []
        self._inner = inner
        self._call = call
        self._when = when
        self._left = nth
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def passed_on(*args: Any, **kwargs: Any) -> Any:
            if self._dead:
                raise Crash(self._call)
            self._left -= name == self._call
            due = name == self._call and self._left == 0
            self._dead = due
            if due and self._when == "before":
                raise Crash(name)
            self.calls.append(name)
            result = method(*args, **kwargs)
            if due:
                raise Crash(name)
            return result

        return passed_on
