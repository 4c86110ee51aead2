"""Proof to a stranger: a soup made again from its ingredients' bytes, its documents and its signature."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import CheckOutcome, ModelVersion, Snapshot
from stockpot.errors import BadRequest, BadSignature, RegistryConflict
from stockpot.ports.signing import SIGNATURE
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.promotion.contents import check_bytes, contents_of
from stockpot.workflow.publishing.proofs import STATEMENT, documents
from stockpot.workflow.publishing.publication import software
from stockpot.workflow.trace import part_of, rebuilt, require_place

if TYPE_CHECKING:
    from stockpot.ports import Signer, Tracker, Verifier


@dataclass(frozen=True)
class Verified:
    """A soup that is what its version tells."""

    version: ModelVersion
    snapshot: Snapshot
    proofs: str
    """What is to be said of the documents beside it."""
    key: str | None
    """The name of the key that it is signed with; None where it is not signed."""
    checked: bool
    """Whether that key was given, and the signature is its own: else the version only says so."""

    @property
    def signature(self) -> str:
        """What is to be said of it."""
        if self.key is None:
            return "it is not signed"
        if self.checked:
            return f"all its files are signed with the key {self.key}"
        return f"it says that it is signed with the key {self.key}: --key FILE, its public key, looks"


def verify(
    uri: str, tracker: "Tracker", supply: Supply, verifier: "Verifier", keys: Sequence[Path] = ()
) -> Verified:
    """Make a soup again from its ingredients' own bytes, and look at the bytes that are registered: weights,
    the documents beside them, and whether it is signed with one of these keys, if there are any.

    Raises RegistryConflict where something is not what the version's tags tell of, BadSignature where it is
    not signed with any of the keys, BadRequest for a version that is no soup or a key that is none, and what
    downloading an ingredient raises.
    """
    if keys:
        verifier.require(keys)
    with rebuilt(uri, tracker, supply) as (version, snapshot, _, _):
        held = check_bytes(contents_of(version, tracker, supply), tracker, supply)
    if held.outcome is CheckOutcome.FAILED:
        raise RegistryConflict(
            f"{version.uri}: {held.told}",
            mend=f"register the soup's own bytes: stockpot rebuild {version.uri} --out soup.safetensors",
        )
    proofs = _compared(version, snapshot, tracker)
    if not keys:
        signature = _content(version, SIGNATURE, tracker)
        with _faults_of(version):
            key = None if signature is None else verifier.named_in(signature)
        return Verified(version, snapshot, proofs, key, checked=False)
    with supply.room() as room, _faults_of(version):
        key = verifier.verify(tracker.download_version(version, room / "version"), keys)
    return Verified(version, snapshot, proofs, key, checked=True)


@contextmanager
def _faults_of(version: ModelVersion) -> Iterator[None]:
    """What is wrong with a signature comes out with the version's name, and what mends it."""
    try:
        yield
    except BadSignature as error:
        raise BadSignature(
            f"{version.uri}: {error.what}", mend=f"where it is as it should be: stockpot sign {version.uri}"
        ) from error


def sign(uri: str, tracker: "Tracker", supply: Supply, signer: "Signer") -> ModelVersion:
    """Sign a version that is registered, whoever made it, and put the signature beside its files, in place of
    one that is there. Its weights are looked at before: they are what its tags tell of.

    Raises RegistryConflict where they are not, or the signature does not arrive, and BadRequest for a version
    without a LoggedModel, where nothing can be added.
    """
    version = tracker.version(uri)
    if (model_id := version.model_id) is None:
        raise BadRequest(
            f"{version.uri} has no LoggedModel, so that no file can be added to it",
            mend="register the model by MLflow 3, which makes one",
        )
    held = check_bytes(contents_of(version, tracker, supply), tracker, supply)
    if held.outcome is CheckOutcome.FAILED:
        raise RegistryConflict(f"{version.uri} is not signed: {held.told}", mend="find out who changed it")
    with supply.room() as room:
        folder = tracker.download_version(version, room / "version")
        (folder / SIGNATURE).unlink(missing_ok=True)
        signer.sign(folder)
        alone = room / "signature"
        alone.mkdir()
        signature = (folder / SIGNATURE).rename(alone / SIGNATURE).read_bytes()
        tracker.upload(model_id, alone)
    if _content(version, SIGNATURE, tracker) != signature:
        raise RegistryConflict(
            f"the signature of {version.uri} was uploaded, something else came back",
            mend="look at the artifact store, and whether somebody else signs it, then sign it again",
        )
    return version


def require_folder(into: Path) -> None:
    """Make it if need be. Raises BadRequest where the documents cannot be written there."""
    with suppress(OSError):  # what is wrong is told of the file
        into.mkdir(parents=True, exist_ok=True)
    require_place(into / STATEMENT)


def write_documents(snapshot: Snapshot, into: Path) -> tuple[Path, ...]:
    """Write them into this folder; files of the same names are replaced, each whole. Raises BadRequest."""
    made = {into / name: content for name, content in _documents(snapshot).items()}
    for file, content in made.items():
        with part_of(file) as part:
            part.write_bytes(content)
            part.replace(file)
    return tuple(made)


def _documents(snapshot: Snapshot) -> Mapping[str, bytes]:
    """Under the name that was asked for: a person may change the tag that tells it, or rename the model."""
    return documents(snapshot.report.request.model, snapshot)


def _compared(version: ModelVersion, snapshot: Snapshot, tracker: "Tracker") -> str:
    """What is to be said of the documents beside a version. Another release may write them otherwise; raises
    RegistryConflict where this one wrote them, and they are others.
    """
    made = _documents(snapshot)
    there = {name: _content(version, name, tracker) for name in made}
    if not any(there.values()):
        return "no documents lie beside it"
    odd = [name for name, content in made.items() if there[name] != content]
    if not odd:
        return f"{', '.join(made)} beside it tell of that"
    wrote, now = snapshot.versions.get("stockpot"), software()["stockpot"]
    if wrote != now:
        return f"stockpot {wrote} wrote {', '.join(odd)} beside it otherwise than this one, {now}"
    raise RegistryConflict(
        f"beside {version.uri} lie other documents than its soup has",
        faults=[f"{name} is {'missing' if there[name] is None else 'another'}" for name in odd],
        mend=f"stockpot verify {version.uri} --out FOLDER writes its own, once those there are deleted",
    )


def _content(version: ModelVersion, name: str, tracker: "Tracker") -> bytes | None:
    """Of a file beside the version's weights; None where there is none."""
    try:
        return None if version.model_id is None else tracker.read_file(version.model_id, name)
    except BadRequest:
        return None
