"""Which checkpoints can be averaged with each other, told from their headers alone."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from stockpot.entities import Checkpoint, Digest, TensorSpec

_SHOWN = 8


def differences(reference: Sequence[TensorSpec], other: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Every way in which `other` differs from `reference`: one sentence per kind of difference.

    Where very many tensors differ in the same way, a sentence gives their number and names some.
    """
    expected = {tensor.name: tensor for tensor in reference}
    found = {tensor.name: tensor for tensor in other}
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(expected.keys() | found.keys()):
        want, have = expected.get(name), found.get(name)
        if have is None:
            groups["missing"].append(name)
        elif want is None:
            groups["unexpected"].append(name)
        else:
            if have.dtype != want.dtype:
                groups[f"{have.dtype} instead of {want.dtype}"].append(name)
            if have.shape != want.shape:
                groups["other shapes"].append(f"{name} {list(have.shape)} instead of {list(want.shape)}")
    return tuple(f"{kind}: {_listed(names)}" for kind, names in groups.items())


def batch_norm_layers(tensors: Iterable[TensorSpec]) -> tuple[str, ...]:
    """The layers that hold running statistics, which no average of weights gets right."""
    names = {tensor.name for tensor in tensors}
    means = (name for name in names if name.rpartition(".")[2] == "running_mean")
    layers = (name.removesuffix("running_mean") for name in means)
    return tuple(sorted(layer.removesuffix(".") for layer in layers if layer + "running_var" in names))


def compatible_groups(checkpoints: Sequence[Checkpoint]) -> tuple[tuple[int, ...], ...]:
    """Indices of checkpoints that can be averaged with each other, by their first members' order.

    Members of one group agree in names, dtypes and shapes, and in the values of all integer and
    boolean tensors. Where `differences` finds nothing between two groups, it is these that differ.
    """
    groups: dict[tuple[tuple[TensorSpec, ...], Digest], list[int]] = defaultdict(list)
    for index, checkpoint in enumerate(checkpoints):
        groups[checkpoint.tensors, checkpoint.exact].append(index)
    return tuple(map(tuple, groups.values()))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {rest} more" if rest > 0 else shown
