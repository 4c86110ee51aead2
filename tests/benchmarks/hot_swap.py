"""One greedy trial's weights into a live module, beside a copy of as many bytes and the plain way.

Prints one line of JSON: for each way the seconds of every repeat, in turn in one process, page-cached. `add`
is the least that a trial can be: two tensors in memory are read and one is written, where a copy reads one.
The candidates were held by themselves before, as ranking does. `ungrouped`, `grouped`: a trial that adds to
as many ingredients, by `mean/1` and by `grouped/1`, to one of their groups.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stockpot.entities import Digest, Recipe, WeightsFormat
from stockpot.evaluation.weights.live_module import LiveModule
from stockpot.soup import CheckpointCache
from stockpot.testing.checkpoints import CachedCheckpoints

LAYERS, WIDTH = 27, 1280
GROUPS = 4


def model(width: int) -> nn.Module:
    """Of 1280: 134M parameters in 111 tensors, large matrices and small vectors, as in a transformer."""
    blocks = [nn.Sequential(nn.Linear(width, 3 * width), nn.LayerNorm(3 * width)) for _ in range(LAYERS)]
    return nn.Sequential(nn.Linear(width, width), *blocks, nn.Linear(width, 1000, bias=False))


def planted(cache: CheckpointCache, module: nn.Module, dtype: torch.dtype, count: int) -> list[Digest]:
    """Checkpoints of random weights."""
    logged = cache.folder / "logged.safetensors"
    digests = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        state = {n: torch.randn(t.shape, generator=generator) for n, t in module.state_dict().items()}
        save_file({name: tensor.to(dtype) for name, tensor in state.items()}, logged)
        digests.append(cache.ingest(logged, WeightsFormat.SAFETENSORS)[0].digest)
    logged.unlink()
    return digests


class Plain:
    """A new state dict for each trial, loaded into the module; the sum is kept here too."""

    def __init__(self, module: nn.Module, cache: CheckpointCache, first: Digest) -> None:
        self._module, self._cache = module, cache
        self._total = load_file(cache.path(first))

    def trial(self, digest: Digest) -> None:
        """The mean of the first and this one."""
        state: dict[str, Tensor] = {name: tensor.clone() for name, tensor in self._total.items()}
        for name, tensor in load_file(self._cache.path(digest)).items():
            state[name] = (state[name] + tensor) / 2
        self._module.load_state_dict(state)


def seconds(way: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def measure(folder: Path, width: int, repeats: int, dtype: torch.dtype) -> dict[str, object]:
    """All ways in turn, after one turn that does not count."""
    cache = CheckpointCache(folder)
    with torch.device("meta"):
        shapes = model(width).to(dtype)
    first, *others = planted(cache, shapes, dtype, 2 + GROUPS)
    candidates, others = others[:2], others[2:]
    parameters = [torch.zeros_like(tensor, device="cpu") for tensor in shapes.parameters()]
    source, added = ([torch.ones_like(tensor) for tensor in parameters] for _ in range(2))
    module = shapes.to_empty(device="cpu")
    live, plain = (
        LiveModule(module, CachedCheckpoints(cache), torch.device("cpu")),
        Plain(module, cache, first),
    )

    def copy() -> None:
        for target, tensor in zip(parameters, source, strict=True):
            target.copy_(tensor)

    def add() -> None:
        for target, tensor, more in zip(parameters, source, added, strict=True):
            torch.add(tensor, more, out=target)

    for digest in (first, *candidates, *others):
        live.hold(Recipe.mean([digest]))
    figures: dict[str, list[float]] = {"copy": [], "add": [], "trial": [], "single": [], "plain": []}
    for repeat in range(repeats + 1):
        candidate = candidates[repeat % 2]  # never the one that is held
        once = {
            "copy": seconds(copy),
            "add": seconds(add),
            "trial": seconds(lambda c=candidate: live.hold(Recipe.mean([first, c]))),  # type: ignore[misc]  # bound now
            "single": seconds(lambda c=candidate: live.hold(Recipe.mean([c]))),  # type: ignore[misc]  # bound now
            "plain": seconds(lambda c=candidate: plain.trial(c)),  # type: ignore[misc]  # bound now
        }
        for name, figure in once.items():
            if repeat:
                figures[name].append(figure)
    alike: dict[str, Callable[[Digest], Recipe]] = {
        "ungrouped": lambda candidate: Recipe.mean([first, *others, candidate]),
        "grouped": lambda candidate: Recipe.grouped([[first, candidate], *([each] for each in others)]),
    }
    for name, recipe in alike.items():
        made = [recipe(candidates[repeat % 2]) for repeat in range(repeats + 2)]  # two that do not count
        figures[name] = [seconds(lambda r=each: live.hold(r)) for each in made][2:]  # type: ignore[misc]  # bound now
    return {
        "bytes": sum(tensor.nbytes for tensor in parameters),
        "tensors": len(parameters),
        "threads": torch.get_num_threads(),
        **figures,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--width", type=int, default=WIDTH, help="of the model; its bytes grow with the square"
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    chosen = parser.parse_args()
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix="stockpot-hot-swap-") as folder:
        figures = measure(Path(folder), chosen.width, chosen.repeats, getattr(torch, chosen.dtype))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
