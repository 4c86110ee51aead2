"""The code that a task consists of, by content."""

from dataclasses import asdict, dataclass

from stockpot.entities.digest import Digest, digest_of_document, short


@dataclass(frozen=True)
class SourceIdentity:
    """The user's own modules that a task is made of, and the distributions that they import."""

    modules: tuple[tuple[str, str], ...] = ()
    """Each module's name, and the first 12 digits of the SHA-256 of its file; by name."""
    distributions: tuple[tuple[str, str], ...] = ()
    """Name and version of each installed distribution that those modules import; by name."""
    absent: tuple[str, ...] = ()
    """Modules that are imported somewhere, and that are not installed: optional ones."""
    doubts: tuple[str, ...] = ()
    """Sentences: what may be imported besides, and cannot be known by reading. Empty: nothing."""

    @property
    def digest(self) -> Digest:
        """Of all of it."""
        return digest_of_document(asdict(self))

    @property
    def hash(self) -> str:
        """12 digits over the modules alone: what a task's version carries."""
        return short(digest_of_document(self.modules))
