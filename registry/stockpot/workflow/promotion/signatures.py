"""Whose signature a registered version holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Check, CheckOutcome, Digest, digest_of_file
from stockpot.errors import BadSignature
from stockpot.workflow.gathering.only_weights import SOUP_FILE
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.promotion.contents import OF_THE_MACHINE, OF_THE_VERSION, Contents, reason

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Verifier


def check_signature(
    held: Contents, keys: Sequence[Path], tracker: "Tracker", supply: Supply, verifier: "Verifier"
) -> Check:
    """Whether the version is signed with one of these keys, over all its files as they are downloaded now: of
    a soup, the very weights that were measured. `keys`: none where its policy asks for no signature.
    """
    if not keys:
        return Check("signature", CheckOutcome.NOT_APPLICABLE, "its policy names no key")
    try:
        with supply.room() as room:
            folder = tracker.download_version(held.version, room / "version")
            name = verifier.verify(folder, keys)
            if held.path == SOUP_FILE and _name_of(folder / SOUP_FILE) != f"sha256:{held.sha256}":
                raise BadSignature(
                    f"the {SOUP_FILE} that is signed is another than the one that was measured"
                )
    except OF_THE_MACHINE:
        raise
    except OF_THE_VERSION as error:
        return Check("signature", CheckOutcome.FAILED, reason(error))
    return Check("signature", CheckOutcome.PASSED, f"all its files are signed with the key {name}")


def _name_of(file: Path) -> Digest | None:
    """None where it has gone since the weights were read."""
    return digest_of_file(file) if file.is_file() else None
