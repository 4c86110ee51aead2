"""What others' tools read of how a soup was made: a statement, a card and a bill of materials.

They tell what `stockpot.json` tells, and nothing of when or where they were written: of the same
`stockpot.json` they are the same bytes.
"""

import json
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from stockpot.entities import Candidate, Digest, Ingredient, Snapshot
from stockpot.workflow.gathering.only_weights import SOUP_FILE
from stockpot.workflow.publishing.markdown import shown
from stockpot.workflow.publishing.verdict import row_that_is, sentence

STATEMENT = "stockpot.intoto.json"
CARD = "README.md"
MATERIALS = "stockpot.cdx.json"
PROOFS = frozenset({STATEMENT, CARD, MATERIALS})
"""By file name."""
BUILD_TYPE = "https://stockpot.invalid/soup/v1"
"""Names the meaning of the parameters; nothing answers at such an address (RFC 2606)."""


def documents(model: str, snapshot: Snapshot) -> Mapping[str, bytes]:
    """By file name. The texts of strangers in them are data: JSON strings, or escaped for Markdown.

    `model`: the name under which the soup was registered.
    """
    return {
        STATEMENT: _json(statement(model, snapshot)),
        CARD: card(model, snapshot).encode(errors="replace"),
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
    groups = {} if recipe.groups is None else {"groups": list(recipe.groups)}
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
                    **groups,
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
    """A model card as Hugging Face's hub reads one: its head is YAML. A single model is no merge."""
    report = snapshot.report
    row = row_that_is(report, snapshot.recipe.digest)
    made_of = ", ".join(_yaml(candidate.source.uri) for candidate in snapshot.ingredients)
    lines = [
        "---",
        "library_name: pytorch",
        *(["tags: [merge, model-soup]"] if row.recipe.is_soup else []),
        f"base_model: [{made_of}]",
        *(["base_model_relation: merge"] if row.recipe.is_soup else []),
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


def _yaml(text: str) -> str:
    """A text in quotes. JSON would do, but for what it writes of characters beyond 16 bits."""
    plain = (c if " " <= c <= "~" and c not in {'"', "\\"} else f"\\U{ord(c):08X}" for c in text)
    return f'"{"".join(plain)}"'


def _pairs(snapshot: Snapshot) -> list[tuple[Ingredient, Candidate]]:
    return list(zip(snapshot.recipe.ingredients, snapshot.ingredients, strict=True))


def _coefficient(ingredient: Ingredient) -> str:
    """As the recipe has it: a number that reads back as the same, or a ratio."""
    found = ingredient.coefficient
    return repr(found) if isinstance(found, float) else f"{found[0]}/{found[1]}"


def _hex(digest: Digest) -> str:
    return digest.removeprefix("sha256:")


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
