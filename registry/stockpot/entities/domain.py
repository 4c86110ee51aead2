"""A domain: a label on examples, and on runs by what they were trained on."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

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


def is_own(told: str, domain: str) -> bool:
    """Whether a run with this tag is one of the domain's own: it was trained on data of that one alone."""
    return labels(told) == {domain}


def normalised(label: str) -> str:
    """What is left of a label in the name of an alias: small letters, digits and single hyphens. Empty where
    it has none of them.
    """
    plain = unicodedata.normalize("NFKD", label).casefold()
    return re.sub("[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode()).strip("-")


def label_faults(told: Iterable[str]) -> Iterator[str]:
    """What is wrong with labels: each by itself, and those that nobody could tell apart as aliases."""
    by_alias: dict[str, list[str]] = defaultdict(list)
    for label in sorted(set(told)):
        if label == ALL:
            yield f"{ALL!r} stands for all domains, and is none of examples"
        elif not label.strip():
            yield "a label is empty"
        elif label != label.strip() or "," in label or not label.isprintable():
            yield f"{label!r} holds a comma, a control character, or blanks at an end"
        elif len(label) > MOST:
            yield f"{label!r} has {len(label)} characters, of which {MOST} are allowed"
        elif not normalised(label):
            yield f"{label!r} has no letter or digit that an alias may have"
        else:
            by_alias[normalised(label)].append(label)
    for alias, alike in by_alias.items():
        if len(alike) > 1:
            yield f"{', '.join(alike)} would all be {alias!r} in the name of an alias"
