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
    tags,
)
from stockpot.errors import (
    BadCheckpoint,
    BadRequest,
    BadTask,
    Incompatible,
    OutOfDeviceMemory,
    TrackingError,
    Unreachable,
)
from stockpot.statistics import compare
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.gathering.version_weights import offer_version
from stockpot.workflow.publishing.verdict import earns_alias, gain, least_gain, margin
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.trails import PROMISED, move_alias

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Store, Tracker, Watcher

CHALLENGER = "challenger"
TRIES = 5
"""To give it while somebody keeps moving it."""


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
    """Decides about the alias challenger for the soups of one report, and gives it."""

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

    def ruling(self, row: ReportRow) -> Ruling:
        """Whether this soup is shown not to be worse than the best single, nor than the holder. The best
        single itself, registered where no soup is, is compared with the holder alone.
        """
        request = self.report.request
        if not _may_earn(row, self.report):
            return Ruling(why=_falls_short(row, self.report))
        holder = self._holder()
        if holder is None:
            return Ruling(earned=True)
        try:
            against = self._against(holder, row)
        except (OutOfDeviceMemory, Unreachable):  # of the walk, not of the holder
            raise
        except (BadCheckpoint, BadRequest, BadTask, TrackingError) as error:
            why = "; ".join([error.what, *error.faults])
            return Ruling(
                holder=holder.uri,
                why=f"{CHALLENGER} stays with {holder.uri}, which cannot be measured: {why}",
            )
        told = f"{gain(against, self.report.unit)} on split {request.report_on}"
        if against.low > least_gain(self.report):
            return Ruling(
                earned=True,
                holder=holder.uri,
                why=f"{CHALLENGER} was {holder.uri}: {told} compared with that one.",
            )
        return Ruling(
            holder=holder.uri,
            why=f"{CHALLENGER} stays with {holder.uri}: {told} compared with that one, "
            f"and the interval must lie above {margin(self.report)}.",
        )

    def is_free_for(self, version: ModelVersion) -> bool:
        """Whether a version that was registered before may still get the alias: nobody has it, and this
        version never had it. A person, or a later sweep, may have given it away since.
        """
        return _never_had(version) and self._holder() is None

    def give(self, row: ReportRow, version: ModelVersion, ruling: Ruling | None) -> Ruling:
        """Point the alias at the version if it earned it, on record. `ruling`: what was decided before, which
        is decided again where the holder is another now.
        """
        for _ in range(TRIES):
            holder = self._holder()
            if holder is not None and holder.uri == version.uri:
                return ruling or Ruling()
            if ruling is None or ruling.holder != (holder and holder.uri):
                ruling = self.ruling(row)
            if not ruling.earned or self._is_moved(row, version, holder, ruling):
                return ruling
        return Ruling(why=f"{CHALLENGER} was moved {TRIES} times while this was decided, and stays there.")

    def _is_moved(
        self, row: ReportRow, version: ModelVersion, holder: ModelVersion | None, ruling: Ruling
    ) -> bool:
        """Move it from the holder, unless another has it by now."""
        moved = move_alias(
            self,
            version.name,
            CHALLENGER,
            version.version,
            expected=None if holder is None else holder.version,
            by=self.by,
            reason=f"{_worth(row, self.report)} {ruling.why}".strip(),
            earned=True,
            promised=self.promised,
        )
        return moved is not None

    def _holder(self) -> ModelVersion | None:
        return _holder_of(self.report.request.model, self.tracker)

    def _against(self, holder: ModelVersion, row: ReportRow) -> Comparison:
        """The soup compared with the holder, on the report split, example by example."""
        split = self.report.request.report_on
        before = score_in_full(self._recipe_of(holder), self.evaluator)
        after = score_in_full(row.recipe, self.evaluator)
        return compare(split, before, after, groups=self.bench.groups(split))

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


def is_owed(version: ModelVersion, recipe: Digest, report: SoupReport, tracker: "Tracker") -> bool:
    """Whether a walk that finds this report again would give the alias to the soup's version: nobody has it,
    and the soup earned it, and never had it.
    """
    rows = [row for row in report.rows if row.recipe.digest == recipe and _may_earn(row, report)]
    return bool(rows) and _never_had(version) and _holder_of(version.name, tracker) is None


def _may_earn(row: ReportRow, report: SoupReport) -> bool:
    """Whether a soup is shown not to be worse than the best single; that one, where it is registered, may."""
    return not row.recipe.is_soup or ("greedy" in row.methods and earns_alias(row, report))


def _worth(row: ReportRow, report: SoupReport) -> str:
    """What a soup that may have the alias has shown."""
    asked = report.request
    whose = f"{row.label} of sweep {asked.sweep or asked.experiment}"
    if not row.recipe.is_soup:
        return f"{whose}, registered as no soup was."
    told = gain(row.versus_best[asked.report_on], report.unit)
    return (
        f"{whose}: {told} on split {asked.report_on} compared with the best single candidate, and the "
        f"interval lies above {margin(report)}."
    )


def _falls_short(row: ReportRow, report: SoupReport) -> str:
    """Why a soup by greedy is not called challenger. Nobody asks that of others."""
    if "greedy" not in row.methods:
        return ""
    split = report.request.report_on
    return (
        f"It is not called {CHALLENGER}: {gain(row.versus_best[split], report.unit)} on split {split} "
        f"compared with the best single candidate, and the interval must lie above {margin(report)}."
    )


def _never_had(version: ModelVersion) -> bool:
    return version.tags.get(tags.ALIAS) != CHALLENGER


def _holder_of(model: str, tracker: "Tracker") -> ModelVersion | None:
    try:
        return tracker.version(f"models:/{model}@{CHALLENGER}")
    except BadRequest:
        return None
