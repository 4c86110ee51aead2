"""Who is called challenger: a soup that is not worse than the best single candidate, nor than the holder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import (
    Comparison,
    Digest,
    ModelVersion,
    Recipe,
    ReportRow,
    SoupReport,
)
from stockpot.entities.domain import normalised
from stockpot.errors import (
    BadCheckpoint,
    BadRequest,
    BadTask,
    Incompatible,
    OutOfDeviceMemory,
    TrackingError,
    Unreachable,
)
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.gathering.version_weights import offer_version
from stockpot.workflow.publishing.verdict import (
    compared_told,
    earns_alias,
    gain,
    least_gain,
    margin,
    row_that_is,
    short_of_base,
    specialties,
)
from stockpot.workflow.selecting.compared import compared, compared_on
from stockpot.workflow.selecting.rows import GENERALIST
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.trails import PROMISED, move_alias

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Store, Tracker, Watcher

CHALLENGER = "challenger"
"""The alias of a generalist. A specialist's has its domain behind it, as in challenger-python."""
TRIES = 5
"""To give it while somebody keeps moving it."""


def alias_of(domain: str) -> str:
    """The alias that specialists of a domain may earn, generalists where none is named."""
    return f"{CHALLENGER}-{normalised(domain)}" if domain else CHALLENGER


def domains_for(row: ReportRow, *, stands_in: bool = False) -> tuple[str, ...]:
    """The domains whose aliases this may earn; an empty text stands for the generalist's. A soup by greedy
    may earn that one, and the best single candidate where it `stands_in` for soups.
    """
    generalist = stands_in or (row.recipe.is_soup and GENERALIST in row.methods)
    return (*([""] if generalist else []), *specialties(row))


def is_earned(alias: str) -> bool:
    """Whether this is an alias that new soups earn without a gate."""
    return alias == CHALLENGER or alias.startswith(f"{CHALLENGER}-")


@dataclass(frozen=True)
class Ruling:
    """Whether a soup may be called challenger, as things stand."""

    earned: bool = False
    holder: str | None = None
    """The version that held the alias when this was decided."""
    why: str = ""
    """One sentence for the page and the outcome; empty where there is nothing to explain."""


@dataclass(frozen=True)
class Aliases:
    """Decides about the aliases that the soups of one report may earn, and gives them."""

    tracker: "Tracker"
    store: "Store"
    supply: Supply
    bench: "Bench"
    evaluator: "Evaluator"
    """Of the report split: the holder is measured there, too."""
    report: SoupReport
    watch: "Watcher"
    by: str
    """Who asked for the soup."""
    promised: float = PROMISED
    """Seconds within which somebody looks at the aliases."""

    def ruling(self, row: ReportRow, domain: str = "") -> Ruling:
        """Whether this soup is shown not to be worse than the best single, nor than the holder. One run, the
        best single or a domain's best, registered where no soup is, is compared with the holder alone.
        """
        if not _may_earn(row, self.report, domain):
            return Ruling(why=_falls_short(row, self.report, domain))
        alias, holder = alias_of(domain), self._holder(domain)
        if holder is None:
            return Ruling(earned=True, why=_for_want_of_a_soup(row, domain))
        try:
            against = self._against(holder, row, domain)
        except (OutOfDeviceMemory, Unreachable):  # of the walk, not of the holder
            raise
        except (BadCheckpoint, BadRequest, BadTask, TrackingError) as error:
            why = "; ".join([error.what, *error.faults])
            return Ruling(
                holder=holder.uri,
                why=f"{alias} stays with {holder.uri}, which cannot be measured: {why}",
            )
        told = f"{gain(against, self.report.unit)} on split {against.split}"
        if against.low > least_gain(self.report, domain):
            return Ruling(
                earned=True,
                holder=holder.uri,
                why=f"{alias} was {holder.uri}: {told} compared with that one.",
            )
        return Ruling(
            holder=holder.uri,
            why=f"{alias} stays with {holder.uri}: {told} compared with that one, "
            f"and the interval must lie above {margin(self.report, domain)}.",
        )

    def is_free_for(self, version: ModelVersion, domain: str) -> bool:
        """Whether a version that was registered before may still get this alias: nobody has it, and this
        version never had it. A person, or a later sweep, may have given it away since.
        """
        return alias_of(domain) not in version.given and self._holder(domain) is None

    def give(self, row: ReportRow, version: ModelVersion, ruling: Ruling | None, domain: str = "") -> Ruling:
        """Point the alias at the version if it earned it, on record. `ruling`: what was decided before, which
        is decided again where the holder is another now.
        """
        for _ in range(TRIES):
            holder = self._holder(domain)
            if holder is not None and holder.uri == version.uri:
                return ruling or Ruling()
            if ruling is None or ruling.holder != (holder and holder.uri):
                ruling = self.ruling(row, domain)
            if not ruling.earned or self._is_moved(row, version, holder, ruling, domain):
                return ruling
        alias = alias_of(domain)
        return Ruling(why=f"{alias} was moved {TRIES} times while this was decided, and stays there.")

    def _is_moved(
        self, row: ReportRow, version: ModelVersion, holder: ModelVersion | None, ruling: Ruling, domain: str
    ) -> bool:
        """Move it from the holder, unless another has it by now."""
        moved = move_alias(
            self,
            version.name,
            alias_of(domain),
            version.version,
            expected=None if holder is None else holder.version,
            by=self.by,
            reason=f"{_worth(row, self.report, domain)} {ruling.why}".strip(),
            earned=True,
            promised=self.promised,
        )
        return moved is not None

    def _holder(self, domain: str) -> ModelVersion | None:
        return _holder_of(self.report.request.model, alias_of(domain), self.tracker)

    def _against(self, holder: ModelVersion, row: ReportRow, domain: str) -> Comparison:
        """The soup compared with the holder, on the report split, example by example."""
        split = self.report.request.report_on
        before = score_in_full(self._recipe_of(holder), self.evaluator)
        after = score_in_full(row.recipe, self.evaluator)
        groups = self.bench.groups(split)
        if domain:
            return compared_on(domain, split, before, after, groups=groups)
        return compared(split, before, after, groups=groups)

    def _recipe_of(self, holder: ModelVersion) -> Recipe:
        """What makes the holder's weights: a soup of this report, or the very file that the version holds.

        Raises BadCheckpoint where it holds none that can be read, and Incompatible for another architecture.
        """
        for row in self.report.rows:
            known = self.store.registration(holder.name, row.recipe.digest)
            if known is not None and known.version == holder.version:
                return row.recipe
        checkpoint = offer_version(holder, self.tracker, self.supply).checkpoint
        if differences := self.bench.fits(checkpoint.tensors):
            raise Incompatible("its weights do not fit the task's model", faults=differences)
        return Recipe.mean([checkpoint.digest])


def owed_alias(
    version: ModelVersion, recipe: Digest, report: SoupReport, tracker: "Tracker", *, stands_in: bool
) -> str:
    """The alias that a walk which finds this report again would give to the soup's version: nobody has it,
    and the soup earned it, and never had it. Empty where there is none. `stands_in`: whether the best single
    candidate is registered in a soup's place.
    """
    row = row_that_is(report, recipe)
    stands_in = stands_in and recipe == report.rows[0].recipe.digest
    earned = (d for d in domains_for(row, stands_in=stands_in) if _may_earn(row, report, d))
    return next(
        (
            alias
            for alias in map(alias_of, earned)
            if alias not in version.given and _holder_of(version.name, alias, tracker) is None
        ),
        "",
    )


def _may_earn(row: ReportRow, report: SoupReport, domain: str) -> bool:
    """Whether a soup is shown not to be worse than the best single; that one, where it is registered, may. So
    may a domain's best run, which is what its soups are compared with.
    """
    return not row.recipe.is_soup or earns_alias(row, report, domain)


def _for_want_of_a_soup(row: ReportRow, domain: str) -> str:
    """Why an alias that nobody holds goes to one run; empty where that needs no word."""
    if row.recipe.is_soup or not domain:
        return ""
    return (
        f"{alias_of(domain)} was nobody's, and no soup of {domain} was found: this is its best run, by its "
        "own held-out examples."
    )


def _worth(row: ReportRow, report: SoupReport, domain: str) -> str:
    """What a soup that may have the alias has shown."""
    asked = report.request
    whose = f"{row.label} of sweep {asked.sweep or asked.experiment}"
    if not row.recipe.is_soup:
        return f"{whose}, registered as no soup was."
    return (
        f"{whose}: {compared_told(row, report, domain)}, and the interval lies above "
        f"{margin(report, domain)}."
    )


def _falls_short(row: ReportRow, report: SoupReport, domain: str) -> str:
    """Why a soup does not have an alias that its like may earn."""
    told = f"It is not called {alias_of(domain)}: {compared_told(row, report, domain)}"
    if not domain and (worse := short_of_base(row, report)):
        told += f"; {worse}"
    return f"{told}. The interval must lie above {margin(report, domain)}."


def _holder_of(model: str, alias: str, tracker: "Tracker") -> ModelVersion | None:
    try:
        return tracker.version(f"models:/{model}@{alias}")
    except BadRequest:
        return None
