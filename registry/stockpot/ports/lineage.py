"""What Stockpot remembers of the descent of soups."""

from collections.abc import Collection, Sequence
from typing import Protocol

from stockpot.entities import Blend, Candidate, Digest, Found, KnownVersion, Recall, Recipe


class Descent(Protocol):
    """A part of `stockpot.ports.Store`: who holds what. Nothing of it ever goes."""

    def remember_version(
        self,
        version: KnownVersion,
        recipe: Recipe,
        ingredients: Sequence[Candidate] = (),
        *,
        sweep: str | None = None,
    ) -> None:
        """Keep that this version holds what this recipe makes, and where its ingredients were found: in a run
        of this sweep. Whoever tells it makes sure that the version's weights were compared. Of versions with
        one recipe and one number the last counts: a model may be deleted and made again.
        `advance_registration` keeps the versions of this store's own registrations.
        """
        ...

    def known_versions(
        self, checkpoints: Collection[Digest] | None = None, *, uri: str | None = None
    ) -> tuple[KnownVersion, ...]:
        """The versions that hold one of these checkpoints, or have this URI (``models:/NAME/VERSION``), or
        all; by model, number and recipe. Several may have one URI: MLflow gives the number of a deleted
        version to the next, and a store may be used with several MLflows.
        """
        ...

    def blends(self, checkpoints: Collection[Digest], *, down: bool) -> tuple[Blend, ...]:
        """What these checkpoints are made of, as far as they are soups with a known version, and what those
        ingredients are made of, and so on; or `down`: which such soups hold these checkpoints, which hold
        those soups, and so on. Each once, by soup, recipe and position. A recipe of one ingredient is none.
        """
        ...

    def found(self, checkpoints: Collection[Digest]) -> tuple[Found, ...]:
        """Where these checkpoints were found, each place of each sweep once, by checkpoint, run id, path and
        sweep.
        """
        ...

    def logged_by(self, run_ids: Collection[str]) -> tuple[Digest, ...]:
        """The checkpoints that were found in these runs, and those of the known versions that came of these
        runs; each once, in order.
        """
        ...

    def append_recall(self, recall: Recall) -> Recall:
        """Keep a person's word about a run, a checkpoint or data, unless the last one about it says the
        same already, of which the reason may be another: returns the word that counts.
        """
        ...

    def recalls(self) -> tuple[Recall, ...]:
        """All words about runs, checkpoints and data, the oldest first."""
        ...
