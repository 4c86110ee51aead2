"""What Stockpot asks of signatures over the folders of registered models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

SIGNATURE = "model.sig"
"""The file that holds the signature, beside the model's card."""
ADDED_BY_MLFLOW = "registered_model_meta"
"""A file that MLflow adds to the copy of a version when it is downloaded: no signature counts it."""


class Signer(Protocol):
    """Signs with one private key."""

    @property
    def name(self) -> str:
        """The key's, as `Verifier` tells it."""
        ...

    def sign(self, folder: Path) -> None:
        """Write ``model.sig`` into the folder of a model, in place of one that is there: over every other
        file, by path and content, but for the one that MLflow adds. Changes nothing else.
        """
        ...


class Verifier(Protocol):
    """Tells whose signature a folder holds. Keys are files in PEM."""

    def require(self, keys: Sequence[Path]) -> None:
        """Make sure that signatures can be verified with these public keys. Raises BadRequest, with its mend:
        a file that is none, a kind of key that is not known, software that is not installed.
        """
        ...

    def verify(self, folder: Path, keys: Sequence[Path]) -> str:
        """The name of the key by which the folder is signed, one of these: 64 hexadecimal digits.

        Raises BadSignature where there is no signature, or another key's, or it is not of that key, or the
        folder's files are not exactly those that were signed, or one of them is not covered; BadRequest as
        `require` does.
        """
        ...

    def named_in(self, signature: bytes) -> str:
        """The name of the key that a signature, the content of ``model.sig``, says it is of: unproven. Raises
        BadSignature for what is none.
        """
        ...
