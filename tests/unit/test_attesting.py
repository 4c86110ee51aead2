"""What others' tools make of our documents: those tools read them here."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf.json_format import Parse
from huggingface_hub import ModelCard
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message

from stockpot.entities import (
    Candidate,
    Comparison,
    Digest,
    Recipe,
    Run,
    Snapshot,
    WeightsFormat,
    WeightsSource,
)
from stockpot.testing.store_values import ingested, report
from stockpot.workflow.publishing.proofs import CARD, MATERIALS, STATEMENT, documents

HOSTILE = 'a" \n---\nlicense: mit\n# [x](http://evil) <script> | b'
ODD = ("\U0001f600 \x85 \u2028 \ufeff \x7f", "Fu\xdf\tß")
MODEL = "birds"
OWN = "f" * 64


def snapshot(*names: str, linear: bool = False) -> Snapshot:
    """A soup of runs of these names."""
    candidates = []
    for number, name in enumerate(names):
        uri = f"runs:/{number}/{name}"
        source = WeightsSource(str(number), WeightsFormat.SAFETENSORS, name, uri, None, 4)
        run = Run(str(number), name, "1", "FINISHED", 0, {}, {}, {})
        kept = ingested(ascii(uri)).checkpoint
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
    text = documents(MODEL, snapshot(*names))[STATEMENT].decode()
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
    text = documents(MODEL, snapshot(*names, linear=True))[MATERIALS].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    soup = Bom.from_json(json.loads(text)).metadata.component  # type: ignore[attr-defined]  # it is made at run time
    assert {one.content for one in soup.hashes} == {OWN}
    assert sorted(one.name for one in soup.pedigree.ancestors) == sorted(names)


@pytest.mark.parametrize(
    "names", [("one", "two"), (HOSTILE, ""), ODD], ids=["plain", "hostile", "odd characters"]
)
def test_the_head_of_the_card_is_what_hugging_face_reads_of_a_merge(names: tuple[str, str]) -> None:
    card = ModelCard(documents(MODEL, snapshot(*names))[CARD].decode())
    assert card.data.to_dict() == {
        "library_name": "pytorch",
        "tags": ["merge", "model-soup"],
        "base_model": [f"runs:/{number}/{name}" for number, name in enumerate(names)],
        "base_model_relation": "merge",
    }
    rows = [line for line in card.text.splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert "<script" not in "\n".join(rows)
    assert all(
        each.replace("\\|", "").count("|") == its.replace("\\|", "").count("|")
        for each, its in pairwise(rows)
    )


def test_a_single_model_that_was_registered_is_called_no_merge() -> None:
    card = ModelCard(documents(MODEL, snapshot("best"))[CARD].decode())
    assert card.data.to_dict() == {"library_name": "pytorch", "base_model": ["runs:/0/best"]}


def test_groups_are_told_by_their_sizes_beside_the_coefficients() -> None:
    plain = snapshot("a", "b", "c")
    recipe = Recipe.grouped([plain.recipe.checkpoints[:2], plain.recipe.checkpoints[2:]])
    rows = tuple(replace(row, recipe=recipe) for row in plain.report.rows)
    found = documents(MODEL, replace(plain, recipe=recipe, report=replace(plain.report, rows=rows)))
    built = json.loads(found[STATEMENT])["predicate"]["buildDefinition"]
    assert built["externalParameters"]["arithmetic"] == "grouped/1"
    assert built["externalParameters"]["groups"] == [2, 1]
    told = [one["annotations"]["coefficient"] for one in built["resolvedDependencies"]]
    assert told == ["1/4", "1/4", "1/2"]
    assert found[CARD].decode().count("| 1/4 |") == 2
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(found[MATERIALS].decode()) is None
    assert b'"1/2"' in found[MATERIALS]


def test_half_a_character_in_a_name_keeps_nothing_from_being_registered() -> None:
    found = documents(MODEL, snapshot("half \ud800", "whole"))
    assert all(content.decode() for content in found.values())


def test_the_same_soup_has_the_same_documents() -> None:
    assert documents(MODEL, snapshot("a", "b")) == documents(MODEL, snapshot("a", "b"))
