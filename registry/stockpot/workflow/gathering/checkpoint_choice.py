"""Which checkpoint of a run that logged several: the best by its tool's own word, or the last.

Read of what the tools write beside their checkpoints:

- Hugging Face's Trainer: ``trainer_state.json`` in each ``checkpoint-<step>`` folder names the best of all
  that were there by then (``best_model_checkpoint``; ``transformers/trainer_callback.py``);
- Lightning's MLFlowLogger: ``aliases.txt`` beside a checkpoint that was the best when it was logged says so
  (``lightning/pytorch/loggers/mlflow.py``);
- MLflow: the step at which a LoggedModel was logged, and its metrics.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from stockpot.entities import BEST, LAST, Direction, SoupRequest, WeightsSource, tags
from stockpot.errors import AmbiguousWeights, BadCheckpoint
from stockpot.prose import listed
from stockpot.workflow.gathering.exclusion_rules import NAMED
from stockpot.workflow.gathering.places import read_small

if TYPE_CHECKING:
    from stockpot.ports import Tracker

PATTERN = f"--weights PATTERN, or the tag {tags.WEIGHTS}=PATH on the run"
STATE = "trainer_state.json"
ALIASES = "aliases.txt"
_STEPS = [
    re.compile(rf"{word}[-_= ]?(\d{{1,15}})", re.ASCII | re.IGNORECASE)
    for word in ("step", "checkpoint", "iter(?:ation)?", "epoch")
]
"""How the path of a checkpoint tells its step; the first that fits counts."""


def choose_checkpoint(
    sources: Sequence[WeightsSource], request: SoupRequest, tracker: "Tracker"
) -> WeightsSource:
    """One of a run's checkpoints, as `choice_of`."""
    return choice_of(sources, request, tracker)[0]


def choice_of(
    sources: Sequence[WeightsSource], request: SoupRequest, tracker: "Tracker"
) -> tuple[WeightsSource, str]:
    """One of a run's checkpoints: what `SoupRequest.weights` and `checkpoint_metric` ask for, else the best
    where its tool recorded that; and a clause that tells why this one. Raises AmbiguousWeights where nothing
    tells.
    """
    held = f"{len(sources)} weights files: {listed([source.path for source in sources], NAMED)}"
    last = (
        _only([s for s in sources if _step(s) == max(map(_step, sources))]) if _tell_steps(sources) else None
    )
    if request.checkpoint_metric is not None:
        best = _best_by(request.checkpoint_metric, request.direction, sources)
        return best, f"it has the best {request.checkpoint_metric}"
    if request.weights == LAST:
        if last is None:
            raise AmbiguousWeights(f"{held}, of which nothing tells the last", mend=PATTERN)
        return last, "its path or its step tells that it is the last"
    recorded, file = _recorded_best(sources, tracker)
    called = _only([source for source in sources if _is_called_best(source)])
    if recorded is not None:
        return recorded, f"{file} tells that it is the best"
    if request.weights == BEST:
        if called is None:
            raise AmbiguousWeights(f"{held}, of which nothing tells the best", mend=_ways({LAST: last}))
        return called, "it is called best"
    raise AmbiguousWeights(held, mend=_ways({BEST: called, LAST: last}))


def _ways(words: Mapping[str, WeightsSource | None]) -> str:
    found = [f"--weights {word}, which takes {source.path}" for word, source in words.items() if source]
    return "; or ".join([*found, PATTERN])


def _best_by(name: str, direction: Direction | None, sources: Sequence[WeightsSource]) -> WeightsSource:
    measured = [(dict(source.metrics)[name], source) for source in sources if name in dict(source.metrics)]
    measured = [(value, source) for value, source in measured if not math.isnan(value)]
    if not measured:
        known = sorted({key for source in sources for key, _ in source.metrics})
        told = f"they have {listed(known, NAMED)}" if known else "they have none"
        raise AmbiguousWeights(
            f"none of its {len(sources)} checkpoints is a LoggedModel with a metric {name!r}: {told}",
            mend="name another --checkpoint-metric, or log it with mlflow.log_metric(..., model_id=...)",
        )
    sign = -1 if direction is Direction.MIN else 1
    # Of equals the earlier one, as the tools do.
    return max(measured, key=lambda pair: (sign * pair[0], -_step(pair[1]), pair[1].path))[1]


def _recorded_best(sources: Sequence[WeightsSource], tracker: "Tracker") -> tuple[WeightsSource | None, str]:
    """With the file that tells it."""
    trainers = [source for source in sources if re.search(r"checkpoint-\d+(/|$)", _folder(source))]
    if trainers:
        told = _beside(max(trainers, key=_step), STATE, tracker)
        return _named_by_trainer(told, trainers) if told else None, STATE
    marked = [s for s in sources if b"'best'" in (_beside(s, ALIASES, tracker) or b"")]
    # Each was the best when it was logged.
    return _only([s for s in marked if _step(s) == max(map(_step, marked))]), ALIASES


def _named_by_trainer(state: bytes, sources: Iterable[WeightsSource]) -> WeightsSource | None:
    # Not parsed whole: the losses in it may be NaN, which is no JSON.
    told = re.search(rb'"best_model_checkpoint": *"((?:[^"\\]|\\.)*)"', state)
    if told is None:
        return None
    name = re.split(r"[/\\]+", told[1].decode(errors="replace").rstrip("/\\"))[-1]
    return _only([source for source in sources if PurePosixPath(_folder(source)).name == name])


def _is_called_best(source: WeightsSource) -> bool:
    """By whoever named the file, or its folder."""
    return "best" in re.findall(r"[a-z]+", "/".join(source.path.lower().split("/")[-2:]))


def _tell_steps(sources: Iterable[WeightsSource]) -> bool:
    return all(_step(source) >= 0 for source in sources)


def _step(source: WeightsSource) -> float:
    """Where nothing tells it, less than zero."""
    if PurePosixPath(source.path).stem == "last":
        return math.inf
    for pattern in _STEPS:
        if found := pattern.findall(source.path):
            return int(found[-1])
    return -1 if source.step is None else source.step


def _folder(source: WeightsSource) -> str:
    return source.inner.rpartition("/")[0]


def _beside(source: WeightsSource, name: str, tracker: "Tracker") -> bytes | None:
    """A small file in the folder of these weights; None where there is none."""
    wanted = f"{_folder(source)}/{name}".lstrip("/")
    try:
        found = _only([file for file in tracker.companions(source) if file.inner == wanted])
        return None if found is None else read_small(found, tracker)
    except BadCheckpoint:  # it says something about weights, but is none
        return None


def _only(found: Sequence[WeightsSource]) -> WeightsSource | None:
    return found[0] if len(found) == 1 else None
