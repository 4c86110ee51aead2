"""The domains of a sweep: what its runs and the task's examples tell, and what scores are made of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stockpot.entities import Aim, Objective, Run, SoupRequest, tags
from stockpot.entities.domain import ALL, label_faults, labels
from stockpot.errors import BadRequest, BadTask
from stockpot.prose import counted, listed
from stockpot.workflow.gathering.run_domains import Datasets, domains_of_runs, told_by

if TYPE_CHECKING:
    from stockpot.ports import Bench

SEVERAL = "give the task a method domains(split), with a label for each example"
TWO = f"have runs of two domains or more tell theirs: {tags.DOMAIN}, or --domain-from"


@dataclass(frozen=True)
class Domains:
    """Of one request, where the held-out examples are of several domains."""

    aims: Mapping[str, Aim] = field(default_factory=dict)
    """Of the held-out and the report split."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """What each run tells, by its id; empty where none tells any."""
    unseen: tuple[str, ...] = ()
    """Domains of examples that no run names."""
    notes: tuple[str, ...] = ()

    @property
    def counting(self) -> tuple[str, ...]:
        """The domains of the mixture, sorted."""
        return next((aim.counting for aim in self.aims.values()), ())

    def told(self, run: Run) -> str:
        """What the run tells of its data; empty where no run tells any."""
        return self.runs.get(run.run_id, "")

    def __bool__(self) -> bool:
        """Whether there are several."""
        return bool(self.aims)


def domains_of(
    request: SoupRequest, bench: "Bench", runs: Sequence[Run], datasets: Datasets | None = None
) -> Domains:
    """What counts how much on the held-out and the report split. Falsy where the task tells of no domains, or
    of one alone.

    Falsy, with a note, where neither a run nor the request is about domains: a column may only happen to have
    that name. In the mixture are, with equal weights, the domains that some run names, or all where no run
    names any; or those that the request's `mix` names. Raises BadRequest for labels that nobody can tell
    apart or use, a mix that names what is not there, for a request about domains of a task that tells of
    none, and for one to compare domains of runs where these are not of several; BadTask for a report split
    that lacks a domain that was selected on. `datasets`: by run, what it was trained on.
    """
    found = {split: bench.domains(split) for split in (request.select_on, request.report_on)}
    held_out = found[request.select_on]
    there = sorted({*held_out} if held_out else ())
    if held_out is None or len(there) < 2:
        told = f"only {there[0]}" if there else "none"
        _require_no_wish(request, f"of examples of split {request.select_on}, the task tells {told}")
        return Domains(notes=tuple(_lost(domains_of_runs(runs, request, datasets or {}), told)))
    of_runs = domains_of_runs(runs, request, datasets or {})
    named = {label for text in of_runs.values() for label in labels(text)} - {ALL}
    if request.target is not None and not named & {*there}:
        raise BadRequest(
            f"target averages domains' specialists, and no run tells one of {listed(there)}",
            mend=f"tag the runs with {tags.DOMAIN}, name where they tell it with --domain-from, or leave out "
            "--target",
        )
    if request.compare_all and len(named) < 2:
        told = f"runs are of {listed(sorted(named))} alone" if named else "no run tells its own"
        raise BadRequest(f"compare_all compares domains of runs: {told}", mend=TWO)
    if not (named & {*there} or request.mix or request.objective or request.compare_all):
        return Domains(notes=(_left_alone(there, named),))
    _require_none([*_faults(found, named)])
    weights = _weights(request, there, named)
    reported = found[request.report_on]
    lacking = sorted(d for d, w in weights.items() if w > 0 and d not in (reported or ()))
    if reported is None or lacking:
        raise BadTask(
            f"split {request.report_on} has no examples of {listed(lacking)}, on which was selected",
            mend="give the report split examples of each domain, or leave those out with --mix",
        )
    if request.compare_all:
        bench.groups(request.select_on)  # which nothing else asks for: its faults are told before any work
    worst = request.objective is Objective.WORST
    aims = {
        request.select_on: Aim(tuple(held_out), weights, worst=worst),
        request.report_on: Aim(tuple(reported), weights),
    }
    unseen = tuple(sorted({*there, *reported} - named)) if named & {*there, *reported} else ()
    silent = [run.name for run in runs if of_runs and not labels(told_by(run, request, datasets or {}))]
    return Domains(aims, of_runs, unseen, tuple(_notes(silent, of_runs, named, {*there, *reported})))


def _require_no_wish(request: SoupRequest, why: str) -> None:
    given = (request.mix, request.objective, request.target, request.compare_all or None)
    if any(one is not None for one in given):
        raise BadRequest(
            f"mix, objective, compare_all and target are about several domains: {why}", mend=SEVERAL
        )


def _lost(of_runs: Mapping[str, str], told: str) -> Iterator[str]:
    """That runs tell of domains, of which the task knows nothing."""
    named = {label for text in of_runs.values() for label in labels(text)} - {ALL}
    if len(named) > 1:
        yield (
            f"runs are of {listed(sorted(named))}, and the task tells {told} of its examples: each counts "
            f"alike. To have each domain count alike, {SEVERAL}"
        )


def _left_alone(there: Sequence[str], named: Iterable[str]) -> str:
    """That nothing is made of the domains of examples, why, and what would."""
    told = f"runs are of {listed(sorted(named))}" if named else f"no run tells its own (tag {tags.DOMAIN})"
    return (
        f"examples are of {counted(len(there), 'domain')}, {listed(there)}, and {told}: each example counts "
        "alike. To have each domain count alike: --objective mean"
    )


def _faults(found: Mapping[str, Sequence[str] | None], named: Iterable[str]) -> Iterator[str]:
    for split, told in found.items():
        empty = [place for place, label in enumerate(told or ()) if not label.strip()]
        if empty:
            yield f"no label: {counted(len(empty), 'example')} of split {split}, first that at {empty[0]}"
    everywhere = {label for told in found.values() for label in told or () if label.strip()}
    yield from label_faults(everywhere.union(named))


def _require_none(faults: Sequence[str]) -> None:
    if faults:
        raise BadRequest(
            "labels of domains cannot be used",
            faults=faults,
            mend="name them anew, in the task's domains() or in what runs tell",
        )


def _weights(request: SoupRequest, there: Sequence[str], named: Iterable[str]) -> dict[str, float]:
    if request.mix is None:
        seen = [domain for domain in there if domain in named] or there
        return dict.fromkeys(seen, 1.0)
    if strange := [domain for domain in request.mix if domain not in there]:
        raise BadRequest(
            f"mix names {listed(strange)}, and no example of split {request.select_on} is of that domain",
            mend=f"name some of {listed(there)}",
        )
    return dict(request.mix)


def _notes(
    silent: Sequence[str], told: Mapping[str, str], named: Iterable[str], there: Iterable[str]
) -> Iterable[str]:
    if silent:
        yield f"these runs tell no domain, and count as runs of all data: {listed(silent)}"
    if strange := {*named} - {*there}:
        theirs = sum(bool(strange & labels(text)) for text in told.values())
        yield f"no example is of {listed(sorted(strange))}: no specialist of {counted(theirs, 'run')} of that"
