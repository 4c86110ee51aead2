"""A task that keeps a tally of its forward passes: which process put which batch through which weights."""

import hashlib
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from torch import Tensor, nn

from stockpot.testing.tiny import TinyTask

MOST_SECONDS = 90.0
_BEGAN = time.monotonic()
SPLITS = ("validation", "test", "shifted")
tally: Path | None = None
"""A variable of the environment would be a doubt in whether an answer still holds."""


class Counting(TinyTask):
    """The same data and scores whatever the file `salt` holds: another content is another question alone."""

    def __init__(self, salt: str = "") -> None:
        super().__init__(kind="dense", n="80")
        self.salt = salt

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if tally is not None:
            _await_helper(tally)
            weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
            line = f"{os.getpid()} {_short(weights)} {_short(batch[0].numpy().tobytes())}\n"
            with tally.open("a") as file:
                file.write(line)
        return super().predict(model, batch)


@cache
def batches() -> dict[str, frozenset[str]]:
    """Of each split, as the tally names them: those of a whole pass in their own order."""
    task, found = Counting(), {}
    for split in SPLITS:
        examples = task.examples(split)
        parts = [
            examples[begin : begin + task.batch_size] for begin in range(0, len(examples), task.batch_size)
        ]
        found[split] = frozenset(_short(task.collate(list(part))[0].numpy().tobytes()) for part in parts)
    return found


def repeated(tally: Path) -> int:
    """How many whole passes of the same weights over the same split a further process made."""
    seen: dict[tuple[str, str], set[str]] = {}
    for line in tally.read_text().splitlines() if tally.exists() else ():
        with suppress(ValueError):  # a full disk cuts a line, and the next one begins behind it
            process, weights, batch = line.split()
            seen.setdefault((process, weights), set()).add(batch)
    made: dict[tuple[str, str], int] = {}
    for (_, weights), found in seen.items():
        for split, whole in batches().items():
            if whole <= found:
                made[weights, split] = made.get((weights, split), 0) + 1
    return sum(number - 1 for number in made.values())


def _await_helper(tally: Path) -> None:
    """Where the trial is about one: until it has begun, or this module was imported some time ago. A process
    that is forked from one that had it already waits for nobody.
    """
    while tally.with_suffix(".meet").exists() and not tally.with_suffix(".helper").exists():
        if time.monotonic() - _BEGAN > MOST_SECONDS:
            return
        time.sleep(0.05)


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
