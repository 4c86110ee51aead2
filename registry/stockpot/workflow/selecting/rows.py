"""What the lines of a report have in common."""

from collections.abc import Mapping, Sequence

from stockpot.entities import MEAN_OF_SHIFTS, SoupRequest

BEST_SINGLE = "best single"
BASE = "base"
GENERALIST = "greedy"
"""The method whose soup is the primary one: among domains, by the mixture's score."""
SPECIALIST = "specialist:"
"""What the names of methods begin with that look for a domain's soup; the domain follows."""

POINT = 0.01
"""Scores between 0 and 1 are told in points, hundredths of a score; of accuracy, percentage points. Others
are told as they are, in the task's own unit. A function takes a report's `unit`: None for points.
"""


def score(value: float, unit: str | None) -> str:
    """A score without its unit."""
    return f"{value / POINT:.2f}" if unit is None else f"{value:.6g}"


def domain_of(method: str) -> str:
    """Whose specialist this method looks for; empty where it looks for none."""
    return method.removeprefix(SPECIALIST) if method.startswith(SPECIALIST) else ""


def domains_of(methods: Sequence[str]) -> list[str]:
    """Those whose specialists these methods look for, in their order."""
    return [*filter(None, map(domain_of, methods))]


def label(methods: Sequence[str]) -> str:
    """Of the soup that these methods found: "greedy and uniform soup", "python specialist"."""
    general = [method for method in methods if not domain_of(method)]
    told = [f"{' and '.join(general)} soup"] if general else []
    told += [f"{domain} specialist" for domain in map(domain_of, methods) if domain]
    return " and ".join(told)


def with_mean(request: SoupRequest, values: Mapping[str, float]) -> dict[str, float]:
    """In the order of the splits, and the mean of the shifted ones where all are known."""
    ordered = {s: values[s] for s in (request.select_on, request.report_on, *request.shifts) if s in values}
    if request.shifts and values.keys() >= set(request.shifts):
        ordered[MEAN_OF_SHIFTS] = sum(values[split] for split in request.shifts) / len(request.shifts)
    return ordered
