"""Which of a module's tensors a checkpoint's tensors are for."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from stockpot.entities import TensorSpec
from stockpot.errors import BadTask, Incompatible
from stockpot.evaluation.weights.renaming import renaming
from stockpot.prose import listed
from stockpot.soup import common_prefix
from stockpot.soup.arithmetic import DTYPES, spec_of
from stockpot.soup.canonical import canonical_names

_CONVERTED = (
    "transformers makes other tensors of {} of these as it loads them, so that they have no place of "
    "their own: save the models by save_pretrained(folder, save_original_format=False), or log their "
    "state_dict()"
)


@dataclass(frozen=True, eq=False)
class _Slot:
    """One parameter or buffer of a module, under all of its names: tied tensors have several."""

    names: tuple[str, ...]
    tensor: Tensor


def architecture_of(module: nn.Module) -> tuple[TensorSpec, ...]:
    """The module's tensors under their canonical names, sorted by name; tied ones under each name."""
    tensors = _tensors(module)
    names = canonical_names(tensors)
    return tuple(sorted((spec_of(names[k], v) for k, v in tensors.items()), key=lambda spec: spec.name))


@dataclass(frozen=True)
class Placement:
    """Where in a module the tensors of a checkpoint belong."""

    tensors: tuple[TensorSpec, ...]
    """The checkpoint's."""
    targets: Mapping[str, Tensor]
    """The module's own tensor for each of the checkpoint's; of tied ones for the first only."""
    ties: tuple[tuple[str, str], ...]
    """The other tied ones, each behind the first of its group: they must hold the same values."""
    faults: tuple[str, ...]
    """How the checkpoint's tensors differ from what the module takes, a sentence per kind of difference;
    empty if they fit.
    """


def placement(module: nn.Module, tensors: Sequence[TensorSpec]) -> Placement:
    """Find the place of each of these tensors, under canonical names, in the module.

    A dtype fits if it is the module's own, or a floating-point one that the module's holds without
    loss. Of tied tensors one is enough; where there are several, they have one dtype. Names are the module's,
    or those under which transformers wrote it.
    """
    slots, converted = _slots_of(module, [spec.name for spec in tensors])
    faults: dict[str, list[str]] = defaultdict(list)
    unexpected: dict[str, str] = {}
    firsts: dict[_Slot, TensorSpec] = {}
    ties: list[tuple[str, str]] = []
    for spec in tensors:
        slot = slots.get(spec.name)
        if slot is None:
            unexpected[spec.name] = f"{spec.name} {spec.dtype}{list(spec.shape)}"
            continue
        first = firsts.setdefault(slot, spec)
        for kind, fault in _faults(spec, slot, first):
            faults[kind].append(fault)
        if first is not spec:
            ties.append((first.name, spec.name))
    targets = {spec.name: slot.tensor for slot, spec in firsts.items()}
    missing = _missing(slots, firsts)
    absent = {name for name, slot in slots.items() if slot.names in missing}
    told, names = common_prefix(absent, unexpected, len(tensors))
    if told:
        same = [replace(spec, name=names.get(spec.name, spec.name)) for spec in tensors]
        return Placement(tuple(tensors), targets, tuple(ties), (told, *fits(module, same)))
    strays = []
    if fused := [unexpected.pop(name) for name in converted if name in unexpected]:
        strays.append(f"{listed(fused)}: {_CONVERTED.format(type(module).__name__)}")
    if unexpected:
        strays.append(f"unexpected {listed([*unexpected.values()])}")
    if missing:
        shapes = [f"{' or '.join(names)} {list(tensor.shape)}" for names, tensor in missing.items()]
        strays.append(f"missing {listed(shapes)}")
    differing = [listed(group, between="; ") for group in faults.values()]
    return Placement(tuple(tensors), targets, tuple(ties), (*differing, *strays))


def stored_names(module: nn.Module, stored: Collection[str]) -> dict[str, str]:
    """For each of the module's tensors the name that it has among these, which are canonical; its own
    canonical one if none is there. Tied tensors may be there under one name only.
    """
    slots, _ = _slots_of(module, stored)
    known = {slots[name]: name for name in sorted(stored, reverse=True) if name in slots}
    own = canonical_names(_tensors(module))
    return {
        name: alias if alias in stored and alias in slots else known.get(slots[alias], alias)
        for name, alias in own.items()
    }


def fits(module: nn.Module, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
    """How these tensors, under canonical names, differ from what the module takes; empty if they fit."""
    return placement(module, tensors).faults


def unfit(module: nn.Module, faults: Sequence[str]) -> Incompatible:
    """Weights that this module does not take."""
    return Incompatible(
        f"these weights do not fit {type(module).__name__}, the task's model",
        faults=faults,
        mend="make Task.model() build the architecture that the sweep trained",
    )


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's parameters and buffers, those included that its state leaves out."""
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own tensors, not copies: tied ones are the same object. Raises BadTask for copies."""
    tensors = {k: v for k, v in module.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    own = [*module.parameters(), *module.buffers()]
    objects, places = set(map(id, own)), {tensor.data_ptr() for tensor in own} - {0}
    copies = [k for k, v in tensors.items() if id(v) not in objects and v.data_ptr() not in places]
    if copies:
        raise BadTask(
            f"state_dict() of {type(module).__name__}, the task's model, holds tensors that are neither its "
            f"parameters nor its buffers: {listed(copies)}",
            mend="make Task.model() return a module whose state_dict() is not overridden: weights are loaded "
            "into its own tensors",
        )
    return tensors


def _slots(module: nn.Module) -> dict[str, _Slot]:
    """The module's tensors by canonical name.

    A checkpoint may leave out some of the tied tensors, all but the first or any one of them, and be
    stripped of a prefix that only those lack (``lm_head.weight`` beside ``model.embed.weight``): names
    without it are known too.
    """
    tensors = _tensors(module)
    tied: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        tied.setdefault(_memory(tensor), []).append(name)
    slots: dict[str, _Slot] = {}
    for names in tied.values():
        slots |= dict.fromkeys(names, _Slot(tuple(names), tensors[names[0]]))
    spare = [name for names in tied.values() if len(names) > 1 for name in names]
    stored = [[name for name in tensors if name != left_out] for left_out in spare]
    stored += [[names[0] for names in tied.values()], [*tensors]]  # the last one's names prevail
    return {name: slots[old] for names in stored for old, name in canonical_names(names).items()}


def _slots_of(module: nn.Module, stored: Collection[str]) -> tuple[Mapping[str, _Slot], Collection[str]]:
    """The module's tensors by canonical name, and under each of these names that stands for one of them; and
    which of these stand for none, since transformers would make others of them.
    """
    slots = _slots(module)
    if slots.keys() >= set(stored):
        return slots, ()
    found = renaming(module, stored)
    own = canonical_names(_tensors(module))
    return {**slots, **{name: slots[own[new]] for name, new in found.names.items()}}, found.converted


def _memory(tensor: Tensor) -> object:
    """What tied tensors have in common: they are one object, or lie in one place."""
    if tensor.data_ptr() == 0:
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _faults(spec: TensorSpec, slot: _Slot, first: TensorSpec) -> Iterator[tuple[str, str]]:
    """Each with its kind."""
    wanted = spec_of(spec.name, slot.tensor)
    if spec.shape != wanted.shape:
        yield "shape", f"{spec.name} has shape {list(spec.shape)}, the model's has {list(wanted.shape)}"
    if not _holds(slot.tensor.dtype, spec.dtype):
        what = f"{spec.name} is {spec.dtype}, which the model's {wanted.dtype} does not hold without loss"
        yield "dtype", what
    if spec.dtype != first.dtype:
        # Their averages would be rounded differently.
        what = f"{first.name} and {spec.name} are one tensor in the model, but {first.dtype} and {spec.dtype}"
        yield "tied", what


def _holds(dtype: torch.dtype, stored: str) -> bool:
    """Whether every value of the stored dtype is one of this dtype."""
    other = DTYPES.get(stored)
    if other is None or other == dtype:
        return other == dtype
    both_floats = other.is_floating_point and dtype.is_floating_point
    return both_floats and torch.promote_types(other, dtype) == dtype


def _missing(slots: Mapping[str, _Slot], met: Iterable[_Slot]) -> Mapping[tuple[str, ...], Tensor]:
    """The module's tensors that were not met, by all names of each."""
    known = set(met)
    return {slot.names: slot.tensor for slot in slots.values() if slot not in known}
