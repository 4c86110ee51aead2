"""A tracker that crashes around one of its calls."""

from typing import Any, Literal

from registry.ports import Tracker

CREATING_CALLS = ("create_run", "create_ingredient_model", "create_model", "create_version")


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing may catch it and go on."""


class CrashingTracker:
    """Passes every call on, and raises Crash before or after the first call of the named method.

    It counts the calls that reach the tracker in `calls`. Cast it to Tracker.
    """

    def __init__(self, inner: Tracker, call: str = "", when: Literal["before", "after"] = "before") -> None:
        self.calls: list[str] = []
        self._inner = inner
        self._call = call
        self._when = when

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def passed_on(*args: Any, **kwargs: Any) -> Any:
            if name == self._call and self._when == "before":
                raise Crash(name)
            self.calls.append(name)
            result = method(*args, **kwargs)
            if name == self._call:
                raise Crash(name)
            return result

        return passed_on
