"""As much of MLflow's filter language as a sweep in memory needs."""

import operator
import re
from collections.abc import Mapping

from stockpot.entities import Run
from stockpot.errors import BadRequest

CONDITION = re.compile(
    r"(?P<kind>params|metrics|tags)\.`?(?P<key>[\w.]+)`? *(?P<sign>!=|=|<|>) *(?P<value>.+)"
)
SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}


def conditions_of(text: str) -> list[re.Match[str]]:
    """Conditions joined by ``and``. Raises BadRequest for what is none."""
    parts = [part.strip() for part in text.split(" and ") if part]
    conditions = [condition for part in parts if (condition := CONDITION.fullmatch(part))]
    if len(conditions) < len(parts):
        raise BadRequest(f"filter {text!r}: not understood", mend="write for example: params.lr = '0.1'")
    return conditions


def holds(run: Run, condition: re.Match[str]) -> bool:
    """Whether the run logged this, and the comparison is true."""
    logged: Mapping[str, str | float] = getattr(run, condition["kind"])
    wanted = condition["value"].strip().strip("'\"")
    if condition["key"] not in logged:
        return False
    value = float(wanted) if condition["kind"] == "metrics" else wanted
    return bool(SIGNS[condition["sign"]](logged[condition["key"]], value))
