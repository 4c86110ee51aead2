"""What others' tools make of our documents: those tools read them here."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import yaml
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf.json_format import Parse
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message

from stockpot.entities import (
    Candidate,
    Comparison,
    Digest,
    ModelVersion,
    Recipe,
    Run,
    Snapshot,
    WeightsFormat,
    WeightsSource,
)
from stockpot.testing.store_values import ingested, report
from stockpot.workflow.attesting import CARD, MATERIALS, STATEMENT, documents

HOSTILE = 'a" \n---\nlicense: mit\n# [x](http://evil) <script> | b'
VERSION = ModelVersion("birds", "3", "run", "m-1", {"stockpot.model": "birds"})
OWN = "f" * 64


def snapshot(*names: str, linear: bool = False) -> Snapshot:
    """A soup of runs of these names."""
    candidates = []
    for number, name in enumerate(names):
        uri = f"runs:/{number}/{name}"
        source = WeightsSource(str(number), WeightsFormat.SAFETENSORS, name, uri, None, 4)
        run = Run(str(number), name, "1", "FINISHED", 0, {}, {}, {})
        kept = ingested(uri).checkpoint
        assert kept is not None
        candidates.append(Candidate(run, source, f"{number}" * 64, kept))
    digests = [one.checkpoint.digest for one in candidates]
    recipe = Recipe.linear(dict.fromkeys(digests, (1, 3))) if linear else Recipe.mean(digests)
    found = report(recipe)
    gain = {"test": Comparison("test", 540, 0.02, 0.01, 0.03, 0.95, None)}
    told = replace(found, rows=tuple(replace(row, versus_best=gain) for row in found.rows))
    return Snapshot(recipe, Digest(f"sha256:{OWN}"), tuple(candidates), told, {"torch": "2.13.0"})


@pytest.mark.parametrize("names", [("one", "two"), (HOSTILE, "")], ids=["plain", "hostile"])
def test_the_statement_is_one_and_names_the_bytes_of_all_ingredients(names: tuple[str, str]) -> None:
    text = documents(VERSION, snapshot(*names))[STATEMENT].decode()
    Statement.copy_from_pb(Parse(text, Message())).validate()
    told = json.loads(text)
    assert [subject["digest"] for subject in told["subject"]] == [{"sha256": OWN}]
    made_of = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [(one["name"], one["digest"]["sha256"]) for one in made_of] == [
        (name, str(number) * 64) for number, name in enumerate(names)
    ]
    assert [one["annotations"]["coefficient"] for one in made_of] == ["0.5", "0.5"]


@pytest.mark.parametrize("names", [("one", "two"), (HOSTILE, "")], ids=["plain", "hostile"])
def test_the_pedigree_keeps_cyclonedx_own_schema(names: tuple[str, str]) -> None:
    text = documents(VERSION, snapshot(*names, linear=True))[MATERIALS].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    soup = Bom.from_json(json.loads(text)).metadata.component  # type: ignore[attr-defined]  # it is made at run time
    assert {one.content for one in soup.hashes} == {OWN}
    assert sorted(one.name for one in soup.pedigree.ancestors) == sorted(names)


@pytest.mark.parametrize("names", [("one", "two"), (HOSTILE, "")], ids=["plain", "hostile"])
def test_the_head_of_the_card_is_what_hugging_face_reads_of_a_merge(names: tuple[str, str]) -> None:
    text = documents(VERSION, snapshot(*names))[CARD].decode()
    begin, end = [place for place, line in enumerate(text.splitlines()) if line == "---"][:2]
    head = yaml.safe_load("\n".join(text.splitlines()[begin + 1 : end]))
    assert begin == 0
    assert head == {
        "library_name": "pytorch",
        "tags": ["merge", "model-soup"],
        "base_model": [f"runs:/{number}/{name}" for number, name in enumerate(names)],
        "base_model_relation": "merge",
    }
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert "<script" not in "\n".join(rows)
    assert all(
        each.replace("\\|", "").count("|") == its.replace("\\|", "").count("|")
        for each, its in pairwise(rows)
    )


def test_the_same_soup_has_the_same_documents() -> None:
    assert documents(VERSION, snapshot("a", "b")) == documents(VERSION, snapshot("a", "b"))
    copied = ModelVersion("other", "1", None, "m-2", VERSION.tags)
    assert documents(copied, snapshot("a", "b")) == documents(VERSION, snapshot("a", "b"))
