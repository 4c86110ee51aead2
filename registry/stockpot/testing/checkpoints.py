"""Checkpoints for evaluators under test, without runs that logged them."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from stockpot.entities import Digest
from stockpot.soup import CheckpointCache, open_safetensors
from stockpot.soup.weights_file import WeightsFile


class CachedCheckpoints:
    """Those of a cache. `opened` and `prefetched` tell what was asked for, in this order."""

    def __init__(self, cache: CheckpointCache) -> None:
        self.cache = cache
        self.opened: list[Digest] = []
        self.prefetched: list[Digest] = []

    @contextmanager
    def open(self, digest: Digest) -> Iterator[WeightsFile]:
        """The checkpoint's file."""
        self.opened.append(digest)
        with self.cache.open(digest) as weights:
            yield weights

    def prefetch(self, digest: Digest) -> None:
        """It is here."""
        self.prefetched.append(digest)


class MadeCheckpoints:
    """Real files, made when they are asked for: their digests are any names."""

    def __init__(self, state: Callable[[Digest], Mapping[str, Tensor]]) -> None:
        self.state = state

    @contextmanager
    def open(self, digest: Digest) -> Iterator[WeightsFile]:
        """A file of the checkpoint's tensors, under canonical names."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "made.safetensors"
            save_file({name: tensor.clone() for name, tensor in self.state(digest).items()}, path)
            with open_safetensors(path) as weights:
                yield weights

    def prefetch(self, digest: Digest) -> None:
        """It is made when it is asked for."""
