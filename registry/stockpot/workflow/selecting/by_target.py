"""The specialists in one set of weights, for one kind of text: each counts as much as that text is likely to
be of its domain.

Source: Li et al., "Branch-Train-Merge" (2022), section 2.2: parameters averaged by the domain posterior. They
take a moving average of it, which knows the last few texts alone; here it is the mean over the whole split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from stockpot.entities import OverlayRule, Recipe, SoupRequest
from stockpot.errors import BadRequest
from stockpot.workflow.selecting.averages import average_of
from stockpot.workflow.selecting.by_posterior import TWO, UNLIKE, Likelihoods, Mixed
from stockpot.workflow.selecting.watched import score_in_full

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator

PARTS = 1000
"""In so many equal parts the shares are told: a recipe's coefficients are ratios of small numbers."""


def open_target(
    request: SoupRequest, bench: "Bench", splits: Mapping[str, "Evaluator"]
) -> "Evaluator | None":
    """What scores the text that the request's average is for; None where it names none.

    Raises BadRequest where the task gives no log likelihoods, or the split holds the data of another that an
    average must not know; BadTask where there is no such split.
    """
    target = request.target
    if target is None:
        return None
    if not bench.has_log_likelihoods:
        raise BadRequest(
            "target weighs specialists by log likelihoods, and the task gives none",
            mend="give the task log_likelihood(outputs, batch), or leave out --target",
        )
    if target in splits:
        return splits[target]
    found = bench.evaluator(target, compared=False)
    for split, known in splits.items():
        if split != request.select_on and known.protocol.dataset == found.protocol.dataset:
            raise BadRequest(
                f"splits {split} and {target} hold the same data: what an average is weighed by says nothing "
                "about new data",
                mend="name another split with --target",
            )
    return found


def averaged_for_target(
    request: SoupRequest,
    specialists: Mapping[str, Recipe],
    target: "Evaluator",
    reported: "Evaluator",
    bench: "Bench",
    rule: OverlayRule | None,
    stop: Callable[[], bool],
) -> tuple[Mixed | None, str]:
    """The average on the report split, and a sentence: the share of each specialist, or why there is none.

    It takes a pass over the target split for each specialist that has not been scored there, none once `stop`
    is true. `specialists`: by domain. `rule`: what is laid over averages.
    """
    label = f"specialists averaged for split {request.target}"
    experts = [*dict.fromkeys(specialists.values())]
    if len(experts) < TWO:
        return None, f"no row for {label}: there are not two"
    if stop():
        return None, f"no row for {label}: time is up"
    likelihoods = Likelihoods(experts, target, bench)
    if not likelihoods.told:
        return None, f"no row for {label}: {UNLIKE}"
    shares = in_parts(likelihoods.kinds())
    recipe = average_of(experts, shares)
    recipe = replace(recipe, overlay=rule) if recipe.is_soup else recipe
    told = [
        f"{'+'.join(domain for domain, own in specialists.items() if own == expert)} {float(share):.3g}"
        for expert, share in zip(experts, shares, strict=True)
    ]
    mixed = Mixed(label, (recipe,), score_in_full(recipe, reported), 1)
    return mixed, f"{label}: their shares are {', '.join(told)}"


def in_parts(shares: Sequence[float]) -> list[Fraction]:
    """These shares of one as whole parts of `PARTS`, which add up to one: what is left over goes to those
    that rounding down took most from.
    """
    parts = [int(share * PARTS) for share in shares]
    lost = sorted(range(len(parts)), key=lambda place: parts[place] - shares[place] * PARTS)
    for place in lost[: PARTS - sum(parts)]:
        parts[place] += 1
    return [Fraction(part, PARTS) for part in parts]
