"""What MLflow has no room for, or refuses, in the form in which it takes it."""

import hashlib
import posixpath
import re

# MLflow's own limits; some of its databases fail beyond them, others cut silently.
MOST_DESCRIPTION = 5000
MOST_TAG = 8000
MOST_PARAM = 6000
MOST_NAME = 250
MOST_DATASET_NAME = 500
MOST_MODEL_NAME = 256
REFUSED_IN_MODEL_NAMES = re.compile(r"[/:.%\"']+")
REFUSED_IN_KEYS = re.compile(r"[^\w\-./ ]")
SEGMENT = re.compile(r"[^/]+")


def key_of(name: str) -> str:
    """The key of a metric or parameter. MLflow takes few characters, and only paths in their shortest form:
    a name that it refuses gets a digest, so that two names never share a key.
    """
    taken = REFUSED_IN_KEYS.sub("_", name)
    if taken == name and posixpath.normpath(name) == name and not name.startswith(("/", "..")):
        return _distinct(name, MOST_NAME)
    parts = [part for part in SEGMENT.findall(taken) if part.strip(".")]
    return _marked("/".join(parts), name, MOST_NAME)


def dataset_name(split: str) -> str:
    """The name of a split's dataset: two splits never share one."""
    return _distinct(split, MOST_DATASET_NAME)


def model_name(name: str) -> str:
    """The name of a LoggedModel; several may share one."""
    return REFUSED_IN_MODEL_NAMES.sub("-", name)[:MOST_NAME]


def cut(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def description(text: str, run_id: str, version: str) -> str:
    """Filled in, and no longer than MLflow takes."""
    return whole_lines(text.replace("{run_id}", run_id).replace("{version}", version))


def whole_lines(text: str) -> str:
    """A description, cut after a whole line, so that no link or table row is left half."""
    if len(text) <= MOST_DESCRIPTION:
        return text
    return text[: MOST_DESCRIPTION - 2].rpartition("\n")[0] + "\n…"


def _distinct(name: str, most: int) -> str:
    return name if len(name) <= most else _marked(name, name, most)


def _marked(text: str, name: str, most: int) -> str:
    """The text, cut, with a digest of the whole name."""
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{text[: most - len(mark) - 1].rstrip('/')}-{mark}"
