"""From named tensors into a live module."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from registry.entities import TensorSpec
from registry.errors import BadTask, Incompatible
from registry.soup.arithmetic import DTYPES
from registry.soup.canonical import canonical_names

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, eq=False)
class _Slot:
    """One parameter or buffer of a module, under all of its names: tied tensors have several."""

    names: tuple[str, ...]
    tensor: Tensor


def architecture_of(module: nn.Module) -> tuple[TensorSpec, ...]:
    """The module's tensors under their canonical names, sorted by name; tied ones under each name."""
    tensors = _tensors(module)
    names = canonical_names(tensors)
    return tuple(sorted((_spec(names[k], v) for k, v in tensors.items()), key=lambda spec: spec.name))


def fits(module: nn.Module, tensors: Iterable[TensorSpec]) -> tuple[str, ...]:
    """How these tensors, under canonical names, differ from what the module takes; empty if they fit.

    A dtype fits if it is the module's own, or a floating-point one that the module's holds without
    loss. Of tied tensors one is enough.
    """
    slots = _slots(module)
    faults: list[str] = []
    met: set[_Slot | None] = set()
    for spec in tensors:
        slot = slots.get(spec.name)
        faults += _faults(spec, slot)
        met.add(slot)
    return (*faults, *_missing(slots, met))


def load_into(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy named tensors into the module's own, in place, on whatever device and in whatever dtype it is.

    Names are canonical. Raises Incompatible with every fault: a tensor missing, unexpected, of another
    shape or of a dtype that `fits` refuses; tied tensors that differ. The module is then in part loaded.
    """
    slots = _slots(module)
    faults: list[str] = []
    filled: dict[_Slot | None, str] = {}
    for name, tensor in tensors:
        slot = slots.get(name)
        found = list(_faults(_spec(name, tensor), slot))
        if slot is not None and not found:
            found = list(_copy(tensor, slot, name, first=filled.get(slot)))
        faults += found
        filled.setdefault(slot, name)
    faults += _missing(slots, filled)
    if faults:
        raise Incompatible(
            f"these weights do not fit {type(module).__name__}, the task's model",
            faults=faults,
            mend="make Task.model() build the architecture that the sweep trained",
        )


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's parameters and buffers, those included that its state leaves out."""
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _copy(tensor: Tensor, slot: _Slot, name: str, first: str | None) -> Iterator[str]:
    if first is None:
        with torch.no_grad():
            slot.tensor.copy_(tensor)
    elif not torch.equal(slot.tensor, tensor.to(slot.tensor)):
        yield f"{first} and {name} are one tensor in the model, but hold different values"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own tensors, not copies: tied ones are the same object. Raises BadTask for copies."""
    tensors = {k: v for k, v in module.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    own = [*module.parameters(), *module.buffers()]
    objects, places = set(map(id, own)), {tensor.data_ptr() for tensor in own} - {0}
    copies = [k for k, v in tensors.items() if id(v) not in objects and v.data_ptr() not in places]
    if copies:
        raise BadTask(
            f"state_dict() of {type(module).__name__}, the task's model, holds tensors that are neither its "
            f"parameters nor its buffers: {', '.join(copies)}",
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
    tied: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        tied.setdefault(id(tensor), []).append(name)
    slots: dict[str, _Slot] = {}
    for names in tied.values():
        slots |= dict.fromkeys(names, _Slot(tuple(names), tensors[names[0]]))
    spare = [name for names in tied.values() if len(names) > 1 for name in names]
    stored = [[name for name in tensors if name != left_out] for left_out in spare]
    stored += [[names[0] for names in tied.values()], [*tensors]]  # the last one's names prevail
    return {name: slots[old] for names in stored for old, name in canonical_names(names).items()}


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(name, _NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))


def _faults(spec: TensorSpec, slot: _Slot | None) -> Iterator[str]:
    if slot is None:
        yield f"unexpected {spec.name} {spec.dtype}{list(spec.shape)}"
        return
    wanted = _spec(spec.name, slot.tensor)
    if spec.shape != wanted.shape:
        yield f"{spec.name} has shape {list(spec.shape)}, the model's has {list(wanted.shape)}"
    if not _holds(slot.tensor.dtype, spec.dtype):
        yield f"{spec.name} is {spec.dtype}, which the model's {wanted.dtype} does not hold without loss"


def _holds(dtype: torch.dtype, stored: str) -> bool:
    """Whether every value of the stored dtype is one of this dtype."""
    other = DTYPES.get(stored)
    if other is None or other == dtype:
        return other == dtype
    both_floats = other.is_floating_point and dtype.is_floating_point
    return both_floats and torch.promote_types(other, dtype) == dtype


def _missing(slots: Mapping[str, _Slot], met: Iterable[_Slot | None]) -> Sequence[str]:
    known = set(met)
    missing = {slot.names: slot.tensor for slot in slots.values() if slot not in known}
    return [f"missing {' or '.join(names)} {list(tensor.shape)}" for names, tensor in missing.items()]
