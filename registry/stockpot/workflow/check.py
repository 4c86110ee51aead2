"""What a sweep holds, before anybody has said how a model is scored; and how to go on."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from shlex import quote
from typing import TYPE_CHECKING

from stockpot.entities import (
    BEST,
    LAST,
    Exclusion,
    ExclusionReason,
    Run,
    SoupRequest,
    Sweep,
    SweepSelector,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
    tags,
)
from stockpot.entities.weights_names import is_adapter
from stockpot.prose import counted
from stockpot.workflow.gathering.arrivals import Prospect, Prospects
from stockpot.workflow.gathering.enough import require_enough
from stockpot.workflow.gathering.exclusion_rules import is_part
from stockpot.workflow.gathering.expected import doubts, sorted_out
from stockpot.workflow.gathering.gather import find_prospects
from stockpot.workflow.gathering.proposal import propose
from stockpot.workflow.gathering.run_domains import hint_of_domains

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Watcher
    from stockpot.workflow.gathering.supply import Supply

FORMS = {
    WeightsFormat.SAFETENSORS: "safetensors",
    WeightsFormat.PT2: "pt2",
    WeightsFormat.TORCH: "torch file",
    WeightsFormat.PICKLE: "pickled module",
}
FIRST = (
    *("experiment", "sweep", "filter", "weights", "checkpoint_metric", "direction", "dtype", "base"),
    *("model", "task", "task_args"),
)
"""Of a command, which then reads as people write it."""
SPELLED = {"task_args": "task-arg", "methods": "method", "shifts": "shift", "wait": "no-wait"}
"""Options that are not called like the request's fields."""
NO_HEADER = (
    "a torch file and a pt2 have no header that can be read without a download; in a store that hands out no "
    "parts of files, no file has"
)


@dataclass(frozen=True)
class FoundWeights:
    """What a run logged."""

    run_id: str
    run_name: str
    held: Mapping[str, int]
    """How many weights files of each form, such as safetensors, safetensors in shards, pt2, torch file."""
    taken: str = ""
    """The path of the one that is taken; empty where the exclusions tell why none is."""
    why: str = ""
    """A clause: why this of several."""


@dataclass(frozen=True)
class Group:
    """Runs whose headers have the same tensors."""

    runs: tuple[str, ...]
    """Their names."""
    used: bool
    """Whether a soup would be made of them."""
    tensors: int | None
    """None where no header can be read."""
    parameters: int | None
    """Elements of all tensors."""
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class SweepCheck:
    """A sweep as far as listings and headers tell."""

    selector: SweepSelector
    runs: int
    weights: tuple[FoundWeights, ...]
    """Of each run that logged some, or a model of another library, in the sweep's order."""
    groups: tuple[Group, ...]
    """The one that is used first."""
    candidates: int
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    """What stands in the way, what only a download tells, and what is to be filled in."""
    command: str
    """The ``stockpot soup`` to go on with, where there is something to average: else empty. Capitals stand
    for what people fill in.
    """

    def require_enough(self) -> None:
        """Raise NothingToSoup, with every reason and mend, where there is nothing to average."""
        require_enough(self.selector, self.candidates, self.exclusions)


@dataclass(frozen=True)
class _Look:
    """One look at the sweep."""

    prospects: Prospects
    held: Mapping[str, tuple[str, Counter[str]]]
    """Names of runs, and their weights files by form; by run id."""

    @property
    def ambiguous(self) -> int:
        """Runs of which nothing tells the one checkpoint."""
        reasons = [exclusion.reason for exclusion in self.prospects.exclusions]
        return reasons.count(ExclusionReason.AMBIGUOUS_WEIGHTS)


def check_sweep(request: SoupRequest, tracker: "Tracker", supply: "Supply", watch: "Watcher") -> SweepCheck:
    """List a sweep, read its headers, and propose how to go on. `request`: `partial`, of any task and model.

    Where it says nothing of `weights`, and no tool recorded the best of several, it is looked at again with
    the words that may help; where adapters tell a path of this machine as their base, with that one. Raises
    UnknownSweep, and BadRequest for a filter that MLflow refuses.
    """
    first = found = _look(request, tracker, supply, watch)
    for word in (BEST, LAST) if request.weights is None and request.checkpoint_metric is None else ():
        if found.ambiguous:
            other = _look(replace(request, weights=word), tracker, supply, watch)
            found = max(found, other, key=lambda look: len(look.prospects.found))
    if bases := found.prospects.told_bases:
        based = replace(found.prospects.request, base=bases[0])
        found = max(found, _look(based, tracker, supply, watch), key=lambda look: len(look.prospects.found))
    prospects = found.prospects
    sweep = sorted_out(prospects, supply)
    proposal = propose(sweep.candidates, tracker)
    asked = replace(
        prospects.request,
        model=_model_name(request, tracker),
        task=proposal.task,
        task_args=proposal.args,
        partial=prospects.unfinished > 0,
    )
    enough = len(sweep.candidates) > 1
    runs = [candidate.run for candidate in sweep.candidates]
    domains = hint_of_domains(runs, asked, lambda: tracker.datasets([run.run_id for run in runs]))
    names = _told_apart(found, sweep.exclusions)
    notes = [*prospects.notes, *doubts(prospects, sweep)]
    if any(prospect.layout is None for prospect in prospects.found):
        notes.append(NO_HEADER)
    if prospects.unfinished:
        count = counted(prospects.unfinished, "run")
        notes.append(f"not finished: {count}. Wait until they are, or --partial averages the others")
    if asked.base != request.base:
        notes.append(
            f"--base {asked.base} is what the adapters tell: nobody but you can know that it is theirs"
        )
    if asked.weights != request.weights:
        notes.append(
            f"no tool recorded the best checkpoint of {counted(first.ambiguous, 'run')}: "
            f"--weights {asked.weights} takes what the table shows"
        )
    if domains:
        notes.append(domains)
    return SweepCheck(
        selector=request.selector,
        runs=len(prospects.order),
        weights=_weights(found, names),
        groups=_groups(prospects, sweep, names),
        candidates=len(sweep.candidates),
        exclusions=tuple(
            replace(one, run_name=names.get(one.run_id, one.run_name)) for one in sweep.exclusions
        ),
        notes=(*notes, *(proposal.notes if enough else ())),
        command=command_of(asked) if enough else "",
    )


def command_of(request: SoupRequest) -> str:
    """The command for a request, without what it does anyway."""
    words = ["stockpot soup"]
    by_default = {field.name: field.default for field in fields(SoupRequest)}
    for name in dict.fromkeys([*FIRST, *by_default]):
        value = getattr(request, name)
        option = f"--{SPELLED.get(name, name.replace('_', '-'))}"
        if name == "task_args":
            words += [f"{option} {quote(f'{key}={each}')}" for key, each in value.items()]
        elif isinstance(value, tuple) and value != by_default[name]:
            words += [f"{option} {quote(each)}" for each in value]
        elif value != by_default[name]:
            words.append(option if isinstance(value, bool) else f"{option} {quote(str(value))}")
    return " ".join(words)


def _look(request: SoupRequest, tracker: "Tracker", supply: "Supply", watch: "Watcher") -> _Look:
    held: dict[str, tuple[str, Counter[str]]] = {}

    def seen(run: Run, sources: Sequence[WeightsSource]) -> None:
        if sources:
            held[run.run_id] = run.name, Counter(map(_form_of, sources))

    prospects = find_prospects(request, tracker, supply, lambda _: (), watch, seen)
    for exclusion in prospects.exclusions:
        if exclusion.reason is ExclusionReason.OTHER_LIBRARY:
            held[exclusion.run_id] = exclusion.run_name, Counter([str(exclusion.reason)])
    return _Look(prospects, held)


def _form_of(source: WeightsSource) -> str:
    if is_adapter(source):
        return "adapter by PEFT"
    if is_part(source):
        return "part of a distributed checkpoint"
    return FORMS[source.format] + (" in shards" if source.parts else "")


def _told_apart(look: _Look, exclusions: Sequence[Exclusion]) -> dict[str, str]:
    """Names of runs by id, with the id behind one that several have: a seed gives all runs of a script the
    same name.
    """
    names = {run_id: name for run_id, (name, _) in look.held.items()}
    names |= {exclusion.run_id: exclusion.run_name for exclusion in exclusions}
    times = Counter(names.values())
    return {run_id: name if times[name] == 1 else f"{name} ({run_id})" for run_id, name in names.items()}


def _weights(look: _Look, names: Mapping[str, str]) -> tuple[FoundWeights, ...]:
    order = look.prospects.order
    taken = {prospect.run.run_id: prospect for prospect in look.prospects.found}
    found = []
    for run_id in sorted(look.held, key=lambda run_id: order[run_id]):
        _, held = look.held[run_id]
        prospect = taken.get(run_id)
        path = prospect.source.path if prospect else ""
        why = _why(prospect, held, look.prospects.request) if prospect else ""
        found.append(FoundWeights(run_id, names[run_id], dict(held), path, why))
    return tuple(found)


def _why(prospect: Prospect, held: Counter[str], request: SoupRequest) -> str:
    if prospect.why or held.total() == 1:
        return prospect.why
    if prospect.run.tags.get(tags.WEIGHTS):
        return f"the run's tag {tags.WEIGHTS} names it"
    if request.pattern:
        return "--weights names it"
    return "the others are files by torch.save, or pickles"


def _groups(prospects: Prospects, sweep: Sweep, names: Mapping[str, str]) -> tuple[Group, ...]:
    used = {candidate.run.run_id for candidate in sweep.candidates}
    alike: dict[tuple[TensorSpec, ...] | None, list[Run]] = {}
    for prospect in prospects.found:
        alike.setdefault(prospect.layout, []).append(prospect.run)
    groups = [_group(layout, runs, used, names) for layout, runs in alike.items()]
    return tuple(sorted(groups, key=lambda group: (not group.used, -len(group.runs))))


def _group(
    layout: tuple[TensorSpec, ...] | None, runs: Sequence[Run], used: set[str], names: Mapping[str, str]
) -> Group:
    named, counts = tuple(names[run.run_id] for run in runs), any(run.run_id in used for run in runs)
    if layout is None:
        return Group(named, counts, None, None, ())
    sizes = sum(math.prod(spec.shape) for spec in layout)
    return Group(named, counts, len(layout), sizes, tuple(sorted({spec.dtype for spec in layout})))


def _model_name(request: SoupRequest, tracker: "Tracker") -> str:
    """A registered model's name, like that of the experiment or the sweep's parent run."""
    parent = tracker.parent(request.selector)
    name = request.experiment or (parent.name if parent else "")
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "soup"
