"""A version whose weights cannot be read, measured as MLflow serves it: by its pyfunc."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Digest, ModelVersion, Recipe, Score, digest_of_document, digest_of_file
from stockpot.errors import Incompatible
from stockpot.workflow.gathering.supply import Supply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stockpot.ports import Bench, Store, Tracker, Watcher

ALLOWED = "pyfunc = true in the policy has it measured by its pyfunc, which runs the code that it brings"
"""Told where it is not."""


@dataclass(frozen=True)
class ByPyfunc:
    """What a version scores as it is served."""

    files: Digest
    """Of all its files."""
    scores: "Mapping[str, Score]"
    protocols: "Mapping[str, Digest]"

    @property
    def recipe(self) -> Digest:
        """Under which the store remembers each score."""
        return Recipe.served(self.files).digest


def measured_as_served(
    version: ModelVersion,
    splits: "Iterable[str]",
    bench: "Bench",
    tracker: "Tracker",
    supply: Supply,
    store: "Store",
    watch: "Watcher",
    prove: "Callable[[Path], object]",
) -> ByPyfunc:
    """Download the version and run it, unless its scores are remembered: by all its files, and by the
    packages that it asks for as they are installed here.

    `prove`: raises where what was downloaded into this folder may not be run. Raises Incompatible where it
    does not fit the task, in a sentence, and what `prove`, tracker and store raise.
    """
    scores, protocols = {}, {}
    with supply.room() as room:
        folder = tracker.download_version(version, room / "version")
        prove(folder)  # this very download: the next one may be of other files
        files = digest_of_files(folder)
        recipe = Recipe.served(files)
        with tracker.served(folder) as served:
            for split in splits:
                protocol = bench.served_protocol(split, served.software)
                known = store.score(recipe.digest, protocol.digest)
                if known is None:
                    watch.say(f"measuring {version.uri} by its pyfunc on split {split}")
                    known = store.commit_score(recipe, protocol, bench.score_served(served, split))
                scores[split], protocols[split] = known, protocol.digest
    return ByPyfunc(files, scores, protocols)


def digest_of_files(folder: Path) -> Digest:
    """Of the names and contents of all files in a folder. Raises Incompatible for what is no regular file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise Incompatible(f"its {path.relative_to(folder)} is no regular file")
        if path.is_file():
            # Without its kind, as in the names that stores and trails know versions by.
            found[str(path.relative_to(folder))] = digest_of_file(path).removeprefix("sha256:")
    return digest_of_document({"pyfunc": found})
