"""What is uploaded for a soup arrives as it was sent, and holds the soup's very tensors."""

import filecmp
import hashlib
from pathlib import Path

from stockpot.entities import Digest, Publication
from stockpot.errors import RegistryConflict
from stockpot.soup import canonical_names, open_pt2, open_safetensors
from stockpot.workflow.publishing.standing import SOUP_FILE


def require_same(package: Path, returned: Path, soup: Path, publication: Publication) -> None:
    """What came back is what was uploaded, file by file; and what was exported are the soup's tensors.

    Raises RegistryConflict, naming every file and tensor that differs.
    """
    faults = []
    for file in sorted(path for path in package.rglob("*") if path.is_file()):
        name = file.relative_to(package)
        if not (returned / name).is_file():
            faults.append(f"{name} is missing")
        elif not _arrived(file, returned / name, publication.checkpoint if str(name) == SOUP_FILE else None):
            faults.append(f"{name} is another")
    faults += differences(package, soup)
    if faults:
        raise RegistryConflict(
            f"{publication.checkpoint} was uploaded for {publication.model}, something else came back",
            faults=faults,
            mend="look at the artifact store, then run the same request again",
        )


def differences(package: Path, soup: Path) -> list[str]:
    """Where the exported model does not hold the soup's very tensors."""
    exported = package / "data" / "model.pt2"
    if not exported.exists():
        return []
    return [f"{name} differs in the exported model" for name in _differing(exported, soup)]


def _arrived(sent: Path, returned: Path, known: Digest | None) -> bool:
    """Whether the file came back as it was. The soup was hashed when it was built, and is once more now."""
    if known is None:
        return filecmp.cmp(sent, returned, shallow=False)
    with returned.open("rb") as file:
        return known == f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _differing(exported: Path, soup: Path) -> list[str]:
    """Tensors of the soup that are others in a ``pt2``. The export may hold them in a wider dtype."""
    with open_pt2(exported) as archive, open_safetensors(soup) as built:
        names = {canonical: name for name, canonical in canonical_names(archive.places).items()}
        differing = []
        for spec in built.tensors:
            if spec.name not in names:
                differing.append(spec.name)
                continue
            theirs = archive.read(names[spec.name])
            if not theirs.equal(built.read(spec.name).to(theirs.dtype)):
                differing.append(spec.name)
        return differing
