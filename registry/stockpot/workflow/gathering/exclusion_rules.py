"""Which runs are no candidates, and why: rules for a run and its weights, and for all candidates together."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from stockpot.entities import (
    Candidate,
    Dtype,
    Exclusion,
    ExclusionReason,
    Recall,
    Run,
    SoupRequest,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
    short,
    tags,
)
from stockpot.entities.weights_names import is_adapter
from stockpot.errors import (
    AmbiguousWeights,
    BadCheckpoint,
    Incompatible,
    NoBase,
    NotArrived,
    NotFinite,
    OtherLibrary,
    Pickled,
)
from stockpot.prose import can_be_kept, counted, listed, visible
from stockpot.soup import (
    CODES,
    CONVERSION,
    NAMES,
    compatible_groups,
    differences,
    only_float_dtypes_differ,
)
from stockpot.soup.canonical import FLOATS
from stockpot.soup.compatibility import must_agree, quantised
from stockpot.workflow.gathering.recalled import told, way_back
from stockpot.workflow.gathering.shortlist import rank_by_metric

HOW_TO_LOG = (
    "log the weights with safetensors.torch.save_file and mlflow.log_artifact, or mlflow.pytorch.log_model("
    'model, name=..., input_example=..., serialization_format="pt2")'
)

LOG_AGAIN = "log the weights again with safetensors.torch.save_file(model.state_dict(), path)"
MENDS: Mapping[ExclusionReason, str] = MappingProxyType(
    {
        ExclusionReason.UNREADABLE: LOG_AGAIN,
        ExclusionReason.PICKLE: CONVERSION,
        ExclusionReason.NOT_FINITE: "log a checkpoint from before it diverged, and name it in the run's tag "
        f"{tags.WEIGHTS}",
    }
)
"""Of faults that a file has by itself."""
REASONS: Mapping[type[BadCheckpoint], ExclusionReason] = MappingProxyType(
    {
        AmbiguousWeights: ExclusionReason.AMBIGUOUS_WEIGHTS,
        Incompatible: ExclusionReason.INCOMPATIBLE,
        NoBase: ExclusionReason.NO_BASE,
        NotArrived: ExclusionReason.NOT_READ,
        NotFinite: ExclusionReason.NOT_FINITE,
        OtherLibrary: ExclusionReason.OTHER_LIBRARY,
        Pickled: ExclusionReason.PICKLE,
    }
)
NAMED = 8
"""Files that are named where there are many."""
ARCHITECTURE = (
    "make Task.model() build the architecture that the sweep trained, or leave the run out with --filter"
)
OF_THE_CLASS = (
    "save the base as the class that was adapted, without what that lacks: "
    "AutoModelFor....from_pretrained(BASE).save_pretrained(FOLDER), and name it by --base FOLDER"
)
UNPACKED = "log the weights as they were before they were quantised, or dequantised (`model.dequantize()`)"
PARTS = "several processes wrote a part each (DCP, FSDP or DeepSpeed)"
JOINING = (
    "join the parts, with python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt "
    "or DeepSpeed's zero_to_fp32.py, and log that file to the run"
)
_PARTS = re.compile(r".*(\.distcp|_model_states\.pt)")
PERSISTENT = "register_buffer(name, tensor, persistent=False)"


class Gathering:
    """Runs on their way to being candidates: each rule takes some out, with the reason.

    `exclude`, and the rules for one run, may be called from several threads.
    """

    def __init__(self, exclusions: Iterable[Exclusion] = ()) -> None:
        self.exclusions = list(exclusions)

    def exclude(self, run: Run, reason: ExclusionReason, detail: str, mend: str = "") -> None:
        """Record that this run is no candidate."""
        self.exclusions.append(Exclusion(run.run_id, run.name, reason, detail, mend))

    def exclude_faulty(self, run: Run, source: WeightsSource, fault: BadCheckpoint) -> None:
        """Record that something is wrong with this run's weights, whenever it showed."""
        reason = REASONS.get(type(fault), ExclusionReason.UNREADABLE)
        detail = "; ".join([fault.what, *fault.faults]).replace(f"{visible(source.path)}: ", "")
        self.exclude(run, reason, f"{source.path}: {detail}", fault.mend)

    def exclude_unread(self, run: Run, source: WeightsSource, fault: BadCheckpoint) -> None:
        """Record what the headers of this run's weights, or an adapter's configuration, tell."""
        reason = REASONS.get(type(fault), ExclusionReason.UNREADABLE)
        detail = "; ".join([fault.what, *fault.faults])
        if is_adapter(source):
            self.exclude(run, reason, f"{source.path}: {detail.removeprefix(f'{source.path}: ')}", fault.mend)
        else:
            self.exclude(run, reason, detail, MENDS.get(reason, fault.mend))

    def exclude_recalled(self, run: Run, word: Recall) -> None:
        """Record that a person took this run, its checkpoint or its data back."""
        self.exclude(run, ExclusionReason.RECALLED, told(word), way_back(word))

    def choose_weights(
        self,
        run: Run,
        found: Sequence[WeightsSource],
        pattern: str | None,
        choose: Callable[[Sequence[WeightsSource]], WeightsSource],
        below: int = 0,
    ) -> WeightsSource | None:
        """The run's one weights file: the tagged one, else the one that matches, else the only one, else what
        `choose` makes of several: it may raise AmbiguousWeights.

        A path that is there is meant literally, whatever it would match as a pattern. Files by ``torch.save``
        count only where there are no others, since tools write many of them beside weights. A run with so
        many runs `below` it needs no weights: it may only hold those together.
        """
        wanted = run.tags.get(tags.WEIGHTS) or pattern
        named = list(found)
        if wanted:
            literally = [source for source in found if source.path == wanted]
            named = literally or [source for source in found if fnmatchcase(source.path, wanted)]
        readable = [source for source in named if source.format is not WeightsFormat.PICKLE]
        usable = [source for source in readable if source.format is not WeightsFormat.TORCH] or readable
        if usable:
            return self._acceptable(run, usable[0] if len(usable) == 1 else choose(usable))
        names = listed([source.path for source in named or found], NAMED)
        if found and all(source.format is WeightsFormat.PICKLE for source in named or found):
            parts = any(map(is_part, named or found))
            why, mend = (PARTS, JOINING) if parts else ("pickles are never run", CONVERSION)
            self.exclude(run, ExclusionReason.PICKLE, f"{names}: {why}", mend)
        elif found:
            self.exclude(run, ExclusionReason.NO_WEIGHTS, f"nothing matches {wanted!r} among {names}")
        elif below:
            detail = f"it has no weights of its own, and {counted(below, 'run')} below it"
            self.exclude(run, ExclusionReason.GROUP, detail)
        else:
            self.exclude(run, ExclusionReason.NO_WEIGHTS, "it logged no weights", HOW_TO_LOG)
        return None

    def _acceptable(self, run: Run, source: WeightsSource) -> WeightsSource | None:
        """The source, unless its address would be read as another file's."""
        if not can_be_kept(source.path):
            why, mend = "its name is no UTF-8 text", "log the weights under another name"
        elif re.search(r"[#?]|%[0-9A-Fa-f]{2}", source.path):
            why = "in an address, # and ? end the path, and % begins a code"
            mend = "log the weights under a name without # ? %"
        else:
            return source
        self.exclude(run, ExclusionReason.UNREADABLE, f"{source.path}: {why}", mend)
        return None

    def can_be_averaged(
        self,
        run: Run,
        tensors: Sequence[TensorSpec],
        fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
        *,
        merged: bool = False,
    ) -> bool:
        """Whether the run's tensors have averages at all, and fit the task's model. `merged`: they are an
        adapter's in its base.
        """
        if (name := quantised(tensors)) is not None:
            detail = f"quantised weights, which have no average: {visible(name)} holds integers"
            self.exclude(run, ExclusionReason.INCOMPATIBLE, detail, UNPACKED)
            return False
        faults = fits(tensors)
        if faults:
            detail = "does not fit the task's model: " + "; ".join(faults)
            self.exclude(
                run, ExclusionReason.INCOMPATIBLE, detail, OF_THE_CLASS if merged else _how_to_fit(faults)
            )
        return not faults

    def largest_group(
        self,
        candidates: list[Candidate],
        request: SoupRequest,
        differing: Callable[[Candidate, Candidate], Sequence[str]] = lambda *_: (),
    ) -> list[Candidate]:
        """The group of equal layout that has the most different weights.

        With a logged metric to rank by, the group of its best run. `differing` names the tensors that hold
        other values, where that can be told.
        """
        groups = compatible_groups([candidate.checkpoint for candidate in candidates])
        if len(groups) < 2:
            return candidates
        members = [[candidates[i] for i in group] for group in groups]
        best = min(members, key=lambda group: _group_rank(group, request))
        for candidate in (c for group in members if group is not best for c in group):
            if candidate.checkpoint.tensors != best[0].checkpoint.tensors:
                self.exclude_stranger(candidate.run, candidate.checkpoint.tensors, best)
            else:
                self._exclude_by_values(candidate, best, differing(best[0], candidate))
        return best

    def exclude_stranger(self, run: Run, tensors: Sequence[TensorSpec], group: Sequence[Candidate]) -> None:
        """Record that a run with these tensors cannot be averaged with the group."""
        usual = group[0].checkpoint.tensors
        mend = "name the runs of one architecture with --filter"
        if only_float_dtypes_differ(usual, tensors):
            mend = f"--dtype {_usual_dtype(usual)} casts it, as soups of several precisions need"
        self._exclude_misfit(run, group, "; ".join(differences(usual, tensors)), mend)

    def _exclude_by_values(
        self, candidate: Candidate, group: Sequence[Candidate], faults: Sequence[str]
    ) -> None:
        """Record that tensors which are not averaged hold other values than the group's."""
        names = [spec.name for spec in must_agree(candidate.checkpoint.tensors)]
        held = f"integer or boolean tensors hold other values: one of {listed(names)}"
        detail = listed(faults, between="; ") or held
        mend = f"log weights without counters of steps, made with {PERSISTENT}, or with one value in all runs"
        self._exclude_misfit(candidate.run, group, detail, mend)

    def _exclude_misfit(self, run: Run, group: Sequence[Candidate], detail: str, mend: str) -> None:
        others = f"run {group[0].run.name}" + (f" and {len(group) - 1} more" if len(group) > 1 else "")
        what = f"cannot be averaged with {others}: {detail}"
        self.exclude(run, ExclusionReason.INCOMPATIBLE, what, mend)

    def unique(self, candidates: list[Candidate]) -> list[Candidate]:
        """One candidate per digest: the earliest run."""
        first: dict[str, Candidate] = {}
        for candidate in candidates:
            twin = first.setdefault(candidate.checkpoint.digest, candidate)
            if twin is not candidate:
                detail = f"bit-identical to run {twin.run.name} ({short(candidate.checkpoint.digest)})"
                self.exclude(candidate.run, ExclusionReason.DUPLICATE, f"{detail}, which stands for both")
        return list(first.values())


def is_part(source: WeightsSource) -> bool:
    """Whether its name is that of what one of several processes wrote of a model."""
    return _PARTS.fullmatch(source.path) is not None


def _how_to_fit(faults: Sequence[str]) -> str:
    """What mends weights that differ in these ways from the task's model."""
    if part := re.fullmatch(r"all [\d,]+ names match with prefix `(.+)\.`", faults[0]):
        return (
            f"these are the weights of {part[1]} alone, a part of the task's model: let Task.model() return "
            "that part, or log the whole model"
        )
    lost = [re.search(r", which the model's (\w+) does not hold", fault) for fault in faults]
    wanted = {NAMES[found[1]] for found in lost if found and found[1] in CODES.values()}
    if all(lost) and len(wanted) == 1:
        return f"--dtype {wanted.pop()} casts the weights to the type of the task's model"
    return ARCHITECTURE


def _usual_dtype(tensors: Sequence[TensorSpec]) -> str:
    """In which most floating-point numbers of this layout are, of those that weights may be cast to."""
    sizes: Counter[str] = Counter()
    for spec in tensors:
        if spec.dtype in FLOATS:
            sizes[spec.dtype] += math.prod(spec.shape)
    code = sizes.most_common(1)[0][0]
    return NAMES[code] if code in CODES.values() else Dtype.FLOAT32


def _group_rank(group: list[Candidate], request: SoupRequest) -> tuple[tuple[bool, float], int]:
    best = min(rank_by_metric(candidate.run, request) for candidate in group)
    return best, -len({candidate.checkpoint.digest for candidate in group})  # twins count once
