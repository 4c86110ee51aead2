"""BatchNorm's running statistics in a module: estimated anew for an average of weights.

Means and variances of activations are no weights: those of an average are not the average of those.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stockpot.errors import BadRequest, BadTask
from stockpot.prose import listed

STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"


def norms_of(module: nn.Module) -> dict[str, _BatchNorm]:
    """The layers of the module that keep running statistics, by name: of torch's BatchNorm or a subclass.

    Raises BadTask for a layer of another kind that does and counts its batches. One that does not count, as a
    frozen BatchNorm, holds constants, which are averaged as weights are.
    """
    found, strange = {}, []
    for name, part in module.named_modules():
        held = {own for own, _ in part.named_buffers(recurse=False)}
        if not held.issuperset({*STATISTICS, COUNTER}):
            continue
        if isinstance(part, _BatchNorm):
            found[name] = part
        else:
            strange.append(f"{name or 'itself'} ({type(part).__name__})")
    if strange:
        raise BadTask(
            f"layers of {type(module).__name__}, the task's model, keep running statistics and are no "
            f"BatchNorm of torch: {listed(strange)}",
            mend="derive them from torch.nn.BatchNorm1d, 2d or 3d, so that an average's statistics can be "
            "estimated anew; or keep no statistics: track_running_stats=False",
        )
    return found


def buffers_of(norms: Mapping[str, _BatchNorm]) -> list[Tensor]:
    """What an overlay holds of these layers: the module's own tensors."""
    return [tensor for norm in norms.values() for _, tensor in norm.named_buffers(recurse=False)]


@contextmanager
def estimating(module: nn.Module, where: str) -> Iterator[None]:
    """What the module is asked meanwhile decides its statistics, as `torch.optim.swa_utils.update_bn` does:
    each batch counts the same. All of it but BatchNorm stays in evaluation mode.

    A layer that was never reached keeps what it held: no answer depends on it. Raises BadTask where that is
    every one, and BadRequest for a batch that gives a layer one value per channel.
    """
    named = norms_of(module)
    norms = named.values()
    before = [(norm, norm.momentum, [_copy(norm, name) for name in STATISTICS]) for norm in norms]
    # Right before each use: a task's predict may call eval(), and one module may stand in several places.
    hooks = [norm.register_forward_pre_hook(partial(_train, name, where)) for name, norm in named.items()]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum, _ in before:
            norm.momentum = momentum
            norm.eval()
    unused = [(norm, held) for norm, _, held in before if not int(norm.get_buffer(COUNTER))]
    if len(unused) == len(before):
        raise BadTask(
            f"no BatchNorm of the task's model is asked anything, {where}",
            mend="let predict() call the module that it is given, and no copy or compiled form of it",
        )
    for norm, held in unused:
        for name, tensor in zip(STATISTICS, held, strict=True):
            norm.get_buffer(name).copy_(tensor)


def _copy(norm: _BatchNorm, name: str) -> Tensor:
    return norm.get_buffer(name).clone()


def _train(name: str, where: str, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
    norm.train()
    given = inputs[0] if inputs else None
    if isinstance(given, Tensor) and given.dim() > 1 and given.numel() == given.shape[1]:
        raise BadRequest(
            f"BatchNorm {name or 'itself'} is given a single example, {where}: that has no variance",
            mend="let the task's batch_size be two or more; where that split has one example, name another "
            "with --statistics-on",
        )
