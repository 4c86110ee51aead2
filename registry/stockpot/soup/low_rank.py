"""A low-rank adapter (LoRA) merged into its base: one canonical checkpoint, written tensor by tensor.

From there on it is averaged like any other: the mean of merged weights is the base plus the mean of the
updates, which the mean of the factors is not.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Checkpoint, Digest, TensorSpec, WeightsFormat
from stockpot.entities.weights_names import ADAPTER_CONFIG
from stockpot.errors import Incompatible, NotFinite
from stockpot.prose import counted, listed
from stockpot.soup.adapter_config import (
    LOOKUPS,
    MERGING,
    AdapterConfig,
    parse_config,
    read_config,
)
from stockpot.soup.canonical import FLOATS, canonical_names, in_layout_order
from stockpot.soup.checkpoint_cache import CheckpointCache, open_weights
from stockpot.soup.weights_file import WeightsFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PREFIX = "base_model.model."
"""Before every name that PEFT writes."""
_PAIRS = {
    ".lora_A.weight": (0, ".lora_B.weight"),
    ".lora_B.weight": (1, ".lora_A.weight"),
    ".lora_embedding_A": (0, ".lora_embedding_B"),
    ".lora_embedding_B": (1, ".lora_embedding_A"),
}
"""How the names of factors end: which of the two, and how the other's ends."""
_EMBEDDINGS = ("embed", "wte", "shared")
"""Parts of names of input embeddings."""


@dataclass(frozen=True, slots=True)
class Update:
    """What is added to a weight: `scale` times the product of two factors."""

    down: str
    """The adapter's tensor A: rank first."""
    up: str
    """The adapter's tensor B: rank second."""
    rank: int
    scale: float
    transposed: bool
    """The weight is stored as in x out."""


@dataclass(frozen=True, slots=True)
class Merged:
    """One tensor of the merged checkpoint, and what it is made of."""

    spec: TensorSpec
    """Under its name in the model that PEFT wrapped."""
    whole: str
    """The name of the tensor that it begins with: the adapter's, or the base's."""
    of_adapter: bool
    update: Update | None = None


def merged_tensors(
    config: AdapterConfig, adapter: Sequence[TensorSpec], base: Sequence[TensorSpec], *, tied: bool
) -> tuple[Merged, ...]:
    """What merging an adapter of these tensors into a base of those gives, from headers alone: in the order
    of a canonical file, under canonical names. `tied`: the model may use its input embeddings as output
    weights.

    Where the adapter brings a head that the base lacks, the base's own head goes: what lies outside of the
    part that was adapted. Raises Incompatible, with every fault, where it is not exactly a low-rank update.
    """
    factors, wholes, faults = _sorted_out(adapter)
    if len(factors) * len(config.alphas) > LOOKUPS:
        raise Incompatible(
            f"alpha_pattern has {len(config.alphas)} patterns for {len(factors)} modules: too many",
            mend=MERGING,
        )
    targets = [f"{module}.weight" for module in factors]
    if not targets:
        faults.append("it holds no low-rank update")
    names = _names_of_base(targets, [spec.name for spec in base])
    inside = {names[spec.name]: spec for spec in base if spec.name in names}
    new = [name for name in wholes if name not in inside]
    faults += [
        f"{name}: neither a part of the base nor of modules_to_save"
        for name in new
        if not any(f".{module}." in f".{name}" for module in config.saved)
    ]
    found = {name: Merged(replace(spec, name=name), spec.name, False) for name, spec in inside.items()}  # noqa: FBT003
    if new:
        found = _without_other_heads(found, targets)
    usual = _usual_dtype(base)
    for name, spec in wholes.items():
        dtype = inside[name].dtype if name in inside else usual or spec.dtype
        if (dtype in FLOATS) != (spec.dtype in FLOATS):
            faults.append(f"{name}: {spec.dtype} in the adapter, {dtype} in the base")
        found[name] = Merged(TensorSpec(name, dtype, spec.shape), spec.name, True)  # noqa: FBT003
    specs = {spec.name: spec for spec in adapter}
    found |= _updated(config, factors, specs, found, faults)
    faults += _tied(found, wholes) if tied else []
    if faults:
        raise Incompatible("it cannot be merged into its base exactly", faults=faults[:20], mend=MERGING)
    canonical = canonical_names(found)
    named = {canonical[name]: tensor for name, tensor in found.items()}
    order = in_layout_order(replace(tensor.spec, name=name) for name, tensor in named.items())
    return tuple(replace(named[spec.name], spec=spec) for spec in order)


def _sorted_out(
    adapter: Sequence[TensorSpec],
) -> tuple[dict[str, tuple[str, str]], dict[str, TensorSpec], list[str]]:
    """Names of both factors by module, whole tensors by name, and faults."""
    known = {spec.name for spec in adapter}
    factors: dict[str, tuple[str, str]] = {}
    wholes: dict[str, TensorSpec] = {}
    faults = []
    for spec in adapter:
        name = spec.name.removeprefix(PREFIX)
        end = next((end for end in _PAIRS if name.endswith(end)), None)
        if end is not None:
            place, other = _PAIRS[end]
            twin = spec.name.removesuffix(end) + other
            if twin not in known:
                faults.append(f"{spec.name} is there without {twin}")
            factors[name.removesuffix(end)] = (spec.name, twin) if place == 0 else (twin, spec.name)
        elif "lora_" in name:
            faults.append(f"{spec.name} is no part of a plain low-rank update")
        elif ".original_module." not in name:  # the base's own, which another module stands for
            plain = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
            if plain == name or plain not in wholes:
                wholes[plain] = spec
    return factors, wholes, faults


def _names_of_base(targets: Sequence[str], base: Sequence[str]) -> dict[str, str]:
    """The base's names in the model that was adapted, which may hold the base's as a part, or be a part of
    it: a prefix differs then. What is no part of it is left out.
    """
    have = set(base)
    for target in targets[:1]:
        cuts = [target[: place + 1] for place, letter in enumerate(target) if letter == "."]
        for prefix in ("", *cuts):
            if all(name.startswith(prefix) and name[len(prefix) :] in have for name in targets):
                return {name: prefix + name for name in base}
        longer = [name.removesuffix(target) for name in base if name.endswith(f".{target}")]
        for prefix in longer:
            if all(prefix + name in have for name in targets):
                return {name: name.removeprefix(prefix) for name in base if name.startswith(prefix)}
    return {name: name for name in base}


def _without_other_heads(found: Mapping[str, Merged], targets: Sequence[str]) -> dict[str, Merged]:
    bodies = {target.partition(".")[0] for target in targets}
    if len(bodies) > 1:
        return dict(found)
    (body,) = bodies or {""}
    return {name: tensor for name, tensor in found.items() if name.startswith(f"{body}.")}


def _usual_dtype(base: Sequence[TensorSpec]) -> str:
    """Of the base's numbers; empty where there are several."""
    dtypes = {spec.dtype for spec in base if spec.dtype in FLOATS}
    return dtypes.pop() if len(dtypes) == 1 else ""


def _updated(
    config: AdapterConfig,
    factors: Mapping[str, tuple[str, str]],
    specs: Mapping[str, TensorSpec],
    found: Mapping[str, Merged],
    faults: list[str],
) -> dict[str, Merged]:
    """The tensors that are updated. Adds what is wrong to the faults."""
    updated: dict[str, Merged] = {}
    missing, square, told = [], [], set()
    for module, (down, up) in factors.items():
        target = found.get(f"{module}.weight")
        if target is None:
            missing.append(module)
            continue
        if down not in specs or up not in specs:
            continue  # told before
        ways = _ways(target.spec, specs[down], specs[up], embedding=down.endswith("_A"))
        rank = specs[down].shape[0] if specs[down].shape else 0
        if not ways or target.spec.dtype not in FLOATS:
            faults.append(
                f"{module}: factors {list(specs[down].shape)} and {list(specs[up].shape)} for a weight "
                f"{target.spec.dtype}{list(target.spec.shape)}"
            )
        elif rank not in config.ranks:
            faults.append(f"{module}: its rank is {rank}, which {ADAPTER_CONFIG} does not tell")
        else:
            if len(ways) > 1:
                square.append(module)
            elif not down.endswith("_A"):
                told |= ways
            transposed = config.transposed if len(ways) > 1 else True in ways
            update = Update(down, up, rank, config.scale(module, rank), transposed)
            updated[target.spec.name] = replace(target, update=update)
    if missing:
        faults.append(f"the base has no weights of these modules: {listed(missing)}")
    if square and not told <= {config.transposed}:
        faults.append(
            f"fan_in_fan_out is {config.transposed}, other shapes tell otherwise: no shape tells how the "
            f"square weights of {listed(square)} are stored"
        )
    return updated


def _ways(weight: TensorSpec, down: TensorSpec, up: TensorSpec, *, embedding: bool) -> set[bool]:
    """In which ways, transposed or not, the product of the factors has the weight's shape."""
    rank, *columns = down.shape or (0,)
    if len(up.shape) < 2 or up.shape[1] != rank or rank == 0 or set(up.shape[2:]) - {1}:
        return set()
    straight = weight.shape == (up.shape[0], *columns)
    turned = len(columns) == 1 and weight.shape == (columns[0], up.shape[0])
    if embedding:
        return {True} if turned else set()
    return {way for way, fits in ((False, straight), (True, turned)) if fits}


def _tied(found: Mapping[str, Merged], wholes: Mapping[str, TensorSpec]) -> list[str]:
    """Input embeddings that were changed, where no other tensor can be the output's weights."""
    shapes = Counter(tensor.spec.shape for tensor in found.values())
    changed = [
        name
        for name, tensor in found.items()
        if (tensor.update is not None or name in wholes)
        and any(part in name for part in _EMBEDDINGS)
        and len(tensor.spec.shape) == 2
        and shapes[tensor.spec.shape] == 1
    ]
    return [
        f"{name} is changed, and the base uses it as its output's weights as well, which PEFT leaves alone"
        for name in changed
    ]


def ingest_adapter(
    cache: CheckpointCache,
    file: Path,
    format: WeightsFormat,  # noqa: A002 - as CheckpointCache.ingest
    base: Digest,
    *,
    ties: bool,
) -> tuple[Checkpoint, str]:
    """Merge an adapter, its ``adapter_config.json`` beside it, into a base that the cache holds. `ties`: the
    base's embeddings may be its output's weights where it predicts words.

    In memory are the factors of one tensor, and a few MiB. Updates are sums of rounded products in the order
    of the rank, in float32 (of a float64 base, in float64), times the scale, plus the weight, and cast once
    to the base's dtype: the same bits on each machine, which no product of matrices gives.

    Returns the checkpoint, and the SHA-256 of what was read. Raises what `merged_tensors` and
    `CheckpointCache.ingest` raise, NotFinite naming the adapter's tensors, and NotCached.
    """
    content = read_config(file.parent)
    with open_weights(file, format) as adapter, cache.open(base) as weights:
        config = parse_config(content)
        tied = ties if config.language_model is None else config.language_model
        tensors = merged_tensors(config, adapter.tensors, weights.tensors, tied=tied)
        _require_finite(adapter, file)
        parts = (part for tensor in tensors for part in _parts(tensor, adapter, weights))
        checkpoint = cache.write([tensor.spec for tensor in tensors], parts, origin=str(file))
        sha256 = hashlib.sha256(content + bytes.fromhex(adapter.sha256())).hexdigest()
    return checkpoint, sha256


def _require_finite(adapter: WeightsFile, file: Path) -> None:
    from stockpot.soup.arithmetic import holds_finite

    offenders = [
        spec.name
        for spec in adapter.tensors
        if spec.dtype in FLOATS
        and not all(holds_finite(piece, spec.dtype) for piece in adapter.pieces(spec.name) if len(piece))
    ]
    if offenders:
        raise NotFinite(
            f"{file}: NaN or infinity in {len(offenders)} of {counted(len(adapter.tensors), 'tensor')}",
            faults=offenders,
            mend="leave it out: training diverged",
        )


def _parts(tensor: Merged, adapter: WeightsFile, base: WeightsFile) -> Iterator[memoryview]:
    """The tensor's bytes, row by row."""
    source = adapter if tensor.of_adapter else base
    found = source.places[tensor.whole].spec
    if tensor.update is None and found.dtype == tensor.spec.dtype:
        yield from source.pieces(tensor.whole)
        return
    import torch

    from stockpot.soup.arithmetic import BLOCK, DTYPES, accumulator, bytes_of, plus_product

    dtype = DTYPES[tensor.spec.dtype]
    if tensor.update is None:
        for piece in source.pieces(tensor.whole):
            if len(piece):
                yield bytes_of(torch.frombuffer(piece, dtype=DTYPES[found.dtype]).to(dtype))
        return
    rows = tensor.spec.shape[0]
    left, right = _factors(tensor.update, adapter, accumulator(dtype))
    step = max(1, BLOCK // max(1, right.shape[1]))
    weight = _Rows(source, tensor.whole)
    for begin in range(0, rows, step):
        end = min(rows, begin + step)
        yield bytes_of(
            plus_product(weight.read(begin, end), left[begin:end], right, tensor.update.scale, dtype)
        )


def _factors(update: Update, adapter: WeightsFile, dtype: "torch.dtype") -> "tuple[Tensor, Tensor]":
    """Matrices rows x rank and rank x columns, of the weight as it is stored."""
    down, up = (adapter.read(name).to(dtype) for name in (update.down, update.up))
    down, up = down.reshape(update.rank, -1), up.reshape(-1, update.rank)
    return (down.T.contiguous(), up.T.contiguous()) if update.transposed else (up, down)


class _Rows:
    """A tensor's rows as matrices, read as they are asked for where they lie in order."""

    def __init__(self, source: WeightsFile, name: str) -> None:
        self._place = source.places[name]
        self._source = source
        self._whole = None if self._place.strides is None else source.read(name)

    def read(self, begin: int, end: int) -> "Tensor":
        from stockpot.soup import arithmetic

        spec = self._place.spec
        if self._whole is not None:
            return self._whole[begin:end].reshape(end - begin, -1)
        rows = arithmetic.empty(TensorSpec(spec.name, spec.dtype, (end - begin, *spec.shape[1:])))
        row = rows.nbytes // (end - begin)
        self._source.file.fill(arithmetic.bytes_of(rows), self._place.offset + begin * row)
        return rows.reshape(end - begin, -1)
