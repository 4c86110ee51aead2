"""Weights on demand: from a run's artifact into the cache, and from the cache into a recipe's average."""

import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from registry.entities import (
    Candidate,
    Checkpoint,
    Digest,
    ExclusionReason,
    IngestedSource,
    Recipe,
    WeightsSource,
)
from registry.errors import BadCheckpoint, NotFinite
from registry.soup import CheckpointCache, build
from registry.soup.weights_file import WeightsFile

if TYPE_CHECKING:
    from registry.ports import Store, Tracker


class Supply:
    """Hands out checkpoints by digest, downloading those that the cache does not hold.

    A good file is read once: its checkpoint is remembered in the store, so that a repeated request does
    not download it. MLflow tells no more of an artifact than its size: a file that was replaced by one of
    the same size is noticed when it is next downloaded, by its digest.
    """

    def __init__(self, tracker: "Tracker", store: "Store", cache: CheckpointCache) -> None:
        self._tracker = tracker
        self._store = store
        self._cache = cache
        self._candidates: dict[str, Candidate] = {}

    def ingest(self, source: WeightsSource) -> IngestedSource:
        """Read a weights file, or remember what reading it found."""
        known = self._store.ingested(source.uri)
        if known is not None and known.size == source.size and known.fault is None:
            return known
        found = self._read(source)
        self._store.remember_ingested(found)
        return found

    def offer(self, candidates: tuple[Candidate, ...]) -> None:
        """Make these candidates' checkpoints available by digest."""
        self._candidates.update({candidate.checkpoint.digest: candidate for candidate in candidates})

    def open(self, digest: Digest) -> AbstractContextManager[WeightsFile]:
        """The checkpoint's canonical file; fetched first where it is missing."""
        self._fetch_missing([digest])
        return self._cache.open(digest)

    def prefetch(self, digest: Digest) -> None:
        """It is wanted soon. Nothing is fetched ahead of time yet."""

    def build(self, recipe: Recipe) -> Checkpoint:
        """The recipe's average as a canonical file in the cache."""
        self._fetch_missing(recipe.checkpoints)
        return build(recipe, self._cache)

    def _fetch_missing(self, digests: Iterable[Digest]) -> None:
        for digest in digests:
            if self._cache.has(digest):
                continue
            candidate = self._candidates[digest]
            found = self._read(candidate.source)
            self._store.remember_ingested(found)  # a request that starts anew sees the sweep as it is now
            if found.checkpoint is None or found.checkpoint.digest != digest:
                raise BadCheckpoint(
                    f"{candidate.source.path} of run {candidate.run.name} ({candidate.run.run_id}) is not "
                    f"what it was: {digest} is wanted, the artifact now holds "
                    f"{found.checkpoint.digest if found.checkpoint else found.detail}",
                    mend="restore the artifact, or run the request again to use the sweep as it is now",
                )

    def _read(self, source: WeightsSource) -> IngestedSource:
        with tempfile.TemporaryDirectory(dir=self._cache.folder, prefix=".fetch-") as folder:
            file = self._tracker.fetch(source, Path(folder))
            try:
                checkpoint, sha256 = self._cache.ingest(file, source.format)
            except NotFinite as error:
                return _fault(source, file, ExclusionReason.NOT_FINITE, error)
            except BadCheckpoint as error:
                return _fault(source, file, ExclusionReason.UNREADABLE, error)
        return IngestedSource(source.uri, source.size, sha256, checkpoint)


def _fault(
    source: WeightsSource, file: Path, reason: ExclusionReason, error: BadCheckpoint
) -> IngestedSource:
    """The error as a fact about the artifact: without the name of the local copy."""
    detail = "; ".join([error.what, *error.faults]).replace(f"{file}: ", "")
    return IngestedSource(source.uri, source.size, "", None, reason, detail)
