"""What a person asks for: the one argument of the flow, of the command and of the Python call."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from stockpot.entities.fitting import fit_fields
from stockpot.entities.sweep import SweepSelector
from stockpot.errors import BadRequest
from stockpot.prose import can_be_kept

MEAN_OF_SHIFTS = "mean of shifts"
"""The pseudo-split under which the average over all shifted splits is reported. No split has this name."""

TRAIN = "train"
"""The split on which statistics are estimated where the request names none, as those of each run were."""
HEAVIEST = 1e15
"""Weight of a domain. Of these, sums and products with scores stay far within the floats."""
BEST = "best"
LAST = "last"
"""Checkpoints of a run that are asked for by these words, not by a pattern."""

INPUTS = "inputs"
"""Where a run's domain is told by the datasets that it logged."""
MEND = "stockpot soup --help tells each option, and help(stockpot.SoupRequest) each field"


class Accept(StrEnum):
    """When greedy keeps an ingredient."""

    NOT_WORSE = "not_worse"
    """The held-out score does not drop (>=): the paper."""
    BETTER = "better"
    """The held-out score rises (>): the authors' code."""


class Direction(StrEnum):
    """Whether a logged metric is better when larger or smaller."""

    MAX = "max"
    MIN = "min"


class Dtype(StrEnum):
    """A floating-point type that weights may be cast to."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Adapter(StrEnum):
    """What a soup of LoRA adapters is registered as."""

    MERGE = "merge"
    """The merged model."""
    KEEP = "keep"
    """The merged model, and beside it the soup as one adapter."""


class Objective(StrEnum):
    """What selection looks at, where the held-out examples are of several domains."""

    MEAN = "mean"
    """The mean over domains, by their weights."""
    WORST = "worst"
    """The domain with the least score."""


class Register(StrEnum):
    """Which soups are registered, by their comparison with the best single candidate on the report split."""

    NOT_WORSE = "not_worse"
    """Those that are not shown to be worse: their interval does not lie below zero."""
    BETTER = "better"
    """Those that are shown to be better: their interval lies above zero."""
    ALL = "all"
    """All that have a score."""


@dataclass(frozen=True, kw_only=True)
class SoupRequest:
    """Turn one sweep into registered soups.

    The primary comparison is declared here, before anything is measured: the greedy soup against
    the best single candidate, on the report split.

    A list or a single name is taken for a tuple, an enum's text for its member, and a number or path among
    `task_args` for its text. Raises BadRequest, naming all faults at once, for values of other types, and
    when the request contradicts itself.
    """

    # Read by pydantic wherever a request comes from outside (the flow's form, JSON), without an
    # import of pydantic here: the docstrings below become the form's help texts.
    __pydantic_config__ = {"use_attribute_docstrings": True, "extra": "forbid"}  # noqa: RUF012 - not a field

    model: str
    """The registered model that the soups become versions of."""
    task: str
    """The task: an entry point's name, or module:Class."""
    task_args: Mapping[str, str] = field(default_factory=dict)
    """Arguments of the task: paths and numbers, never secrets."""
    sweep: str | None = None
    """The id of the sweep's parent run."""
    experiment: str | None = None
    """The experiment's name, where the sweep has no parent run."""
    filter: str | None = None
    """An MLflow filter over the sweep's runs, for example tags.study = 'lr'."""
    methods: tuple[str, ...] = ("greedy", "uniform")
    """Selection methods, in the order in which they name a soup that several of them find."""
    accept: Accept = Accept.NOT_WORSE
    """When greedy keeps an ingredient: the score does not drop, or it rises."""
    select_on: str = "validation"
    """The held-out split that selection looks at."""
    report_on: str = "test"
    """The untouched split that the primary comparison is made on."""
    shifts: tuple[str, ...] = ()
    """Splits under distribution shift, reported beside it."""
    statistics_on: str | None = None
    """Where the model has BatchNorm: the split on which statistics of soups are estimated, never the report
    split or a shifted one. Where nothing is said, train.
    """
    weights: str | None = None
    """Which checkpoint of a run that logged several: best (by its tool's own word), last (by its step), or a
    glob such as checkpoints/best*.safetensors. Where nothing is said, the best where the tool recorded it.
    """
    checkpoint_metric: str | None = None
    """Take a run's checkpoint with the best value of this metric, of those that are LoggedModels with one."""
    dtype: Dtype | None = None
    """Cast the floating-point tensors of runs that have another type to this one, so that runs of several
    precisions are averaged. Without it those of one precision are.
    """
    top: int | None = None
    """Keep only this many runs, two or more: the best by a logged metric."""
    by: str | None = None
    """That metric's name."""
    direction: Direction | None = None
    """Whether these metrics are better when larger or smaller; larger where nothing is said."""
    partial: bool = False
    """Average the finished runs of a sweep of which others still run."""
    max_seconds: float | None = None
    """Stop after so many seconds in all, and take the best recipe found until then."""
    points: int | Literal["all"] = 5
    """Candidates beside the best single that are measured on report split and shifts, for the figure."""
    margin: float | str = -0.5
    """What the interval's lower end must exceed for the alias. A number is points (hundredths of a score)
    where scores lie between 0 and 1, and percent of the best single candidate's score elsewhere; a text such
    as '-1%' is such percent everywhere.
    """
    register: Register = Register.NOT_WORSE
    """Which soups are registered: those not shown to be worse than the best single, better ones, or all."""
    adapter: Adapter | None = None
    """Of a sweep of LoRA adapters: register the merged model alone (merge, as where nothing is said), or keep
    the soup as one adapter beside it, in the folder adapter of the version.
    """
    or_best_single: bool = False
    """Where no soup ends in a version, register the best single candidate in the same manner."""
    again: bool = False
    """Register a soup anew although a person deleted its version."""
    any_base: bool = False
    """Average runs although they record different starting points."""
    base: str | None = None
    """Where the sweep started: models:/NAME/VERSION, models:/NAME@ALIAS, a run's id, or a file or folder of
    weights. It stands in the table, and the way from it to the soup is measured: never a candidate itself.
    """
    domain_from: str | None = None
    """Where a run tells the domain of its data: params.NAME, tags.NAME, or inputs, the names of the datasets
    that it logged. Where nothing is said, in its tag stockpot.domain: a label, several with commas, or * for
    all data.
    """
    mix: Mapping[str, float] | None = None
    """Weights of the domains in the mixture. Where nothing is said, equal ones of the domains of runs."""
    objective: Objective | None = None
    """Where the held-out examples are of several domains: select by the mean over domains, as where nothing
    is said, or by the worst of them. What is reported is the mean.
    """
    target: str | None = None
    """Where the task gives log likelihoods: the split for whose text the domains' specialists are averaged,
    in one more row of the table. Each counts as much as that text is likely to be of its domain. Never the
    report split or a shifted one.
    """
    compare_all: bool = False
    """Where runs are of two domains or more, also measure what is no choice: the mean across domains of each
    one's greedy soup by its own score, and which domain costs which other, by leaving the runs of each out of
    the greedy soup. With a base also that soup's ingredients by TIES, and the way beyond it (extrapolation).
    """
    verify_exact: bool = False
    """Also run the plain search, with full passes and nothing remembered, and compare everything."""

    wait: bool = True
    """Where another process works on this very request: wait for its answer. Else leave it to that one."""

    def __post_init__(self) -> None:
        faults = fit_fields(self)
        if not faults:  # rules are about values of the right type
            with suppress(ValueError):  # a percentage; documents and commands tell numbers as text
                object.__setattr__(self, "margin", float(self.margin))
            faults = self._faults()
        if faults:
            raise BadRequest("; ".join(faults), mend=MEND)

    def _faults(self) -> "list[str]":
        rules = [
            (not self.model.strip(), "model is empty"),
            (not self.task.strip(), "task is empty"),
            ((self.sweep is None) == (self.experiment is None), "give sweep or experiment, one of the two"),
            *self._of_splits(),
            (not self.methods, "methods is empty"),
            (len(set(self.methods)) < len(self.methods), "a method is named twice"),
            (self.top is not None and self.top < 2, "top must be at least 2, since one run alone is no soup"),
            ((self.top is None) != (self.by is None), "top and by go together"),
            (self.base is not None and not self.base.strip(), "base is empty"),
            (self.max_seconds is not None and not self.max_seconds > 0, "max_seconds must be positive"),
            (
                self.points != "all" and self.points < 0,
                f"points must be 0 or more, or all, got {self.points}",
            ),
            (
                self.checkpoint_metric is not None and self.weights in {BEST, LAST},
                f"weights={self.weights} and checkpoint_metric are two ways to choose: give one",
            ),
            (
                math.isnan(self.margin_number),
                f"margin must be a number, or a percentage such as '-1%', got {self.margin!r}",
            ),
            *self._of_domains(),
        ]
        unwritable = [
            f"{name} holds {text!r}, with a NUL or half a character, which no database takes"
            for name, text in self._texts()
            if not can_be_kept(text)
        ]
        return [fault for broken, fault in rules if broken] + unwritable

    def _of_splits(self) -> "Iterator[tuple[bool, str]]":
        """Rules about them: whether each is broken, and what it says."""
        used = [self.select_on, self.report_on, *self.shifts]
        further = [name for name in (self.statistics_on, self.target) if name is not None]
        untouched = {self.report_on, *self.shifts}
        yield not all(name.strip() for name in (*used, *further)), "the name of a split is empty"
        yield (
            self.statistics_on in untouched,
            (
                f"statistics_on must be neither report_on nor one of shifts, got {self.statistics_on}: "
                "what a soup is made with says nothing about new data"
            ),
        )
        yield (
            self.target in untouched,
            (
                f"target must be neither report_on nor one of shifts, got {self.target}: what an average "
                "is weighed by says nothing about new data"
            ),
        )
        yield (
            len(set(used)) < len(used),
            (
                f"select_on, report_on and shifts must be different splits, got {', '.join(used)}: "
                "a score on the split that chose the soup says nothing about new data"
            ),
        )
        yield (
            MEAN_OF_SHIFTS in used,
            f"no split may be named {MEAN_OF_SHIFTS!r}, which is the name of a column of the report",
        )

    def _of_domains(self) -> "Iterator[tuple[bool, str]]":
        """Rules about them, in the same manner."""
        weights = [] if self.mix is None else [*self.mix.values()]
        yield (
            self.domain_from not in {None, INPUTS}
            and not re.fullmatch(r"(params|tags)\..+", self.domain_from or "", re.DOTALL),
            f"domain_from must be params.NAME, tags.NAME or {INPUTS}, got {self.domain_from!r}",
        )
        yield (
            not all(weight == 0 or 1 / HEAVIEST <= weight <= HEAVIEST for weight in weights),
            (
                f"weights of a mix are numbers of zero or more, and from {1 / HEAVIEST:g} to "
                f"{HEAVIEST:g} where they are not zero, got {dict(self.mix or {})}"
            ),
        )
        yield self.mix is not None and not any(weights), "mix has no weight above zero"

    def _texts(self) -> "Iterator[tuple[str, str]]":
        """All texts of the request, with the field's name."""
        for name, value in vars(self).items():
            if isinstance(value, Mapping):
                yield from ((name, str(part)) for pair in value.items() for part in pair)
            elif isinstance(value, str):
                yield name, value
            elif isinstance(value, tuple):
                yield from ((name, text) for text in value)

    @property
    def margin_number(self) -> float:
        """The margin without a sign for percent; NaN where it is none."""
        if not isinstance(self.margin, str):
            return self.margin
        return math.nan if self.relative_margin is None else self.relative_margin

    @property
    def relative_margin(self) -> float | None:
        """The percentage of the best single candidate's score, where the margin is one."""
        found = isinstance(self.margin, str) and re.fullmatch(r"\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", self.margin)
        return float(found[1]) if found else None

    @property
    def question(self) -> "SoupRequest":
        """What is asked of the data: without what only says how often, or how, it is to be answered."""
        return replace(self, again=False, verify_exact=False, wait=True)

    @property
    def pattern(self) -> str | None:
        """The glob for each run's weights file, where one is given."""
        return None if self.weights in {BEST, LAST} else self.weights

    @property
    def selector(self) -> SweepSelector:
        """The runs that this request is about."""
        return SweepSelector(self.sweep, self.experiment, self.filter)
