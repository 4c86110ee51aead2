"""What others' tools read of how a soup was made: a statement, a card and a bill of materials.

They tell what `stockpot.json` tells, and nothing of when or where they were written: the same soup has the
same documents.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from stockpot.entities import Candidate, CheckOutcome, Digest, Ingredient, ModelVersion, Snapshot, tags
from stockpot.errors import RegistryConflict
from stockpot.workflow.gathering.only_weights import SOUP_FILE
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.promotion.contents import check_bytes, contents_of
from stockpot.workflow.publishing.markdown import shown
from stockpot.workflow.publishing.verdict import sentence
from stockpot.workflow.trace import part_of, rebuilt, require_place

if TYPE_CHECKING:
    from stockpot.ports import Tracker

STATEMENT = "stockpot.intoto.json"
CARD = "README.md"
MATERIALS = "stockpot.cdx.json"
BUILD_TYPE = "https://stockpot.invalid/soup/v1"
"""Names the meaning of the parameters; nothing answers at such an address (RFC 2606)."""


def documents(version: ModelVersion, snapshot: Snapshot) -> Mapping[str, bytes]:
    """By file name. The texts of strangers in them are data: JSON strings, or escaped for Markdown."""
    model = version.tags.get(tags.MODEL, version.name)
    return {
        STATEMENT: _json(statement(model, snapshot)),
        CARD: card(model, snapshot).encode(),
        MATERIALS: _json(materials(model, snapshot)),
    }


def statement(model: str, snapshot: Snapshot) -> dict[str, Any]:
    """That these bytes were averaged from those: an in-toto statement with the predicate of SLSA.

    Dependencies have the digest of the file that the run logged; the annotation `checkpoint` names its
    tensors in canonical form, which the recipe is about. Source: in-toto Attestation Framework, Statement v1;
    SLSA Provenance v1.
    """
    recipe = snapshot.recipe
    overlay = {} if recipe.overlay is None else {"overlay": str(recipe.overlay)}
    tensors = {} if recipe.coefficients is None else {"coefficients": recipe.coefficients}
    dependencies = [
        {
            "name": candidate.run.name,
            "uri": candidate.source.uri,
            "digest": {"sha256": candidate.source_sha256},
            "annotations": {
                "checkpoint": candidate.checkpoint.digest,
                "coefficient": _coefficient(ingredient),
            },
        }
        for ingredient, candidate in _pairs(snapshot)
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{model}/{SOUP_FILE}", "digest": {"sha256": _hex(snapshot.checkpoint)}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "recipe": recipe.digest,
                    "arithmetic": recipe.arithmetic.value,
                    **overlay,
                    **tensors,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": "https://stockpot.invalid/stockpot", "version": dict(snapshot.versions)}
            },
        },
    }


def materials(model: str, snapshot: Snapshot) -> dict[str, Any]:
    """The soup as a component whose pedigree is its ingredients. Source: CycloneDX 1.6 (ECMA-424)."""
    ancestors = [
        {
            "type": "machine-learning-model",
            "bom-ref": candidate.checkpoint.digest,
            "name": candidate.run.name,
            "hashes": [{"alg": "SHA-256", "content": candidate.source_sha256}],
            "properties": [
                {"name": "stockpot:uri", "value": candidate.source.uri},
                {"name": "stockpot:coefficient", "value": _coefficient(ingredient)},
            ],
        }
        for ingredient, candidate in _pairs(snapshot)
    ]
    soup = {
        "type": "machine-learning-model",
        "bom-ref": snapshot.checkpoint,
        "name": model,
        "hashes": [{"alg": "SHA-256", "content": _hex(snapshot.checkpoint)}],
        "pedigree": {"ancestors": ancestors, "notes": f"recipe {snapshot.recipe.digest}"},
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'{BUILD_TYPE}#{snapshot.checkpoint}')}",
        "version": 1,
        "metadata": {"component": soup},
    }


def card(model: str, snapshot: Snapshot) -> str:
    """A model card as Hugging Face's hub reads one: its head is YAML, of which JSON is a part."""
    report = snapshot.report
    row = next(row for row in report.rows if row.recipe == snapshot.recipe)
    lines = [
        "---",
        "library_name: pytorch",
        "tags: [merge, model-soup]",
        f"base_model: {json.dumps([candidate.source.uri for candidate in snapshot.ingredients])}",
        "base_model_relation: merge",
        "---",
        f"# {shown(model)}",
        "",
        shown(sentence(row, report.request.report_on, report.unit), 1000),
        "",
        f"`{SOUP_FILE}` is `{snapshot.checkpoint}`, made by the recipe `{snapshot.recipe.digest}`:",
        "",
        "| ingredient | from | coefficient | checkpoint |",
        "|---|---|---|---|",
    ]
    for ingredient, candidate in _pairs(snapshot):
        cells = shown(candidate.run.name), shown(candidate.source.uri, 200), _coefficient(ingredient)
        lines.append(f"| {' | '.join(cells)} | `{candidate.checkpoint.digest}` |")
    return "\n".join(lines) + "\n"


def verify(uri: str, tracker: "Tracker", supply: Supply) -> tuple[ModelVersion, Snapshot]:
    """Make a soup again from its ingredients' own bytes, and look at the bytes that are registered.

    Raises RegistryConflict where either is not the soup that the version's tags tell of, BadRequest for a
    version that is no soup, and what downloading an ingredient raises.
    """
    with rebuilt(uri, tracker, supply) as (version, snapshot, _, _):
        held = check_bytes(contents_of(version, tracker, supply), tracker, supply)
        if held.outcome is CheckOutcome.FAILED:
            raise RegistryConflict(
                f"{version.uri}: {held.told}",
                mend=f"register the soup's own bytes: stockpot rebuild {version.uri} --out soup.safetensors",
            )
        return version, snapshot


def require_folder(into: Path) -> None:
    """Make it if need be. Raises BadRequest where the documents cannot be written there."""
    with suppress(OSError):  # what is wrong is told of the file
        into.mkdir(parents=True, exist_ok=True)
    require_place(into / STATEMENT)


def write_documents(version: ModelVersion, snapshot: Snapshot, into: Path) -> tuple[Path, ...]:
    """Write them into this folder; files of the same names are replaced, each whole. Raises BadRequest."""
    made = {into / name: content for name, content in documents(version, snapshot).items()}
    for file, content in made.items():
        with part_of(file) as part:
            part.write_bytes(content)
            part.replace(file)
    return tuple(made)


def _pairs(snapshot: Snapshot) -> list[tuple[Ingredient, Candidate]]:
    return list(zip(snapshot.recipe.ingredients, snapshot.ingredients, strict=True))


def _coefficient(ingredient: Ingredient) -> str:
    """As the recipe has it: a number that reads back as the same, or a ratio."""
    found = ingredient.coefficient
    return repr(found) if isinstance(found, float) else f"{found[0]}/{found[1]}"


def _hex(digest: Digest) -> str:
    return digest.removeprefix("sha256:")


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
