"""What a report tells of domains: every row by domain, what a router would do, and what each average gave."""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stockpot.entities import (
    Aim,
    BestRun,
    Comparison,
    Composition,
    Contrast,
    Digest,
    DomainScore,
    Ensemble,
    Mixture,
    OverlayRule,
    Recipe,
    ReferenceRow,
    ReportRow,
    Score,
    SoupReport,
)
from stockpot.statistics import compare_domains, pairs_by_domain, simultaneous
from stockpot.statistics import routed as routed_to
from stockpot.workflow.selecting.all_data import BEST_OF_ALL
from stockpot.workflow.selecting.by_posterior import Mixed
from stockpot.workflow.selecting.compared import compared, compared_on
from stockpot.workflow.selecting.rows import BEST_SINGLE, GENERALIST, domains_of
from stockpot.workflow.selecting.specialists import Specialist
from stockpot.workflow.selecting.watched import score_in_full

if TYPE_CHECKING:
    from stockpot.ports import Evaluator
    from stockpot.workflow.selecting.domains import Domains

ROUTED = "specialists, each asked about its domain"
ROUTED_RUNS = "best run of each domain, each asked about its domain"
MEAN_OF_RUNS = "mean of the best run of each domain"


def with_domains(
    report: SoupReport,
    domains: "Domains",
    specialists: Sequence[Specialist],
    evaluator: "Evaluator",
    groups: Sequence[Hashable] | None,
    rule: OverlayRule | None,
    mixed: Sequence[Mixed] = (),
    of_all_data: Mapping[str, Recipe] | None = None,
) -> SoupReport:
    """The report, with what it tells of domains, of which there are several.

    `evaluator`, `groups`: of the report split. Scores are read off what is remembered, but those of each
    domain's best run and of the average of these. `rule`: what is laid over averages. `mixed`: what answers
    together, on the report split. `of_all_data`: what `search_all_data` found.
    """
    aim = domains.aims[report.request.report_on]
    return _Telling(
        report, domains, specialists, evaluator, groups, rule, aim, mixed, of_all_data or {}
    ).told()


@dataclass(frozen=True)
class _Telling:
    report: SoupReport
    domains: "Domains"
    specialists: Sequence[Specialist]
    evaluator: "Evaluator"
    groups: Sequence[Hashable] | None
    rule: OverlayRule | None
    aim: Aim
    mixed: Sequence[Mixed]
    of_all_data: Mapping[str, Recipe]
    known: dict[Digest, Score] = field(default_factory=dict)

    def told(self) -> SoupReport:
        report, base = self.report, self.report.base
        routed, runs = self._routed(), self._routed(runs=True)
        return replace(
            report,
            rows=tuple(self._row(row, routed) for row in report.rows),
            base=base and replace(base, domains=self._cells(self._score(base.recipe))),
            ensembles=tuple(
                replace(row, domains=self._cells(self._score(_together(row.recipe))))
                for row in report.ensembles
            ),
            mixture=Mixture(
                self.aim.share,
                {domain: len(self.aim.places(domain)) for domain in self.aim.all_domains},
                self.domains.unseen,
                self.domains.runs,
                any(aim.worst for aim in self.domains.aims.values()),
            ),
            references=tuple(self._references(routed, runs)),
            contrasts=tuple(self._contrasts(routed, runs)),
            best_runs=tuple(map(self._best_run, self.specialists)),
        )

    @property
    def _single(self) -> Score:
        return self._score(self.report.rows[0].recipe)

    def _score(self, recipe: Composition) -> Score:
        if recipe.digest not in self.known:
            self.known[recipe.digest] = score_in_full(recipe, self.evaluator)
        return self.known[recipe.digest]

    def _row(self, row: ReportRow, routed: Score | None) -> ReportRow:
        score, versus = self._score(row.recipe), None
        own = self._own(row.recipe, domains_of(row.methods), score)
        if GENERALIST in row.methods and row.recipe.is_soup and routed is not None:
            pairs = pairs_by_domain(routed, score, self.aim.domains, self.groups)
            versus = simultaneous({domain: pairs[domain] for domain in self.aim.counting})
        start = self.report.base
        from_start = None if start is None else self._compared(self._score(start.recipe), score)
        return replace(
            row,
            domains=self._cells(score),
            own=own[0][1] if own else None,
            own_beside=dict(own[1:]) or None,
            versus_specialists=versus,
            versus_base=from_start if row.recipe.is_soup else None,
        )

    def _own(self, recipe: Recipe, domains: Iterable[str], score: Score) -> list[tuple[str, Comparison]]:
        """Compared with the best run of each of these domains, on its examples: unless this is that run."""
        best = {s.domain: s.best_run for s in self.specialists}
        return [(d, self._on(d, self._score(best[d]), score)) for d in domains if best[d] != recipe]

    def _best_run(self, specialist: Specialist) -> BestRun:
        best = specialist.best_run
        return BestRun(specialist.domain, best.checkpoints[0], self._cells(self._score(best)))

    def _on(self, domain: str, before: Score, after: Score) -> Comparison:
        return compared_on(domain, self.report.request.report_on, before, after, groups=self.groups)

    def _cells(self, score: Score) -> Mapping[str, DomainScore]:
        return domain_scores(score, self._single, self.aim, self.groups)

    def _compared(self, before: Score, after: Score) -> Comparison:
        return compared(self.report.request.report_on, before, after, groups=self.groups)

    @property
    def _all_have_one(self) -> bool:
        """Whether each domain that counts has a specialist."""
        return {s.domain for s in self.specialists} >= {*self.aim.counting}

    def _routed(self, *, runs: bool = False) -> Score | None:
        """Each example by its domain's specialist, or by its best run: what a caller who knows the domain
        gets. NaN for examples that do not count. None where a domain that counts has no run of its own.
        """
        by_domain = {s.domain: self._score(s.best_run if runs else s.recipe) for s in self.specialists}
        if not self._all_have_one:
            return None
        nothing = Score((math.nan,) * len(self.aim.domains), aim=self.aim)
        return routed_to(dict.fromkeys(self.aim.all_domains, nothing) | by_domain, self.aim.domains)

    def _mean_of_runs(self) -> Recipe | None:
        """None also where a domain that counts has no run of its own: it would be a mean of others' runs."""
        distinct = dict.fromkeys(s.best_run.checkpoints[0] for s in self.specialists)
        if not self._all_have_one or len(distinct) < 2:
            return None
        return replace(Recipe.mean([*distinct]), overlay=self.rule)

    def _references(self, routed: Score | None, runs: Score | None) -> Iterator[ReferenceRow]:
        if routed is not None and runs is not None:
            yield self._reference(ROUTED_RUNS, [s.best_run for s in self.specialists], runs)
            yield self._reference(ROUTED, [s.recipe for s in self.specialists], routed)
        if (mean := self._mean_of_runs()) is not None:
            yield self._reference(MEAN_OF_RUNS, [mean], self._score(mean))
        for label, recipe in self.of_all_data.items():
            yield self._reference(label, [recipe], self._score(recipe))
        for one in self.mixed:
            yield self._reference(one.label, one.recipes, one.score, one.inference_cost)

    def _reference(
        self, label: str, recipes: Sequence[Recipe], score: Score, inference_cost: int = 1
    ) -> ReferenceRow:
        split = self.report.request.report_on
        gains = {} if score is self._single else {split: self._compared(self._single, score)}
        values, cells = {split: score.value}, self._cells(score)
        return ReferenceRow(label, tuple(recipes), values, gains, cells, inference_cost)

    def _contrasts(self, routed: Score | None, runs: Score | None) -> Iterator[Contrast]:
        """What was averaged: hyperparameters within domains, domains alone, both."""
        if routed is not None and runs is not None:
            yield Contrast("hyperparameters", ROUTED_RUNS, ROUTED, self._compared(runs, routed))
        if (mean := self._mean_of_runs()) is not None:
            gain = self._compared(self._single, self._score(mean))
            yield Contrast("domains", BEST_SINGLE, MEAN_OF_RUNS, gain)
        for row in self.report.rows:
            if GENERALIST in row.methods and row.recipe.is_soup:
                gain = row.versus_best[self.report.request.report_on]
                yield Contrast("both", BEST_SINGLE, row.label, gain)
                if (best := self.of_all_data.get(BEST_OF_ALL)) not in {None, row.recipe}:
                    gain = self._compared(self._score(best), self._score(row.recipe))
                    yield Contrast("all data", BEST_OF_ALL, row.label, gain)


def domain_scores(
    score: Score, single: Score, aim: Aim, groups: Sequence[Hashable] | None
) -> dict[str, DomainScore]:
    """Of each domain that it has scores of; `single`: the best single candidate's."""
    pairs = pairs_by_domain(single, score, aim.domains, groups)
    values = {domain: own.value for domain, (_, own, _) in pairs.items() if not math.isnan(own.value)}
    gains = {} if score is single else compare_domains({d: pairs[d] for d in values})[0]
    return {domain: DomainScore(value, gains.get(domain)) for domain, value in values.items()}


def _together(recipe: Composition) -> Composition:
    """The ensemble of a row: a soup's ingredients, or the one that was searched for."""
    return Ensemble.like(recipe) if isinstance(recipe, Recipe) else recipe
