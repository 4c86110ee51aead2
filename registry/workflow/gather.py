"""From a sweep's runs to its candidates; every other run is excluded with a reason."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from registry.entities import (
    Candidate,
    Direction,
    Exclusion,
    ExclusionReason,
    Run,
    SoupRequest,
    Sweep,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
    short,
)
from registry.errors import NothingToSoup
from registry.soup import batch_norm_layers, compatible_groups, differences

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.ports import Progress, Tracker
    from registry.workflow.supply import Supply

WEIGHTS_TAG = "stockpot.weights"
"""A run's own word on which of its artifacts holds its weights: the path."""
BASE_TAG = "stockpot.base"
"""A run's own word on the weights that it started from: any name or digest."""
HOW_TO_LOG = (
    "log the weights with safetensors.torch.save_file and mlflow.log_artifact, or mlflow.pytorch.log_model("
    'model, name=..., input_example=..., serialization_format="pt2")'
)


class Gathering:
    """Runs on their way to being candidates: each filter takes some out, with the reason."""

    def __init__(self) -> None:
        self.exclusions: list[Exclusion] = []

    def exclude(self, run: Run, reason: ExclusionReason, detail: str, mend: str = "") -> None:
        """Record that this run is no candidate."""
        self.exclusions.append(Exclusion(run.run_id, run.name, reason, detail, mend))

    def finished(self, runs: Iterable[Run]) -> list[Run]:
        """Runs that ended well."""
        kept = []
        for run in runs:
            if run.status == "FINISHED":
                kept.append(run)
            else:
                self.exclude(run, ExclusionReason.NOT_FINISHED, f"its status is {run.status}")
        return kept

    def top(self, runs: list[Run], request: SoupRequest) -> list[Run]:
        """The best runs by a logged metric, in the given order; all of them if none was asked for."""
        if request.top is None or request.by is None:
            return runs
        ranked = sorted(runs, key=lambda run: _rank_by_metric(run, request))
        chosen = {run.run_id for run in ranked[: request.top] if _has_metric(run, request.by)}
        for run in runs:
            if run.run_id not in chosen:
                value = f"{run.metrics[request.by]:.6g}" if request.by in run.metrics else "not logged"
                detail = f"{request.by} is {value}, not among the best {request.top}"
                self.exclude(run, ExclusionReason.NOT_IN_TOP, detail)
        return [run for run in runs if run.run_id in chosen]

    def same_base(self, runs: list[Run], request: SoupRequest) -> list[Run]:
        """Runs that record no starting point, or the one that most others record."""
        bases = Counter(base for run in runs if (base := run.tags.get(BASE_TAG)))
        if request.any_base or len(bases) < 2:
            return runs
        usual = bases.most_common(1)[0][0]
        odd = {run.run_id for run in runs if run.tags.get(BASE_TAG, usual) != usual}
        for run in runs:
            if run.run_id in odd:
                self.exclude(
                    run,
                    ExclusionReason.DIFFERENT_BASE,
                    f"tag {BASE_TAG} is {run.tags[BASE_TAG]}, most of the sweep has {usual}",
                    "--any-base averages them all the same",
                )
        return [run for run in runs if run.run_id not in odd]

    def choose_weights(
        self, run: Run, found: Sequence[WeightsSource], pattern: str | None
    ) -> WeightsSource | None:
        """The run's one weights file: the tagged one, else the one that matches, else the only one."""
        usable = [source for source in found if source.format is not WeightsFormat.PICKLE]
        wanted = run.tags.get(WEIGHTS_TAG) or pattern
        matching = (
            [s for s in usable if s.path == wanted or fnmatchcase(s.path, wanted)] if wanted else usable
        )
        if len(matching) == 1:
            return matching[0]
        names = ", ".join(source.path for source in matching or found)
        if matching:
            mend = f"--weights PATTERN, or the tag {WEIGHTS_TAG}=PATH on the run"
            self.exclude(
                run, ExclusionReason.AMBIGUOUS_WEIGHTS, f"{len(matching)} weights files: {names}", mend
            )
        elif usable:
            self.exclude(run, ExclusionReason.NO_WEIGHTS, f"nothing matches {wanted!r} among {names}")
        elif found:
            self.exclude(run, ExclusionReason.PICKLE, f"{names}: pickles are never opened", HOW_TO_LOG)
        else:
            self.exclude(run, ExclusionReason.NO_WEIGHTS, "it logged no weights", HOW_TO_LOG)
        return None

    def without_batch_norm(self, candidates: list[Candidate]) -> list[Candidate]:
        """Candidates whose statistics need no re-estimation after averaging."""
        kept = []
        for candidate in candidates:
            layers = batch_norm_layers(candidate.checkpoint)
            if not layers:
                kept.append(candidate)
                continue
            detail = f"running statistics of {', '.join(layers[:3])}{' ...' if len(layers) > 3 else ''}"
            self.exclude(
                candidate.run,
                ExclusionReason.BATCH_NORM,
                f"{detail} would have to be estimated again for an average",
                "use GroupNorm or LayerNorm; BatchNorm is not supported yet",
            )
        return kept

    def that_fit(
        self, candidates: list[Candidate], fits: "Callable[[Sequence[TensorSpec]], Sequence[str]]"
    ) -> list[Candidate]:
        """Candidates whose tensors fit the task's model."""
        kept = []
        for candidate in candidates:
            faults = fits(candidate.checkpoint.tensors)
            if faults:
                detail = "does not fit the task's model: " + "; ".join(faults)
                self.exclude(candidate.run, ExclusionReason.INCOMPATIBLE, detail)
            else:
                kept.append(candidate)
        return kept

    def largest_group(self, candidates: list[Candidate], request: SoupRequest) -> list[Candidate]:
        """The largest group of equal layout: with a logged metric to rank by, the group of its best run."""
        groups = compatible_groups([candidate.checkpoint for candidate in candidates])
        if len(groups) < 2:
            return candidates
        members = [[candidates[i] for i in group] for group in groups]
        best = min(members, key=lambda group: _group_rank(group, request))
        for candidate in (c for group in members if group is not best for c in group):
            faults = differences(best[0].checkpoint.tensors, candidate.checkpoint.tensors)
            detail = "; ".join(faults) or "its integer or boolean tensors hold other values"
            self.exclude(
                candidate.run,
                ExclusionReason.INCOMPATIBLE,
                f"cannot be averaged with run {best[0].run.name} and {len(best) - 1} more: {detail}",
            )
        return best

    def unique(self, candidates: list[Candidate]) -> list[Candidate]:
        """One candidate per digest: the earliest run."""
        first: dict[str, Candidate] = {}
        for candidate in candidates:
            twin = first.setdefault(candidate.checkpoint.digest, candidate)
            if twin is not candidate:
                detail = f"bit-identical to run {twin.run.name} ({short(candidate.checkpoint.digest)})"
                self.exclude(candidate.run, ExclusionReason.DUPLICATE, f"{detail}, which stands for both")
        return list(first.values())


def gather(
    request: SoupRequest,
    tracker: "Tracker",
    supply: "Supply",
    fits: "Callable[[Sequence[TensorSpec]], Sequence[str]]",
    progress: "Progress",
) -> Sweep:
    """List the sweep, read every run's weights once, and keep those that can be averaged.

    `fits` tells how tensors differ from the task's model. Raises UnknownSweep for a sweep that does
    not exist, NothingToSoup when fewer than two candidates are left.
    """
    gathering = Gathering()
    listed = list(tracker.runs(request.selector))
    runs = gathering.top(gathering.same_base(gathering.finished(listed), request), request)
    candidates = []
    progress.start("read weights", len(runs))
    for run in runs:
        candidate = _read(run, request, tracker, supply, gathering)
        if candidate is not None:
            candidates.append(candidate)
        progress.advance("read weights")
    candidates = gathering.without_batch_norm(candidates)
    candidates = gathering.that_fit(candidates, fits)
    candidates = gathering.largest_group(candidates, request)
    candidates = gathering.unique(candidates)
    order = {run.run_id: place for place, run in enumerate(listed)}
    sweep = Sweep(
        request.selector,
        tuple(sorted(candidates, key=lambda candidate: order[candidate.run.run_id])),
        tuple(sorted(gathering.exclusions, key=lambda exclusion: order[exclusion.run_id])),
    )
    supply.offer(sweep.candidates)
    return require_two(sweep)


def require_two(sweep: Sweep) -> Sweep:
    """The same sweep, if there is anything to average. Raises NothingToSoup."""
    if len(sweep.candidates) > 1:
        return sweep
    total = len(sweep.candidates) + len(sweep.exclusions)
    what = "one usable run, and one is no soup" if sweep.candidates else "no usable run"
    name = sweep.selector.parent_run_id or sweep.selector.experiment
    raise NothingToSoup(
        f"sweep {name} has {total} runs, but {what}" if total else f"sweep {name} has no runs",
        faults=[f"{e.run_name} ({e.run_id}): {e.reason}: {e.detail}" for e in sweep.exclusions],
        mend="log each run's weights: " + HOW_TO_LOG,
    )


def _read(
    run: Run, request: SoupRequest, tracker: "Tracker", supply: "Supply", gathering: Gathering
) -> Candidate | None:
    source = gathering.choose_weights(run, tracker.weights(run), request.weights)
    if source is None:
        return None
    found = supply.ingest(source)
    if found.checkpoint is None:
        gathering.exclude(run, found.fault or ExclusionReason.UNREADABLE, f"{source.path}: {found.detail}")
        return None
    return Candidate(run, source, found.sha256, found.checkpoint)


def _has_metric(run: Run, name: str) -> bool:
    value = run.metrics.get(name)
    return value is not None and not math.isnan(value)


def _rank_by_metric(run: Run, request: SoupRequest) -> tuple[bool, float]:
    if request.by is None or not _has_metric(run, request.by):
        return (True, 0.0)
    value = run.metrics[request.by]
    return (False, -value if request.direction is Direction.MAX else value)


def _group_rank(group: list[Candidate], request: SoupRequest) -> tuple[tuple[bool, float], int]:
    return (min(_rank_by_metric(candidate.run, request) for candidate in group), -len(group))
