"""The score of averaged outputs: what the same ingredients give as an ensemble."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stockpot.entities import Score
from stockpot.evaluation.devices.device import reproducible
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.whole_split import WholeSplit


def ensemble_score(
    task: CheckedTask,
    batches: Batches,
    outputs: Sequence[Tensor],
    device: torch.device,
    where: str,
    whole: WholeSplit | None = None,
) -> Score:
    """Average the models' outputs, each ``[n, ...]``, in float32 and in this order; the task scores them.
    `whole`: where it has a metric.

    Raises BadTask where the task refuses them.
    """
    scores: list[float] = []
    means: list[Tensor] = []
    with reproducible(device), torch.inference_mode():
        for place, batch in enumerate(batches):
            at = batches.places(place)
            mean = outputs[0][at.start : at.stop].to(device, torch.float32)
            for other in outputs[1:]:
                mean = mean + other[at.start : at.stop].to(device, torch.float32)
            mean = mean * (1.0 / len(outputs))
            if whole is not None:
                means.append(mean.cpu())
            padded = torch.cat([mean, mean[-1:].expand(batches.size - len(at), *mean.shape[1:])])
            found = task.scores(padded, batch, batches.size, f"examples from {at.start} of {where}")
            scores += found[: len(at)].tolist()
        metric = whole.metric(means, where) if whole is not None else None
    task.check_bounds(scores, range(batches.n), where)
    return Score(tuple(scores), metric)
