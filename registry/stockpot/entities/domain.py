"""A domain: a label on runs, by what they were trained on."""

ALL = "*"
"""In place of labels: all data, of whichever domain."""
MOST = 64
"""Characters of a label."""


def labels(told: str) -> frozenset[str]:
    """What a run's tag ``stockpot.domain`` names: ``python``, ``a,b``, or ``*``."""
    return frozenset(filter(None, map(str.strip, told.split(","))))


def has_data_of(told: str, domain: str) -> bool:
    """Whether a run with this tag was trained on data of the domain: it names it, among others perhaps, or
    all data.
    """
    return bool({domain, ALL} & labels(told))
