"""The specialists of a registered soup's report, written as one model that answers by all of them.

Nothing is registered, and nothing in MLflow changes: it is a folder, for whoever wants to serve it.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stockpot.entities import Aim, Candidate, Digest, ModelVersion, Recipe, SoupReport, SoupRequest
from stockpot.errors import BadCheckpoint, BadRequest, BadTask, RegistryConflict
from stockpot.ports import Records
from stockpot.prose import counted, listed, size
from stockpot.statistics import likeliest, together, uniform
from stockpot.workflow.gathering.gather import find_prospects
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.selecting.by_posterior import BY_POSTERIOR, NO_ROWS, UNLIKE, Likelihoods
from stockpot.workflow.selecting.rows import domain_of
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator
from stockpot.workflow.trace import part_of, snapshot_of

if TYPE_CHECKING:
    from stockpot.ports import Bench, Watcher

CHECKED = 16
"""Held-out examples that the written model is compared on."""
TOLERANCE = 1e-3
"""By how much each may differ, of its log likelihood, or of a nat where that is less: a graph that torch
exported may sum in another order.
"""
STAGE = "write specialists"


class Range(Records, Protocol):
    """The adapters that it needs."""

    @property
    def supply(self) -> Supply:
        """Weights by digest."""
        ...

    def bench(self, request: SoupRequest) -> "Bench":
        """The request's task on a device."""
        ...


@dataclass(frozen=True)
class Member:
    """A specialist that has part in the answer."""

    domains: tuple[str, ...]
    """Whose it is."""
    recipe: Recipe
    prior: float
    """How much it counts before anything of a text is known."""


@dataclass(frozen=True)
class Together:
    """A model that was written."""

    version: ModelVersion
    """Whose report tells of the specialists."""
    out: Path
    members: tuple[Member, ...]
    weights: int
    """Bytes of all of them."""

    @property
    def cost(self) -> str:
        """What it costs to serve it."""
        return _cost(len(self.members))


def write_together(
    uri: str,
    place: Range,
    out: Path,
    watch: "Watcher",
    *,
    domain: str | None = None,
    top: int | None = None,
) -> Together:
    """Write the specialists as an MLflow model folder, whose answer is their mixture by the posterior of the
    domain: of a text of any domain, or with the cached prior of one, where the caller knows that texts are
    mostly of it, perhaps by the `top` specialists alone that this prior likes best.

    Before it is kept, it is served, and compared with the mixture of the task's own log likelihoods. Raises
    BadRequest where there are no two specialists, or no such folder can be written, before anything is
    downloaded; BadCheckpoint where weights are gone, BadTask where the model is none that predicts the next
    token, Incompatible where it cannot be exported, RegistryConflict where what was written answers
    otherwise.
    """
    out = out.absolute()
    require_new(out)
    version, snapshot = snapshot_of(uri, place.tracker)
    report = snapshot.report
    experts = _experts(version, report)
    _require_top(top, domain, len(experts))
    watch.say(_cost(top or len(experts)))
    bench = place.bench(report.request)
    split = report.request.select_on
    aim = None if domain is None else _aim(domain, split, bench)
    _offer(experts, report, place, bench, watch)
    prior = uniform(len(experts))
    if domain is not None and aim is not None:
        prior = _cached_prior(domain, aim, experts, split, place, bench, watch)
        prior = prior if top is None else likeliest(prior, top)
    members = tuple(_members(experts, prior, report))
    with part_of(out) as part:
        try:
            weights = _write(members, split, place, bench, part, watch)
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Together(version, out, members, weights)


def require_new(out: Path) -> None:
    """Raises BadRequest for a folder that holds something, and where none can be written."""
    is_folder = out.is_dir() and not out.is_symlink()
    if out.is_symlink() or (out.exists() and (not is_folder or any(out.iterdir()))):
        raise BadRequest(
            f"{out} is {'not empty' if is_folder else 'no folder'}: nothing is replaced",
            mend="name a new folder with --out, or remove that one",
        )
    with part_of(out) as part:
        part.mkdir()
        part.rmdir()


def _cost(members: int) -> str:
    return f"{counted(members, 'forward pass', 'forward passes')} per answer, and {members} x the weights"


def _experts(version: ModelVersion, report: SoupReport) -> tuple[Recipe, ...]:
    """Those of the report's row."""
    for row in report.references or ():
        if row.label == BY_POSTERIOR:
            return row.recipes
    if report.mixture is None:
        why = "its report tells of no domains"
    else:
        told = (note.partition(": ")[2] for note in report.notes if note.startswith(f"{NO_ROWS}: "))
        why = next(told, "its report does not tell of two")
    raise BadRequest(
        f"{version.uri} has no specialists that could answer together: {why}",
        mend="name a version of a sweep across domains, whose report has a row for specialists together",
    )


def _require_top(top: int | None, domain: str | None, experts: int) -> None:
    if top is None:
        return
    if domain is None:
        raise BadRequest(
            "--top keeps the specialists that the prior of a domain likes best: without one all are alike",
            mend="add --domain, or leave out --top",
        )
    if not 1 <= top <= experts:
        raise BadRequest(
            f"--top {top} of {counted(experts, 'specialist')}", mend=f"a number from 1 to {experts}"
        )


def _offer(
    experts: Sequence[Recipe], report: SoupReport, place: Range, bench: "Bench", watch: "Watcher"
) -> None:
    """Make the weights of these available by digest, from the sweep as it is now. Raises BadCheckpoint where
    some are gone, are others now, or were recalled.
    """
    asked = replace(report.request, partial=True, top=None, by=None)  # more runs may be there by now
    prospects = find_prospects(asked, place.tracker, place.supply, bench.fits, watch)
    wanted = {digest for expert in experts for digest in expert.checkpoints}
    points = {one.run_id: one for one in report.candidates if one.checkpoint in wanted}
    faults = {one.run_id: f"{one.reason}: {one.detail}" for one in prospects.exclusions}
    here: set[Digest] = set()
    for prospect in prospects.found:
        run, source = prospect.run, prospect.source
        if run.run_id not in points:
            continue
        if (word := prospects.recalled.of(run.run_id, points[run.run_id].checkpoint)) is not None:
            faults[run.run_id] = f"recalled: {word.reason}"
            continue
        found = place.supply.read_once(source)
        if found.checkpoint is None or found.checkpoint.digest != points[run.run_id].checkpoint:
            faults[run.run_id] = found.detail or "its weights are others now"
            continue
        source = source if found.cast_from else replace(source, cast=None)
        place.supply.offer([Candidate(run, source, found.sha256, found.checkpoint, found.cast_from)])
        here.add(found.checkpoint.digest)
    if gone := wanted - here:
        known = {
            one.checkpoint: f"{one.run_name} ({one.run_id}): {faults.get(one.run_id, 'it is gone')}"
            for one in points.values()
        }
        raise BadCheckpoint(
            f"the weights of {counted(len(gone), 'run')} of the specialists cannot be had",
            faults=[known.get(one, f"{one}: the report tells of no such run") for one in sorted(gone)],
            mend="restore these runs, or run the version's request again and name the version that it makes",
        )


def _aim(domain: str, split: str, bench: "Bench") -> Aim:
    """Which examples are of which domain. Raises BadRequest where none is of this one."""
    labels = tuple(bench.domains(split) or ())
    if domain not in labels:
        raise BadRequest(
            f"no example of split {split} is of the domain {domain}",
            mend=f"name one of {listed(sorted({*labels}))}",
        )
    return Aim(labels, dict.fromkeys(labels, 1.0))


def _cached_prior(
    domain: str,
    aim: Aim,
    experts: Sequence[Recipe],
    split: str,
    place: Range,
    bench: "Bench",
    watch: "Watcher",
) -> tuple[float, ...]:
    """What the report's row of this domain begins with: learnt on its held-out examples."""
    evaluator = SharedEvaluator(bench.evaluator(split, compared=False), place.store, aim=aim)
    likelihoods = Likelihoods(experts, evaluator, bench)
    watch.say(f"the prior of {domain} took {bench.passes:.3g} passes over split {split}")
    if not likelihoods.told:
        raise BadTask(f"nothing can be learnt about {domain}: {UNLIKE}")
    return likelihoods.priors(aim)[domain]


def _members(experts: Sequence[Recipe], prior: Sequence[float], report: SoupReport) -> Iterator[Member]:
    for expert, share in zip(experts, prior, strict=True):
        own = (domain_of(one.method) for one in report.selections if one.recipe == expert)
        if share > 0:
            yield Member(tuple(filter(None, own)), expert, share)


def _write(
    members: Sequence[Member], split: str, place: Range, bench: "Bench", into: Path, watch: "Watcher"
) -> int:
    """Write the model, and compare what it answers. Returns the bytes of all weights."""
    prior = [member.prior for member in members]
    first = bench.language_model(members[0].recipe, split, CHECKED)
    own: list[Sequence[float]] = []
    sizes: list[int] = []

    def models() -> Iterator[tuple[Any, Any, Path]]:
        for number, member in enumerate(members):
            with place.supply.building(member.recipe) as (built, file):
                model = bench.language_model(member.recipe, split, CHECKED) if number else first
                own.append(model.log_likelihoods())
                sizes.append(built.size)
                yield model.next_tokens, model.ids, file
            watch.advance(STAGE)

    watch.start(STAGE, len(members))
    place.tracker.package_together(models(), prior, into)
    with place.tracker.served(into) as served:
        found = first.log_likelihoods_by(served)
    for compiled in [*into.rglob("__pycache__")]:
        shutil.rmtree(compiled)
    _require_same(found, together(own, prior))
    watch.say(
        f"on {counted(len(found), 'example')} of split {split} it answers as the task's own models do, by "
        f"their posterior; {size(sum(sizes))} of weights"
    )
    return sum(sizes)


def _require_same(found: Sequence[float], wanted: Sequence[float]) -> None:
    """Raises RegistryConflict where an example's log likelihoods differ by more than `TOLERANCE`."""
    off = [
        place
        for place, (one, other) in enumerate(zip(found, wanted, strict=True))
        if not (one == other or abs(one - other) <= TOLERANCE * max(1.0, abs(other)))  # NaN is another
    ]
    if off:
        raise RegistryConflict(
            f"what was written answers otherwise than the task's own models, by their posterior: log "
            f"likelihood {found[off[0]]:.6g} in place of {wanted[off[0]]:.6g}, on {len(off)} of "
            f"{counted(len(found), 'example')}",
            mend="the mixture asks for a model that takes ids of tokens alone, each text's from the first "
            "place on, and for log_likelihood(outputs, batch) of each token behind those before it",
        )
