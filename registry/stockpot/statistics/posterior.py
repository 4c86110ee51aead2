"""Experts that answer together, each as much as the text so far is likely to be of its domain.

Before each position an expert weighs by its prior times the likelihood that it gave to all positions before.
The mixture's likelihoods multiply to the mean of the experts' likelihoods of the whole example, by the prior:
every other factor cancels. So the log likelihoods of whole examples tell it, and no position has to be seen.

Source: Li et al., "Branch-Train-Merge" (2022), section 2.2, and Gururangan et al., "DEMix Layers" (2021),
section 5, with its code (github.com/kernelmachine/demix, `fairseq_cli/ensemble_eval_lm.py`).
"""

import math
from collections.abc import Sequence

NEW = 0.3
"""What the latest posterior has part in a cached prior, as in DEMix's code (``ewm(alpha=0.3)``)."""
BATCH = 2
"""Examples whose posteriors' mean is one step of it, as in DEMix's scripts."""
STEPS = 100
"""After which it is left as it is."""

Logs = Sequence[Sequence[float]]
"""Log likelihoods, in nats: of each expert, those of all examples. Minus infinity for what it holds
impossible, NaN for what it has no number for.
"""


def uniform(experts: int) -> tuple[float, ...]:
    """The prior of whoever knows nothing."""
    return (1 / experts,) * experts


def together(logs: Logs, prior: Sequence[float]) -> list[float]:
    """Of each example the log likelihood by all experts that have a prior above zero.

    `prior`: one number for each expert, zero or more; they add up to one. NaN where one of these has NaN.
    """
    asked = [(math.log(share), own) for share, own in zip(prior, logs, strict=True) if share > 0]
    each = zip(*([share + log for log in own] for share, own in asked), strict=True)
    return [_log_sum(joint) for joint in each]


def posterior(logs: Sequence[float], prior: Sequence[float]) -> tuple[float, ...] | None:
    """Of one example, how likely it is of each expert's domain. None where nobody can tell: all hold it
    impossible, or one has no number for it.
    """
    joint = [
        math.log(share) + log if share > 0 else -math.inf for share, log in zip(prior, logs, strict=True)
    ]
    whole = _log_sum(joint)
    return tuple(math.exp(one - whole) for one in joint) if math.isfinite(whole) else None


def cached_prior(logs: Logs) -> tuple[float, ...]:
    """The prior that is learnt from examples of one kind, in their order, and then frozen.

    An exponential moving average of posteriors, each under the prior that was learnt until then: of the first
    `STEPS` batches of `BATCH` examples. It begins with the uniform one, not with the first batch's as DEMix's
    code does: an expert that one batch rules out would never come back.
    """
    prior = uniform(len(logs))
    each = [*zip(*logs, strict=True)][: STEPS * BATCH]
    for start in range(0, len(each), BATCH):
        found = (posterior(one, prior) for one in each[start : start + BATCH])
        told = [one for one in found if one is not None]
        if told:
            means = [math.fsum(of_expert) / len(told) for of_expert in zip(*told, strict=True)]
            prior = tuple((1 - NEW) * old + NEW * new for old, new in zip(prior, means, strict=True))
    return prior


def kinds(logs: Logs) -> tuple[float, ...]:
    """How likely one of these examples is of each expert's domain: the mean of posteriors under the uniform
    prior, whatever their order. The uniform prior where nobody can tell it of any.
    """
    prior = uniform(len(logs))
    told = [found for one in zip(*logs, strict=True) if (found := posterior(one, prior)) is not None]
    return tuple(math.fsum(of_expert) / len(told) for of_expert in zip(*told, strict=True)) or prior


def likeliest(prior: Sequence[float], k: int) -> tuple[float, ...]:
    """Only the `k` experts with the greatest prior, of equal ones the first, as they relate to each other."""
    kept = {*sorted(range(len(prior)), key=lambda place: -prior[place])[:k]}
    total = math.fsum(prior[place] for place in kept)
    return tuple(share / total if place in kept else 0.0 for place, share in enumerate(prior))


def _log_sum(logs: Sequence[float]) -> float:
    """The logarithm of the sum of what these are logarithms of."""
    if any(map(math.isnan, logs)):
        return math.nan
    most = max(logs)
    return most if math.isinf(most) else most + math.log(math.fsum(math.exp(log - most) for log in logs))
