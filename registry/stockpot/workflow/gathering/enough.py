"""Whether there is anything to average. Where not, each reason is told once, with its count and mend."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stockpot.entities import Exclusion, ExclusionReason, Sweep, SweepSelector
from stockpot.errors import NothingToSoup
from stockpot.prose import counted, listed

NAMED = 5
"""Runs that are named of each reason."""
MENDS: Mapping[ExclusionReason, str] = MappingProxyType(
    {
        ExclusionReason.NOT_FINISHED: "where the weights of those that failed are good, set them FINISHED "
        "with mlflow.MlflowClient().set_terminated(RUN_ID); wait for those that still run",
        ExclusionReason.NO_WEIGHTS: "name a file that the runs logged: --weights PATTERN",
        ExclusionReason.OTHER_LIBRARY: "nothing is to be mended: soups are made of torch weights",
        ExclusionReason.GROUP: "log weights to the runs below it",
        ExclusionReason.NOT_IN_TOP: "keep more runs: a greater --top, or neither --top nor --by",
        ExclusionReason.DUPLICATE: "train the runs differently: these logged the same bytes",
        ExclusionReason.NOT_SCORED: "look at what these models answer on the held-out split",
    }
)
"""Of reasons that are no fault as long as other runs are left."""


def require_two(sweep: Sweep) -> Sweep:
    """The same sweep, if there is anything to average. Raises NothingToSoup."""
    require_enough(sweep.selector, len(sweep.candidates), sweep.exclusions)
    return sweep


def require_enough(selector: SweepSelector, candidates: int, exclusions: Sequence[Exclusion]) -> None:
    """Raise NothingToSoup where a sweep with so many candidates, and these exclusions, has no average."""
    if candidates > 1:
        return
    total = candidates + len(exclusions)
    name = _told(selector)
    if not total:
        raise NothingToSoup(f"sweep {name} has no runs", mend=_how_to_find(selector))
    what = "one usable run, where an average needs two" if candidates else "no usable run"
    groups = alike(exclusions)
    several = len(groups) > 1
    mends = [group[0].mend or MENDS.get(group[0].reason, "") for group in groups]
    raise NothingToSoup(
        f"sweep {name} has {counted(total, 'run')}, but {what}",
        faults=[
            _summary(group) + (f". To mend it: {mend}" if mend and several else "")
            for group, mend in zip(groups, mends, strict=True)
        ],
        mend="see what each reason says" if several else [*mends, _how_to_get_more(selector)][0],
    )


def alike(exclusions: Sequence[Exclusion]) -> list[list[Exclusion]]:
    """The exclusions by reason and mend, so that each is told once: most runs first."""
    groups: dict[tuple[ExclusionReason, str], list[Exclusion]] = {}
    for exclusion in exclusions:
        groups.setdefault((exclusion.reason, exclusion.mend), []).append(exclusion)
    return sorted(groups.values(), key=len, reverse=True)


def found_of(group: Sequence[Exclusion], *, ids: bool = False) -> str:
    """What was found of these runs: once where it is the same, else of the first few; and who they are.

    `ids`: with each name its run's id.
    """
    names = [f"{e.run_name} ({e.run_id})" if ids else e.run_name for e in group]
    details = [exclusion.detail for exclusion in group]
    if len(group) > 1 and len(set(details)) == 1:
        return f"{details[0]}: {listed(names, NAMED)}"
    pairs = zip(names, details, strict=True)
    return listed([f"{name}: {detail}" for name, detail in pairs], NAMED, between="; ")


def _summary(group: Sequence[Exclusion]) -> str:
    return f"{counted(len(group), 'run')}: {group[0].reason}: {found_of(group, ids=True)}"


def _told(selector: SweepSelector) -> str:
    name = selector.parent_run_id or selector.experiment or ""
    return f"{name} with --filter {selector.filter!r}" if selector.filter else name


def _how_to_get_more(selector: SweepSelector) -> str:
    return "choose more runs: widen --filter, or leave it out" if selector.filter else "log more runs"


def _how_to_find(selector: SweepSelector) -> str:
    if selector.filter:
        return "change --filter, or leave it out"
    if selector.parent_run_id:
        return (
            "a sweep's runs carry the tag mlflow.parentRunId with the parent's id; where they carry none, "
            "name them by --experiment and --filter"
        )
    return "log runs to this experiment, or name another"
