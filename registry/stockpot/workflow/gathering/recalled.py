"""What no soup may hold: recalled runs and checkpoints, and soups that hold them."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stockpot.entities import Digest, Recall, RecallKind, tags
from stockpot.entities.domain import has_data_of

if TYPE_CHECKING:
    from stockpot.ports import Store, Tracker

WITHDRAWN = "withdrawn: "
"""What the tag `stockpot.recalled` of a version begins with whose recall was taken back."""


@dataclass(frozen=True)
class Recalled:
    """What is recalled now, each with the word that counts."""

    runs: Mapping[str, Recall] = field(default_factory=dict)
    checkpoints: Mapping[Digest, Recall] = field(default_factory=dict)
    """Those that these runs logged, and soups that hold one of them, too."""

    def of(self, run_id: str, checkpoint: Digest | None = None) -> Recall | None:
        """The word by which this may be in no soup, if there is one."""
        return self.runs.get(run_id) or (self.checkpoints.get(checkpoint) if checkpoint else None)


def recalled(store: "Store", tracker: "Tracker") -> Recalled:
    """Ask what is recalled: usually nothing, which is one question to the store.

    Which runs used recalled data MLflow is asked anew: some may have come since. Raises TrackingError.
    """
    words = in_force(store.recalls())
    if not words:
        return Recalled()
    runs: dict[str, Recall] = {}
    checkpoints: dict[Digest, Recall] = {}
    for word in words:
        if word.kind is RecallKind.CHECKPOINT:
            checkpoints[Digest(word.name)] = word
            continue
        named = runs_of(word, tracker)
        runs |= dict.fromkeys(named, word)
        checkpoints |= dict.fromkeys(store.logged_by(named), word)
    return Recalled(runs, _with_soups(checkpoints, store))


def runs_of(word: Recall, tracker: "Tracker") -> tuple[str, ...]:
    """The ids of the runs that a word is about, deleted ones too; of a checkpoint none."""
    match word.kind:
        case RecallKind.RUN:
            return (word.name,)
        case RecallKind.DATASET:
            return tracker.runs_on(word.name)
        case RecallKind.DOMAIN:
            told = tracker.runs_tagged(tags.DOMAIN)
            return tuple(run.run_id for run in told if has_data_of(run.tags[tags.DOMAIN], word.name))
        case RecallKind.CHECKPOINT:
            return ()


def _with_soups(roots: Mapping[Digest, Recall], store: "Store") -> Mapping[Digest, Recall]:
    """These, and the soups that hold them, each by the word about what it holds."""
    why, left = dict(roots), [*store.blends(roots, down=True)]
    while left:  # from the roots on: each round reaches the soups one step further
        reached = [blend for blend in left if blend.ingredient in why]
        left = [blend for blend in left if blend.ingredient not in why]
        for blend in reached:
            why.setdefault(blend.soup, why[blend.ingredient])
    return why


def in_force(words: Iterable[Recall]) -> tuple[Recall, ...]:
    """The last word about each thing, of those that were not taken back."""
    last = {(word.kind, word.name): word for word in words}
    return tuple(word for word in last.values() if not word.withdrawn)


def way_back(word: Recall) -> str:
    """The command by which a person takes it back."""
    command = f"stockpot recall --{word.kind} {shlex.quote(word.name)} --withdraw --reason TEXT"
    return f"a person who wants it back says so: {command}"


def told(word: Recall) -> str:
    """A clause: who recalled what, and why."""
    return f"{word.told} was recalled by {word.by}: {word.reason}"
