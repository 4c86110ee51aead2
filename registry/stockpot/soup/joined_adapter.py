"""A soup of adapters as one adapter: factors side by side, which is the mean of the updates exactly.

Where each update is s_i * B_i @ A_i, the sum of updates times c_i is [c_1 s_1 B_1, c_2 s_2 B_2, ...] @
[A_1; A_2; ...]: its rank is the sum of the ranks, and its scale is one.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Digest, TensorSpec, WeightsFormat
from stockpot.entities.weights_names import ADAPTER_CONFIG
from stockpot.errors import Incompatible
from stockpot.prose import listed
from stockpot.soup.adapter_config import AdapterConfig, parse_config, read_config
from stockpot.soup.canonical import FLOATS, header_of, in_layout_order
from stockpot.soup.checkpoint_cache import CheckpointCache, open_weights
from stockpot.soup.low_rank import PREFIX, Update, ingest_adapter, merged_tensors
from stockpot.soup.safetensors_file import open_safetensors
from stockpot.soup.weights_file import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_FILE = "adapter_model.safetensors"
TOLERANCE = 1e-5
"""How far base plus adapter may be from a float32 soup, as a part of the tensor's largest number."""
_STEPS = 2
"""Of 16-bit numbers, in steps of that number."""


@dataclass(frozen=True)
class _Part:
    """One ingredient."""

    config: AdapterConfig
    file: WeightsFile
    weight: float
    updates: Mapping[str, Update]
    """By the tensor's name in the merged checkpoint."""
    wholes: Mapping[str, str]
    """The names of tensors that replace the base's, by the same."""


@dataclass
class _Module:
    """What one weight is updated by in all ingredients."""

    down: str
    up: str
    parts: list[tuple[_Part, Update]] = field(default_factory=list)

    @property
    def name(self) -> str:
        end = ".lora_embedding_A" if self.down.endswith("_A") else ".lora_A.weight"
        return self.down.removeprefix(PREFIX).removesuffix(end)

    @property
    def rank(self) -> int:
        return sum(update.rank for _, update in self.parts)

    def specs(self) -> Iterator[TensorSpec]:
        part, update = self.parts[0]
        down, up = (part.file.places[name].spec.shape for name in (update.down, update.up))
        yield TensorSpec(self.down, "F32", (self.rank, *down[1:]))
        yield TensorSpec(self.up, "F32", (up[0], self.rank, *up[2:]))

    def tensor(self, name: str) -> "Tensor":
        import torch

        if name == self.down:
            return torch.cat([part.file.read(update.down).float() for part, update in self.parts])
        scaled = [part.file.read(u.up).float() * (part.weight * u.scale) for part, u in self.parts]
        return torch.cat(scaled, dim=1)


def join_adapters(
    cache: CheckpointCache,
    files: Sequence[tuple[Path, WeightsFormat]],
    weights: Sequence[float],
    base: Digest,
    soup: Path,
    into: Path,
    *,
    ties: bool,
) -> None:
    """Write a soup of adapters as one of PEFT's form, into this new folder.

    `files`: the ingredients' adapters, each with its configuration beside it, all of this base; `weights`:
    their coefficients, which add up to one; `soup`: the soup's own canonical file. Tensors that replace the
    base's are the soup's. Base plus adapter is compared with the soup, tensor by tensor: numbers differ by
    less than `TOLERANCE` of the tensor's largest, of 16-bit ones by less than two of their steps.

    Raises Incompatible, with the reason, where one adapter cannot say what the soup is, and what
    `ingest_adapter` raises.
    """
    with ExitStack() as stack:
        held = stack.enter_context(cache.open(base))
        opened = [stack.enter_context(open_weights(*file)) for file in files]
        parts = [
            _part(read_config(path.parent), file, weight, held)
            for (path, _), file, weight in zip(files, opened, weights, strict=True)
        ]
        built = stack.enter_context(open_safetensors(soup))
        into.mkdir()
        _write(parts, _modules(parts), built, into)
    merged, _ = ingest_adapter(cache, into / ADAPTER_FILE, WeightsFormat.SAFETENSORS, base, ties=ties)
    with cache.open(merged.digest) as ours, open_safetensors(soup) as theirs:
        if faults := [*_differences(ours, theirs)]:
            raise Incompatible("base plus adapter is not the soup", faults=faults)


def _part(content: bytes, file: WeightsFile, weight: float, base: WeightsFile) -> _Part:
    config = parse_config(content)
    tensors = merged_tensors(config, file.tensors, base.tensors, tied=False)
    twice = [t.whole for t in tensors if t.of_adapter and t.update is not None]
    for name in twice:  # PEFT writes the base's own embedding beside its factors
        plain = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        own = next((spec.name for spec in base.tensors if plain.endswith(spec.name)), None)
        if own is None or not file.read(name).equal(base.read(own)):
            raise Incompatible(f"{name} was trained both whole and by factors")
    updates = {t.spec.name: t.update for t in tensors if t.update is not None}
    wholes = {t.spec.name: t.whole for t in tensors if t.of_adapter and t.update is None}
    return _Part(config, file, weight, updates, wholes)


def _modules(parts: Sequence[_Part]) -> dict[str, _Module]:
    """By the tensor's name in the merged checkpoint."""
    if any(part.wholes.keys() != parts[0].wholes.keys() for part in parts):
        odd = set().union(*(part.wholes.keys() ^ parts[0].wholes.keys() for part in parts))
        raise Incompatible(f"not all adapters hold {listed(sorted(odd))} whole")
    if len({part.config.transposed for part in parts}) > 1:
        raise Incompatible("fan_in_fan_out is not the same in all adapters")
    modules: dict[str, _Module] = {}
    for part in parts:
        for name, update in part.updates.items():
            modules.setdefault(name, _Module(update.down, update.up)).parts.append((part, update))
    return modules


def _write(parts: Sequence[_Part], modules: Mapping[str, _Module], soup: WeightsFile, into: Path) -> None:
    from stockpot.soup.arithmetic import bytes_of

    by_name = {spec.name: module for module in modules.values() for spec in module.specs()}
    wholes = {whole: name for name, whole in parts[0].wholes.items()}
    replaced = [replace(soup.places[name].spec, name=whole) for whole, name in wholes.items()]
    specs = in_layout_order([*(spec for module in modules.values() for spec in module.specs()), *replaced])
    with (into / ADAPTER_FILE).open("wb") as file:
        file.write(header_of(specs))
        for spec in specs:
            if spec.name in wholes:
                file.writelines(soup.pieces(wholes[spec.name]))
            else:
                file.write(bytes_of(by_name[spec.name].tensor(spec.name).contiguous()))
    ranks = {module.name: module.rank for module in modules.values()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    odd = {f"^{name}": rank for name, rank in ranks.items() if rank != usual}
    config = parts[0].config
    document = {
        "peft_type": "LORA",
        "task_type": config.task or None,
        "base_model_name_or_path": config.base or None,
        "revision": config.revision or None,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": odd,
        "alpha_pattern": odd,
        "target_modules": sorted(ranks),
        "modules_to_save": list(config.saved) or None,
        "bias": config.bias,
        "fan_in_fan_out": config.transposed,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
    (into / ADAPTER_CONFIG).write_text(json.dumps(document, indent=1))


def _differences(ours: WeightsFile, theirs: WeightsFile) -> Iterator[str]:
    """Tensors that are further apart than is stated."""
    import torch

    from stockpot.soup.arithmetic import DTYPES

    if ours.tensors != theirs.tensors:
        yield "it has other tensors"
        return
    for spec in theirs.tensors:
        if spec.dtype not in FLOATS:
            continue
        dtype = DTYPES[spec.dtype]
        near = _STEPS * torch.finfo(dtype).eps if dtype.itemsize == 2 else TOLERANCE
        far, most = 0.0, 0.0
        for pair in zip(ours.pieces(spec.name), theirs.pieces(spec.name), strict=True):
            if len(pair[0]):
                one, other = (torch.frombuffer(piece, dtype=dtype).double() for piece in pair)
                far = max(far, (one - other).abs().max().item())
                most = max(most, other.abs().max().item())
        if far > near * most:
            yield f"{spec.name} differs by {far:.2g}, of {most:.2g}"
