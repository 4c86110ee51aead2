"""Soups of a model with BatchNorm get statistics of their own: a rule is laid over what is searched for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stockpot.entities import Composition, Digest, Outcome, OverlayRule, Recipe, Selection, SoupRequest, Trial
from stockpot.entities.request import TRAIN
from stockpot.errors import BadRequest, BadTask, OutOfDeviceMemory
from stockpot.selection import is_around_base, is_by_group

if TYPE_CHECKING:
    from stockpot.ports import Bench, MakeMethod, SelectionMethod


def overlay_rule(request: SoupRequest, bench: "Bench") -> OverlayRule | None:
    """By which this request's soups get statistics; None where the task's model keeps none.

    Raises BadRequest where the task has no split for it, or none that can be used, and nobody named one.
    """
    if not bench.keeps_statistics:
        return None
    try:
        return bench.overlay_rule(request.statistics_on or TRAIN, but=(request.report_on, *request.shifts))
    except OutOfDeviceMemory:  # of the walk, which halves the batches
        raise
    except BadTask as error:
        if request.statistics_on is not None:
            raise
        raise BadRequest(
            f"the model has BatchNorm, whose statistics are estimated anew for an average; {error.what}",
            faults=error.faults,
            mend="name the split that the runs were trained on, or a part of it, with --statistics-on; where "
            f"the task has none that can be used, --statistics-on {request.select_on}",
        ) from error


def told(request: SoupRequest, rule: OverlayRule | None) -> tuple[str, ...]:
    """What people are told of the rule, once: at most one sentence."""
    if rule is not None:
        return (f"the model has BatchNorm: each soup gets {rule}, estimated anew",)
    if request.statistics_on is not None:
        why = "the task's model has no BatchNorm whose statistics a soup would get anew"
        return (f"--statistics-on {request.statistics_on} is not used: {why}",)
    return ()


def overlaid(methods: "Mapping[str, MakeMethod]", rule: OverlayRule | None) -> "Mapping[str, MakeMethod]":
    """The methods, with this rule laid over each soup that they ask for and find."""
    if rule is None:
        return methods

    return {
        name: _Laid(make, rule, is_around_base(make), is_by_group(make)) for name, make in methods.items()
    }


@dataclass(frozen=True)
class _Laid:
    """Makes a method with a rule laid over it."""

    make: "MakeMethod"
    rule: OverlayRule
    around_base: bool
    by_group: bool
    """Both as the method says."""

    def __call__(self, *args: Any, **kwargs: Any) -> "Overlaid":
        return Overlaid(self.make(*args, **kwargs), self.rule)


class Overlaid:
    """A selection method that searches as another does, and knows nothing of overlays."""

    def __init__(self, inner: "SelectionMethod", rule: OverlayRule) -> None:
        self.name = inner.name
        self._inner = inner
        self._rule = rule
        self._names: dict[Digest, Digest] = {}
        """Of the soups that it was told of: with the rule, by their averages'."""

    @property
    def most_soups(self) -> int:
        """The inner one's."""
        return self._inner.most_soups

    def ask(self) -> Sequence[Trial]:
        """What the inner one wants."""
        return [self._laid(trial) for trial in self._inner.ask()]

    def foresee(self, n: int) -> Sequence[Trial]:
        """What the inner one may want."""
        return [self._laid(trial) for trial in self._inner.foresee(n)]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take the outcome. Raises what the inner one raises."""
        recipe = trial.recipe
        if isinstance(recipe, Recipe) and recipe.overlay == self._rule:
            self._names[recipe.average.digest] = recipe.digest
            trial = replace(trial, recipe=recipe.average)
        self._inner.tell(trial, outcome)

    def result(self) -> Selection:
        """What the inner one found. Raises ValueError before any outcome."""
        found = self._inner.result()
        steps = tuple(replace(s, recipe=self._names.get(s.recipe, s.recipe)) for s in found.steps)
        return replace(found, recipe=self._over(found.recipe), steps=steps)

    def _laid(self, trial: Trial) -> Trial:
        return replace(trial, recipe=self._over(trial.recipe))

    def _over(self, recipe: Composition) -> Any:
        if isinstance(recipe, Recipe) and recipe.is_soup:
            return replace(recipe, overlay=self._rule)
        return recipe
