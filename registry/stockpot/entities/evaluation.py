"""Scores, what is asked for them, and how two are compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stockpot.entities.aim import Aim, exact_mean
from stockpot.entities.ensemble import Composition


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of the whole split that is no mean over its examples: F1, AUC, MCC."""

    value: float
    without: tuple[float, ...]
    """The same of the split without each block of `stockpot.statistics.blocks`, in their order: the
    replicates of the jackknife. Empty where scores are not compared: on the split that selects."""


@dataclass(frozen=True, slots=True)
class Score:
    """A completed evaluation: per-example scores in the split's own order; higher is better."""

    examples: tuple[float, ...]
    metric: Metric | None = None
    """Where the task measures the split as a whole: then this is what counts."""
    gaps: tuple[float, ...] | None = field(default=None, compare=False, repr=False)
    """Per example, between the two greatest outputs. A hint in which order a later trial meets the examples,
    and no part of any answer: kept in float32, and never compared."""
    aim: Aim | None = field(default=None, compare=False, repr=False)
    """How a request makes one number of them, where examples belong to domains. The same scores serve any."""
    parts: "Mapping[str, Score] | None" = field(default=None, compare=False, repr=False)
    """Of each domain's examples, by a metric of these alone: what the metric is made of then."""

    @classmethod
    def of_parts(cls, parts: "Mapping[str, Score]", aim: Aim) -> "Score":
        """Of a split whose domains were each measured as a whole."""
        examples = [math.nan] * len(aim.domains)
        for domain, part in parts.items():
            for place, score in zip(aim.places(domain), part.examples, strict=True):
                examples[place] = score
        value = aim.of({domain: part.value for domain, part in parts.items()})
        return cls(tuple(examples), Metric(value, ()), aim=aim, parts=parts)

    @property
    def value(self) -> float:
        """The metric's, where there is one; else what they are aimed at, by default the mean over examples,
        which is NaN as soon as one example's score is NaN.
        """
        if self.metric is not None:
            return self.metric.value
        return exact_mean(self.examples) if self.aim is None else self.aim.value(self.examples)

    def of_domain(self, domain: str, places: Sequence[int]) -> "Score":
        """Of the domain's examples, which are at these places: by their metric, where they have one of their
        own, else as a mean over them. Raises ValueError where the metric is one of the whole split.
        """
        if self.parts is not None:
            return self.parts[domain]
        if self.metric is not None:
            raise ValueError(f"the metric of a split says nothing of its examples of {domain}")
        return self.part(places)

    def part(self, places: Sequence[int]) -> "Score":
        """Of the examples at these places alone, as a mean over them."""
        gaps = None if self.gaps is None else tuple(self.gaps[i] for i in places)
        return Score(tuple(self.examples[i] for i in places), gaps=gaps)


@dataclass(frozen=True, slots=True)
class Bound:
    """An evaluation that stopped because its threshold cannot be reached any more."""

    upper: float
    """The full evaluation's score would be at most this."""
    mixed: bool = False
    """Shown with batches of chosen examples: true if no example's outputs depend on its batch."""


Outcome = Score | Bound


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a trial's score must reach to be accepted."""

    value: float
    strict: bool
    """True: must exceed the value. False: must not be below it."""
    aim: Aim | None = field(default=None, compare=False, repr=False)
    """As in `Score`: what the value is one of."""

    def met_by(self, score: float) -> bool:
        """Whether this score is accepted. NaN never is."""
        return score > self.value if self.strict else score >= self.value


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe, or an ensemble, that a selection method wants evaluated."""

    recipe: Composition
    must_reach: Threshold | None = None
    """Evaluators may stop early with a Bound once this is out of reach; None: measure in full."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison of two recipes on the same examples."""

    split: str
    n: int
    """Independent units: examples, or groups of examples that share an origin."""
    difference: float
    """Challenger minus baseline: of the means over examples, or of the metrics."""
    low: float
    high: float
    """Ends of the paired interval."""
    level: float
    mcnemar_p: float | None
    """Exact McNemar test, two-sided; None for metrics, and where the scores are not all 0 or 1."""
    method: str = ""
    """Of the interval: tango, bootstrap, student, widened, jackknife, unmet, maximum or none. Empty in
    older ones."""
