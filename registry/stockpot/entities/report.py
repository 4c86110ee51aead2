"""What a request ends in: the table, the comparisons and the registered versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from stockpot.entities.digest import Digest
from stockpot.entities.ensemble import Composition
from stockpot.entities.evaluation import Comparison
from stockpot.entities.protocol import EvaluationProtocol
from stockpot.entities.recipe import Recipe
from stockpot.entities.request import SoupRequest
from stockpot.entities.selection import Selection
from stockpot.entities.sweep import Candidate, Exclusion


@dataclass(frozen=True, slots=True)
class DomainScore:
    """Of one domain's examples of the report split."""

    score: float
    versus_best: Comparison | None
    """Compared with the best single there; of all domains at once, by Holm. None for that one itself."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One line of the table: a recipe, its score on every split, its gain over the best single."""

    label: str
    """"best single" or the methods that found the recipe, for example "greedy soup"."""
    methods: tuple[str, ...]
    recipe: Recipe
    scores: Mapping[str, float]
    """By split; under MEAN_OF_SHIFTS the mean over the shifted splits, where there are any."""
    versus_best: Mapping[str, Comparison]
    """By split, the paired comparison with the best single; empty for that one itself."""
    inference_cost: int = 1
    """Forward passes per input: an average of weights costs one."""
    domains: Mapping[str, DomainScore] | None = None
    """By domain, where the report split has several."""
    own: Comparison | None = None
    """Of a specialist: compared with the best of its domain's own runs, on that domain's examples."""
    versus_base: Comparison | None = None
    """Of a soup among domains, on the report split, where the base is known."""
    versus_specialists: Mapping[str, Comparison] | None = None
    """By domain, compared with that one's specialist there. The intervals hold all at once."""
    own_beside: Mapping[str, Comparison] | None = None
    """Of one specialist of several domains: by domain, what `own` is of the first, for the others."""

    @property
    def models(self) -> int:
        """Checkpoints that are averaged."""
        return len(self.recipe.checkpoints)


@dataclass(frozen=True, slots=True)
class EnsembleRow:
    """A yardstick: models that answer together. Never registered, never a winner."""

    label: str
    recipe: Composition
    """The soup's, whose ingredients answer together here; an ensemble where that was searched for."""
    scores: Mapping[str, float]
    """As in `ReportRow`, for the splits on which all ingredients' outputs are remembered."""
    versus_best: Mapping[str, Comparison]
    """As in `ReportRow`, for those splits."""
    inference_cost: int
    """Forward passes per input: one per model."""
    domains: Mapping[str, DomainScore] | None = None
    """As in `ReportRow`."""

    @property
    def models(self) -> int:
        """That answer together."""
        return len(self.recipe.checkpoints)


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """A yardstick among domains: never registered, never a winner."""

    label: str
    recipes: tuple[Recipe, ...]
    """One, or of each domain that counts the one that answers there, or those that answer together."""
    scores: Mapping[str, float]
    """By split: the report split, and the others where a recipe was measured there."""
    versus_best: Mapping[str, Comparison]
    domains: Mapping[str, DomainScore] | None = None
    inference_cost: int = 1
    """Forward passes per input: one where somebody knows the domain, and asks its model alone."""

    @property
    def models(self) -> int:
        """Checkpoints in all of them together."""
        return len({checkpoint for recipe in self.recipes for checkpoint in recipe.checkpoints})


@dataclass(frozen=True, slots=True)
class Contrast:
    """One answer to whether averaging across hyperparameters and across domains can be combined."""

    what: str
    """What was averaged."""
    before: str
    after: str
    """Labels of the rows that are compared."""
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class WithoutDomain:
    """The generalist without the runs that are of one domain alone: a yardstick, never registered."""

    domain: str
    recipe: Recipe | None
    """What is left; None where it is not measured."""
    why: str
    """Why it is not, in few words; empty where it is."""
    costs: Mapping[str, Mapping[str, Comparison]]
    """By split, and by domain that is scored there: compared with the whole generalist. Above zero, the runs
    that were left out cost that domain. Of all domains left out and all scored on a split at once, by Holm.
    """


@dataclass(frozen=True, slots=True)
class BestRun:
    """Of a domain's own runs the best by its own held-out examples: what its specialist begins with."""

    domain: str
    checkpoint: Digest
    domains: Mapping[str, DomainScore]
    """On the report split, by domain."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What the domains of a request are, and how much each counts."""

    shares: Mapping[str, float]
    """Of the domains that count; they add up to one."""
    examples: Mapping[str, int]
    """Of the report split, by domain; also of those that do not count."""
    unseen: tuple[str, ...]
    """Domains that no run names: they do not count by themselves."""
    runs: Mapping[str, str]
    """What each run tells of its data, by its id."""
    worst: bool = False
    """Selected by the least of their scores."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One recipe on the way from the base to a soup."""

    share: float
    """Of the soup, from 0, the base, to 1."""
    recipe: Digest
    scores: Mapping[str, float]
    """As in `ReportRow`, without the report split."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The interpolation (1 - a) x base + a x soup (WiSE-FT). It shows, and selects nothing: so it is never
    measured on the report split.

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022).
    """

    label: str
    """Of the row at its end."""
    points: tuple[CurvePoint, ...]
    """By their share."""


@dataclass(frozen=True, slots=True)
class CandidatePoint:
    """A candidate's place in the paper's first figure."""

    run_id: str
    run_name: str
    checkpoint: Digest
    held_out: float
    report: float | None
    """None where it was not measured: the request's `points`, or its time limit, left it out."""
    mean_of_shifts: float | None


@dataclass(frozen=True, slots=True)
class SoupReport:
    """Everything that was measured for one request."""

    request: SoupRequest
    rows: tuple[ReportRow, ...]
    """The best single first, then a row per distinct recipe that a method found."""
    selections: tuple[Selection, ...]
    """One per method; last the greedy ensemble's, where there was one."""
    candidates: tuple[CandidatePoint, ...]
    """Best first, by held-out score."""
    exclusions: tuple[Exclusion, ...]
    protocols: tuple[EvaluationProtocol, ...]
    """One per split."""
    ensembles: tuple[EnsembleRow, ...] = ()
    """At most one per soup, in the order of the rows; last the greedy ensemble."""
    notes: tuple[str, ...] = ()
    """What is missing from the table, and why; what else its numbers say."""
    unit: str | None = None
    """What scores are told in, empty where the task names none; None for points, hundredths of a score that
    lies between 0 and 1.
    """
    base: ReportRow | None = None
    """Where the sweep started, if the request names it: never registered, never a winner."""
    curve: Curve | None = None
    """From there to the primary soup, if it was measured."""
    mixture: Mixture | None = None
    """Where the held-out examples are of several domains."""
    references: tuple[ReferenceRow, ...] | None = None
    """Beside them then: what a router by domain would do, and averages across domains alone."""
    contrasts: tuple[Contrast, ...] | None = None
    """What averaging across hyperparameters, across domains, and across both gave."""
    collisions: tuple[WithoutDomain, ...] | None = None
    """Of each domain that runs tell, where the request compares all."""
    best_runs: tuple[BestRun, ...] | None = None
    """Of each domain that has a specialist."""
    hint: str | None = field(default=None, compare=False)
    """What the weights themselves tell of why no soup is better. It depends on what lies in the cache: no
    report is another one for it.
    """

    @property
    def table(self) -> tuple[ReportRow | EnsembleRow | ReferenceRow, ...]:
        """All lines, in their order."""
        start = () if self.base is None else (self.base,)
        return (*start, *self.rows, *self.ensembles, *(self.references or ()))


class SoupState(StrEnum):
    """What became of a soup at the end of a request."""

    REGISTERED = "registered"
    """This request created its version."""
    ADOPTED = "adopted"
    """An earlier request, or another process, had created it."""
    WITHDRAWN = "withdrawn"
    """It had a version, which a person took away. It stays away until a request says `again`."""
    LEFT_OUT = "left out"
    """The request registers no such soup, or it has no score."""


@dataclass(frozen=True, slots=True)
class FiledReport:
    """A report as the store keeps it."""

    report: SoupReport
    created_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class PublishedSoup:
    """A soup, and what became of it in the registry."""

    methods: tuple[str, ...]
    """Empty for the best single candidate, where it is registered in a soup's place."""
    recipe: Digest
    checkpoint: Digest | None
    """The soup's own digest; None where it was not built."""
    uri: str
    """``models:/NAME/VERSION``; empty where it has no version."""
    run_id: str
    aliases: tuple[str, ...]
    link: str | None
    """For a browser; None without a tracking server."""
    state: SoupState = SoupState.REGISTERED
    why: str = ""
    """Why it has no version, or not the alias; empty where there is nothing to explain."""

    @property
    def adopted(self) -> bool:
        """Whether an earlier request, or another process, had registered it."""
        return self.state is SoupState.ADOPTED


@dataclass(frozen=True, slots=True)
class SoupOutcome:
    """What a request returns."""

    report: SoupReport
    soups: tuple[PublishedSoup, ...]
    """In the report's order; empty where every method ended in a single candidate."""
    evaluations: int
    """Evaluations over a split that the request's own process started; helpers tell theirs. Remembered scores
    cost none."""
    passes: float = 0.0
    """Their forward work, in full passes over a split: many an evaluation stops early."""

    @property
    def registered(self) -> tuple[PublishedSoup, ...]:
        """The soups that have a version."""
        return tuple(soup for soup in self.soups if soup.uri)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is kept beside a registered soup, so that its lineage survives deleted runs."""

    recipe: Recipe
    checkpoint: Digest
    """The soup's own digest: what a rebuild must arrive at."""
    ingredients: tuple[Candidate, ...]
    """In recipe order."""
    report: SoupReport
    versions: Mapping[str, str]
    """Of stockpot, torch, mlflow and Python, at the time."""
