"""Which files hold weights, by their names: of a run, of a registered version, of a folder."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from stockpot.entities.checkpoint import Part, WeightsFormat, WeightsSource

FORMATS = {
    ".safetensors": WeightsFormat.SAFETENSORS,
    ".pt2": WeightsFormat.PT2,
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".pkl"), WeightsFormat.TORCH),
    ".distcp": WeightsFormat.PICKLE,
}
INDEX_SUFFIX = ".index.json"
SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<suffix>\.safetensors|\.bin)", re.ASCII)
"""A file that weights were cut into, as ``save_pretrained`` names it beside ``<stem><suffix>.index.json``."""
_NO_WEIGHTS = re.compile(
    r"(optimizer|scheduler|scaler|sampler|rng_state|random_states)(_\d+)?\.(pt|pth|bin|pkl)"
    r"|training_args\.bin|python_model\.pkl|.*_optim_states\.pt|(params|error)\.pkl",
    re.ASCII,
)
"""What the trainers of transformers, Accelerate and DeepSpeed, Ray Tune and MLflow log beside weights."""
_NEEDS_CODE = re.compile(r"(.*/)?data/model\.pth|.*_model_states\.pt", re.ASCII)
"""A module that MLflow pickled whole; what each process of DeepSpeed wrote of one."""
_ADAPTER = re.compile(r"(.*/)?adapter_model\.(safetensors|bin)")
"""As PEFT names it. Its matrices are factors: the mean of products is another than the product of means."""
ADAPTER_CONFIG = "adapter_config.json"
"""Beside it, and read with it."""


def weights_format(path: str) -> WeightsFormat | None:
    """What kind of weights a file of this name holds; None for other files."""
    if _NO_WEIGHTS.fullmatch(PurePosixPath(path).name):
        return None
    if _NEEDS_CODE.fullmatch(path):
        return WeightsFormat.PICKLE
    return FORMATS.get(PurePosixPath(path).suffix.lower())


def sources_among(
    run_id: str, place: str, files: Iterable[tuple[str, int | None]]
) -> Iterator[WeightsSource]:
    """The weights among all files of one or more folders: by path, with their sizes. `place`: a URI.

    Files that weights were cut into are one source, the index of which may be missing; an adapter and its
    configuration are one.
    """
    files = list(files)
    configs = {path: size for path, size in files if PurePosixPath(path).name == ADAPTER_CONFIG}
    cut: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for path, size in files:
        shard = SHARD.fullmatch(path)
        if shard is not None:
            cut[f"{shard['stem']}{shard['suffix']}{INDEX_SUFFIX}"].append((path, size))
        elif path.endswith(INDEX_SUFFIX) and weights_format(path.removesuffix(INDEX_SUFFIX)):
            cut[path].append((path, size))
        elif form := weights_format(path):
            source = WeightsSource(run_id, form, path, f"{place}/{path}", None, size)
            config = str(PurePosixPath(path).with_name(ADAPTER_CONFIG))
            yield (
                _together(source, {path: size, config: configs[config]})
                if (is_adapter(source) and config in configs)
                else source
            )
    for index, found in cut.items():
        form = FORMATS[PurePosixPath(index.removesuffix(INDEX_SUFFIX)).suffix.lower()]
        yield _together(WeightsSource(run_id, form, index, f"{place}/{index}", None, None), dict(found))


def _together(source: WeightsSource, files: Mapping[str, int | None]) -> WeightsSource:
    """The source with these parts, by path."""
    parts = tuple(Part(PurePosixPath(path).name, size) for path, size in sorted(files.items()))
    sizes = [part.size for part in parts if part.size is not None]
    return replace(source, size=sum(sizes) if len(sizes) == len(parts) else None, parts=parts)


def is_adapter(source: WeightsSource) -> bool:
    """Whether its name is that of an adapter by PEFT."""
    return _ADAPTER.fullmatch(source.path) is not None
