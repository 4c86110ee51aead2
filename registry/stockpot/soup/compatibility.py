"""Which checkpoints can be averaged with each other, told from their headers alone."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from struct import unpack_from

from stockpot.entities import Checkpoint, Digest, Recipe, TensorSpec, short
from stockpot.prose import listed
from stockpot.soup.canonical import FLOATS, ITEM_SIZES
from stockpot.soup.weights_file import WeightsFile

_FORMATS = {
    "U64": "<Q",
    "I64": "<q",
    "U32": "<I",
    "I32": "<i",
    "U16": "<H",
    "I16": "<h",
    "I8": "<b",
    "U8": "<B",
    "BOOL": "<?",
}
"""Of `struct`, for each dtype that is not averaged."""

_COUNTER = "num_batches_tracked"
_PACKED = re.compile(r"(?:^|\.)(?:weight|qweight|weight_packed)$", re.ASCII)

Layout = tuple[tuple[TensorSpec, ...], Digest]
"""A checkpoint's tensors, and the digest of what those of `must_agree` hold."""


def differences(reference: Sequence[TensorSpec], other: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Every way in which `other` differs from `reference`: one sentence per kind of difference.

    Where very many tensors differ in the same way, a sentence gives their number and names some. Names that
    differ by a common prefix are told as such, and compared without it.
    """
    expected = {tensor.name: tensor for tensor in reference}
    found = {tensor.name: tensor for tensor in other}
    told, names = common_prefix(expected.keys() - found.keys(), found.keys() - expected.keys(), len(found))
    if told:
        same = [replace(tensor, name=names.get(tensor.name, tensor.name)) for tensor in other]
        return told, *differences(reference, same)
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
    return tuple(f"{kind}: {listed(names)}" for kind, names in groups.items())


def common_prefix(
    missing: Collection[str], unexpected: Collection[str], total: int
) -> tuple[str, Mapping[str, str]]:
    """The prefix by which unexpected names differ from missing ones, as a sentence, and which name is which;
    nothing where no two names, or fewer than half of those that could, differ by the same one.

    `total`: all names of which some are unexpected.
    """
    lacked, had = _prefixes(missing, set(unexpected)), _prefixes(unexpected, set(missing))
    way, found = max(
        ("with", lacked), ("without", had), key=lambda one: max(map(len, one[1].values()), default=0)
    )
    prefix, names = max(found.items(), key=lambda one: len(one[1]), default=("", []))
    if len(names) < max(2, min(len(missing), len(unexpected)) / 2):
        return "", {}
    pairs = [(name, name.removeprefix(prefix)) for name in names]
    many = f"all {total}" if len(names) == total else f"{len(names)} of {total}"
    told = f"{many} names match {way} prefix `{prefix}`"
    return told, dict(pairs if way == "without" else [(bare, name) for name, bare in pairs])


def _prefixes(longer: Iterable[str], shorter: Collection[str]) -> Mapping[str, list[str]]:
    """The longer names that become one of the shorter ones without a prefix, by that prefix: with its dot."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(longer):
        for cut in (place + 1 for place, letter in enumerate(name) if letter == "."):
            if name[cut:] in shorter:
                found[name[:cut]].append(name)
    return found


def misfits(recipe: Recipe, layouts: Mapping[Digest, Layout]) -> Iterator[str]:
    """Every way in which a recipe's ingredients differ from its first."""
    first, *others = recipe.checkpoints
    tensors, exact = layouts[first]
    for digest in others:
        found, values = layouts[digest]
        if found != tensors:
            yield from (f"{short(digest)}: {fault}" for fault in differences(tensors, found))
        elif values != exact:
            yield f"{short(digest)}: its integer or boolean tensors hold other values"


def differing_values(reference: WeightsFile, other: WeightsFile) -> tuple[str, ...]:
    """The integer and boolean tensors that differ between two files of one layout, each with a first value
    of both.
    """
    found = ((spec, _first_difference(reference, other, spec)) for spec in must_agree(reference.tensors))
    return tuple(
        f"{spec.name} holds {values[1]} instead of {values[0]}{place}"
        for spec, difference in found
        if difference is not None
        for place, *values in [difference]
    )


def _first_difference(
    reference: WeightsFile, other: WeightsFile, spec: TensorSpec
) -> tuple[str, object, object] | None:
    """Where two tensors differ first, for people, and both values."""
    passed, size, form = 0, ITEM_SIZES[spec.dtype], _FORMATS[spec.dtype]
    for want, have in zip(reference.pieces(spec.name), other.pieces(spec.name), strict=True):
        pairs = zip(want.cast("B"), have.cast("B"), strict=True)
        byte = None if want == have else next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if byte is not None:
            item = byte // size
            place = f" at element {passed + item}" if spec.shape else ""
            return place, *(unpack_from(form, piece, item * size)[0] for piece in (want, have))
        passed += len(want) // size
    return None


def must_agree(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The integer and boolean tensors that hold the same in all ingredients, in the given order.

    Not those in which BatchNorm counts its batches, beside its running statistics: they differ from run to
    run, and no answer depends on them. An average has the first ingredient's, or its overlay's.
    """
    given = tuple(tensors)
    names = {spec.name for spec in given}
    return tuple(spec for spec in given if spec.dtype not in FLOATS and not is_counter(spec.name, names))


def quantised(tensors: Iterable[TensorSpec]) -> str | None:
    """The first weight that was packed into integers, as GPTQ, AWQ, bitsandbytes and compressed-tensors store
    it: neither it nor the floating-point scales beside it have an average.
    """
    packed = (spec.name for spec in tensors if spec.dtype not in FLOATS and _PACKED.search(spec.name))
    return next(packed, None)


def is_counter(name: str, names: Collection[str]) -> bool:
    """Whether a tensor counts batches, as BatchNorm does beside its running statistics: by names alone."""
    layer = name.removesuffix(_COUNTER)
    return layer != name and all(f"{layer}{beside}" in names for beside in ("running_mean", "running_var"))


def compatible_groups(checkpoints: Sequence[Checkpoint]) -> tuple[tuple[int, ...], ...]:
    """Indices of checkpoints that can be averaged with each other, by their first members' order.

    Members of one group agree in names, dtypes and shapes, and in the values of all integer and
    boolean tensors. Where `differences` finds nothing between two groups, it is these that differ.
    """
    groups: dict[tuple[tuple[TensorSpec, ...], Digest], list[int]] = defaultdict(list)
    for index, checkpoint in enumerate(checkpoints):
        groups[checkpoint.tensors, checkpoint.exact].append(index)
    return tuple(map(tuple, groups.values()))
