"""Whether an example's outputs depend on the batch it comes in."""

import torch
from torch import Tensor

from stockpot.evaluation.passes.forward import Answers
from stockpot.evaluation.rejection.early_pass import EarlyPass

PROBED = 2
"""Canonical batches that are mixed: every place in a batch then holds an example from elsewhere."""


def independent(trial: EarlyPass) -> bool:
    """Evaluate two canonical batches, and their examples once more, mixed; True where every bit agrees.

    The canonical batches count for the trial: half of the probe is no waste. Asks for at least two.
    """
    measured = [trial.measure(trial.hardest()) for _ in range(PROBED)]
    for answers in measured:
        trial.take(answers)
    places = [place for answers in measured for place in answers.places]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).tolist()
    size = trial.forward.batches.size
    mixed = [
        trial.forward.gathered([places[i] for i in order[start : start + size]])
        for start in range(0, len(places), size)
    ]
    return torch.equal(_bits(_told(mixed)), _bits(_told(measured)[order]))


def _told(batches: list[Answers]) -> Tensor:
    """What is known of each example, ``[examples, ...]``: outputs where they are kept; scores and gaps."""
    readings = torch.cat([answers.readings for answers in batches], dim=1).T
    outputs = [answers.outputs.flatten(1).double() for answers in batches if answers.outputs is not None]
    return torch.cat([readings, torch.cat(outputs)], dim=1) if outputs else readings


def _bits(tensor: Tensor) -> Tensor:
    """So that NaN equals NaN, and zero is not minus zero."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
