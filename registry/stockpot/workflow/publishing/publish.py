"""From a measured recipe to exactly one version in MLflow's Model Registry.

The soup's row in the store is claimed first. Every call that creates something in MLflow is preceded by
a look-up, so that a second attempt goes on where a first one stopped.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import (
    Digest,
    ModelVersion,
    Publication,
    PublishedSoup,
    Recall,
    Recipe,
    Registration,
    RegistrationState,
    ReportRow,
    SoupReport,
    SoupState,
    digest_of_bytes,
    tags,
)
from stockpot.entities.trail import UNKNOWN
from stockpot.errors import NotPermitted, RegistryConflict, StockpotError
from stockpot.soup.overlay import Overlay
from stockpot.workflow.gathering.recalled import told
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.publishing.alias import Aliases, Ruling, domains_for
from stockpot.workflow.publishing.claim import Claim, claimed
from stockpot.workflow.publishing.packer import Packer
from stockpot.workflow.publishing.page import Show, try_to_show, with_word_of_the_gate
from stockpot.workflow.publishing.policy import best_last, left_out, stands_in
from stockpot.workflow.publishing.publication import (
    COEFFICIENTS,
    OF_ITS_MAKING,
    Draw,
    compose,
    name_of,
    reports_on,
    with_note,
    with_others,
    with_statistics,
)
from stockpot.workflow.publishing.standing import (
    copied_from,
    is_registered_as,
    require_soup,
    standing,
    statistics_of,
)
from stockpot.workflow.publishing.verdict import row_that_is, specialties
from stockpot.workflow.trails import PROMISED

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Store, Tracker, Watcher
    from stockpot.workflow.selecting.ranking import Ranking

LOOK_AGAIN = "Run the same request again: it looks for another soup"


@dataclass(frozen=True)
class Publisher:
    """Registers soups. Holds the adapters; keeps no state."""

    tracker: "Tracker"
    store: "Store"
    supply: Supply
    bench: "Bench"
    draw: Draw
    watch: "Watcher"
    packer: Packer
    marks: Mapping[str, str] = field(default_factory=dict)
    """Tags of what this process registers, beside those of the soup itself."""
    by: str = UNKNOWN
    """Who asks for it, for the trail."""
    promised: float = PROMISED
    """Seconds within which somebody looks at the aliases."""
    show: Show = lambda _: None
    """Writes the page of a version that is new, or of which there is news."""

    def publish(
        self, report: SoupReport, ranking: "Ranking", evaluator: "Evaluator"
    ) -> tuple[PublishedSoup, ...]:
        """Register the soups that the request asks for and that are not registered yet, the best by held-out
        score last, so that it is the newest version. Set the aliases that they earned. A domain whose best
        run is better than its averages has that one registered, so that who asks for its alias finds one.

        Where none of them ends in a version, that is the best single candidate's turn, if the request says
        so. `evaluator`: of the report split.
        """
        request = report.request
        aliases = Aliases(
            self.tracker,
            self.store,
            self.supply,
            self.bench,
            evaluator,
            report,
            self.watch,
            self.by,
            self.promised,
        )
        soups = [row for row in report.rows if row.recipe.is_soup or specialties(row)]
        done: dict[Digest, PublishedSoup] = {}
        self.watch.start("register", len(soups))
        for row in best_last(soups, request.select_on):
            why = left_out(row, report)
            done[row.recipe.digest] = (
                _absent(row, SoupState.LEFT_OUT, why) if why else self._publish(report, row, ranking, aliases)
            )
            self.watch.advance("register")
        if stands_in(report, done.values()):
            best = row_that_is(report, report.rows[0].recipe.digest)
            before = done.get(best.recipe.digest)
            new = before is not None and before.state is SoupState.REGISTERED
            done[best.recipe.digest] = self._publish(
                report, best, ranking, aliases, stands_in=True, just_made=new
            )
        in_order = dict.fromkeys(row.recipe.digest for row in report.rows)
        return tuple(done[recipe] for recipe in in_order if recipe in done)

    def _publish(
        self,
        report: SoupReport,
        row: ReportRow,
        ranking: "Ranking",
        aliases: Aliases,
        *,
        stands_in: bool = False,
        just_made: bool = False,
    ) -> PublishedSoup:
        """`stands_in`: whether this is the best single candidate in a soup's place. `just_made`: whether this
        request has made its version already.
        """
        model, domains = report.request.model, domains_for(row, stands_in=stands_in)
        if word := self._recalled_meanwhile(row, ranking):
            return _absent(row, SoupState.LEFT_OUT, f"{told(word)}. {LOOK_AGAIN}")
        with claimed(self.store, model, row.recipe, self.watch) as claim:
            known = self.store.registration(model, row.recipe.digest)
            experiments = {candidate.run.experiment_id for candidate in ranking.candidates}
            version, why = standing(model, row.recipe.digest, known, experiments, self.tracker)
            if why and not (report.request.again and version is None):
                return _absent(row, SoupState.WITHDRAWN, why)
            soup = None if version is None else self._verified(version, row.recipe, known)
            new = just_made
            rulings: dict[str, Ruling] = {}
            if version is None or soup is None:
                rulings = {domain: aliases.ruling(row, domain) for domain in domains}
                version, soup, new = self._registered(report, row, ranking, _why(rulings), claim)
            if new and (word := self._recalled_meanwhile(row, ranking)):  # who recalled it found no version
                self.tracker.tag_version(version, tags.RECALLED, word.reason)
                rulings = {"": Ruling(why=f"{told(word)}. {LOOK_AGAIN}")}
            others = self._other_statistics(version, row.recipe)
            news = not new and self._is_news(report, row, version)
            if news:
                self._describe_anew(version, with_note(self._composed(report, row, ranking, soup), others))
            unfinished = claim.is_unfinished(version.run_id)
            for domain in () if word else domains:
                if new or unfinished or aliases.is_free_for(version, domain):
                    rulings[domain] = aliases.give(row, version, rulings.get(domain), domain)
                    version = self.tracker.version(version.uri)
            if known is None or not is_registered_as(known, version):
                with suppress(NotPermitted):  # a copy's run may be a stranger's
                    self.tracker.note_version(version)
            if new or news or unfinished:
                try_to_show(self.show, version, self.watch)
                claim.renew()
            claim.advance(
                state=RegistrationState.REGISTERED,
                checkpoint=soup,
                run_id=version.run_id,
                model_id=version.model_id,
                version=version.version,
            )
        notes = (copied_from(version, model), others, _why(rulings))
        return PublishedSoup(
            row.methods,
            row.recipe.digest,
            soup,
            version.uri,
            version.run_id or "",
            version.aliases,
            self.tracker.link(version),
            SoupState.REGISTERED if new else SoupState.ADOPTED,
            " ".join(note for note in notes if note),
        )

    def _registered(
        self, report: SoupReport, row: ReportRow, ranking: "Ranking", note: str, claim: Claim
    ) -> tuple[ModelVersion, Digest, bool]:
        """Build the soup, and create what is missing in MLflow. Returns its version, its digest, and whether
        that version is the one that was created here.
        """
        with self.supply.building(row.recipe) as (built, file):
            publication = self._composed(report, row, ranking, built.digest)
            publication = with_statistics(publication, self.store.overlay(row.recipe.digest))
            publication = with_note(publication, note)
            publication = replace(publication, tags={**publication.tags, **self.marks})
            ours = self._resume(publication, file, report, claim)
        version, soup = self._settled(ours, publication)
        return version, soup, ours is not None and version.uri == ours.uri

    def _describe_anew(self, version: ModelVersion, later: Publication) -> None:
        """Have the page show a later report. What tells of the soup's making stays, and the gate's word."""
        files = {name: content for name, content in later.files.items() if name not in OF_ITS_MAKING}
        self.tracker.describe(version, replace(later, files=files))
        if said := version.tags.get(tags.GATE):
            self.tracker.edit_description(version, partial(with_word_of_the_gate, told=said))

    def _recalled_meanwhile(self, row: ReportRow, ranking: "Ranking") -> Recall | None:
        """Why this soup is called for no more; None where nothing of it was recalled since the look-up."""
        runs = {candidate.checkpoint.digest: candidate.run.run_id for candidate in ranking.candidates}
        now = self.supply.recalled()
        words = (now.of(runs.get(one, ""), one) for one in row.recipe.checkpoints)
        return next(filter(None, words), None)

    def _composed(self, report: SoupReport, row: ReportRow, ranking: "Ranking", soup: Digest) -> Publication:
        asked = report.request.question
        filed = reports_on({report.request.model}, row.recipe.digest, self.store)
        others = [one for one in filed if one.report.request.question != asked]
        publication = compose(report, row, ranking, soup, self.draw, self._requests(report))
        if row.recipe.coefficients is not None:
            content = self.supply.content(row.recipe.coefficients)
            publication = replace(publication, files={**publication.files, COEFFICIENTS: content})
        return with_others(publication, others)

    def _is_news(self, report: SoupReport, row: ReportRow, version: ModelVersion) -> bool:
        """Whether the page should show this report from now on: it is the newest, and the page shows another.

        A request that is repeated brings none, so that what a person wrote on the page stays. Nor is the page
        of a version changed that was copied from another model.
        """
        newest = reports_on({report.request.model}, row.recipe.digest, self.store)[-1:]
        is_newest = [one.report for one in newest] == [report]
        shows = version.tags.get(tags.REPORT)
        return is_newest and shows != name_of(report) and not copied_from(version, report.request.model)

    def _requests(self, report: SoupReport) -> int:
        """On the report split, this one included."""
        dataset = next(p.dataset for p in report.protocols if p.split == report.request.report_on)
        return max(1, self.store.requests_on(dataset))

    def _verified(self, version: ModelVersion, recipe: Recipe, known: Registration | None) -> Digest:
        """The soup's digest, where this version holds the soup: the store says so, or its file does.

        Raises RegistryConflict where it carries the soup's tags only.
        """
        if known is not None and known.checkpoint is not None and is_registered_as(known, version):
            return known.checkpoint
        with self.supply.building(recipe, self._laid_over(version, recipe)) as (built, file):
            require_soup(version, built.digest, self.tracker, file.parent / "theirs")
        return built.digest

    def _laid_over(self, version: ModelVersion, recipe: Recipe) -> Overlay | None:
        """The version's own statistics, where they are statistics of the same tensors as ours."""
        theirs, ours = statistics_of(version, recipe, self.tracker), self.store.overlay(recipe.digest)
        same = theirs is not None and ours is not None and theirs.tensors == Overlay(ours).tensors
        return theirs if same else None

    def _other_statistics(self, version: ModelVersion, recipe: Recipe) -> str:
        """One sentence where the scores are of other statistics than the version's; else empty."""
        ours = self.store.overlay(recipe.digest)
        if ours is None or version.tags.get(tags.OVERLAY) in {None, digest_of_bytes(ours)}:
            return ""
        return (
            f"{version.uri} holds other BatchNorm statistics than those of these scores: another store "
            "estimated them by the same rule."
        )

    def _settled(self, ours: ModelVersion | None, publication: Publication) -> tuple[ModelVersion, Digest]:
        """The soup's version after its registration, and its digest: another store's, where that is lower."""
        version = self.tracker.reconcile(publication.model, publication.recipe.digest) or ours
        if version is None:
            raise RegistryConflict(
                f"the version of {publication.model} that was just registered is gone",
                mend="run the same request again",
            )
        if ours is not None and ours.uri == version.uri:
            return version, publication.checkpoint
        return version, self._verified(version, publication.recipe, None)

    def _resume(
        self, publication: Publication, soup: Path, report: SoupReport, claim: Claim
    ) -> ModelVersion | None:
        """Create what is missing in MLflow, in order. Returns the version, None where another's is there."""
        tracker = self.tracker
        claim.renew()
        run_id = tracker.find_run(publication) or tracker.create_run(publication)
        claim.advance(run_id=run_id, checkpoint=publication.checkpoint)
        with self._failing(run_id, claim):
            ingredients = []
            start = report.base.recipe.checkpoints[0] if report.base is not None else None
            for candidate in publication.ingredients:
                if not candidate.run.experiment_id:  # the base, a version or a file: no run's
                    continue
                claim.renew()
                model = tracker.find_ingredient_model(candidate)
                if model is None and candidate.checkpoint.digest == start:
                    continue  # nothing is written into the experiment of a base, which may be anybody's
                ingredients.append(model or tracker.create_ingredient_model(candidate))
            claim.renew()
            model_id = tracker.find_model(run_id, publication) or tracker.create_model(run_id, publication)
            claim.advance(model_id=model_id)
            publication = self.packer.upload(model_id, publication, soup, report.request, claim)
            claim.renew()
            tracker.record(run_id, model_id, ingredients, publication)
        claim.renew()
        # Somebody who shares no store with us may have been quicker.
        if tracker.reconcile(publication.model, publication.recipe.digest) is not None:
            return None
        return tracker.create_version(run_id, model_id, publication)

    @contextmanager
    def _failing(self, run_id: str, claim: Claim) -> Iterator[None]:
        """Let the run end as failed where the work stops before it is recorded; whoever goes on with it ends
        it anew.
        """
        try:
            yield
        except BaseException:
            with suppress(StockpotError):
                claim.renew()  # where we were overtaken, the run is another's
                self.tracker.fail(run_id)
            raise


def _why(rulings: Mapping[str, Ruling]) -> str:
    """What is to be explained of them."""
    return " ".join(ruling.why for ruling in rulings.values() if ruling.why)


def _absent(row: ReportRow, state: SoupState, why: str) -> PublishedSoup:
    """A soup of the report that has no version."""
    return PublishedSoup(row.methods, row.recipe.digest, None, "", "", (), None, state, why)
