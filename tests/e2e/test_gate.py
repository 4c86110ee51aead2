"""The gate before a soup that was really found and registered, and before what people make of its version."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest

from stockpot import calls
from stockpot.entities import Decision, PublishedSoup, Recall, RecallKind, SoupRequest
from stockpot.testing.tiny import weights
from stockpot.watching import Lines, Silent
from stockpot.wiring import Workplace
from stockpot.workflow.trace import snapshot_of
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.slow
POLICIES = """
[model.{model}]
task = "stockpot.testing.tiny:TinyTask"
task_args = {{ kind = "dense", n = 80 }}
split = "{split}"
shifts = ["shifted"]
"""


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def soup(tiny_sweep: SoupRequest, home: Path) -> PublishedSoup:
    request = replace(tiny_sweep, methods=("greedy",), margin=-20.0)
    (found,) = walk(request, Workplace(), in_turn, Silent()).soups
    write(home)
    return found


def write(home: Path, *, model: str = "tiny", split: str = "test") -> None:
    (home / "policies.toml").write_text(POLICIES.format(model=model, split=split))


def told(decision: Decision, name: str) -> str:
    return next(f"{check.outcome}: {check.told}" for check in decision.checks if check.name == name)


def artifacts(client: "MlflowClient", soup: PublishedSoup) -> Path:
    version = client.get_model_version("tiny", soup.uri.rpartition("/")[2])
    model = client.get_logged_model(version.tags["stockpot.logged_model"])
    return Path(urlparse(model.artifact_location).path)


def test_a_soup_is_judged_by_the_scores_that_its_search_left_behind(soup: PublishedSoup) -> None:
    said: list[str] = []
    decision = calls.gate(soup.uri, watch=Lines(said.append))
    assert decision.lets_pass
    assert told(decision, "bytes") == f"passed: they are {soup.checkpoint}, as its tag tells"
    assert {score.recipe for score in decision.version.scores} == {soup.recipe}
    assert not [line for line in said if "measuring" in line]
    with Workplace() as place:
        for score in decision.version.scores:
            assert place.store.score(score.recipe, score.protocol) is not None


def test_the_split_that_chose_a_soup_judges_it_not(soup: PublishedSoup, home: Path) -> None:
    write(home, split="validation")
    decision = calls.gate(soup.uri, watch=Silent())
    assert "failed: it cannot be used: split validation holds the data that chose" in told(decision, "suite")
    assert not decision.lets_pass


def test_a_recall_that_marked_no_version_counts_by_the_ingredients(soup: PublishedSoup) -> None:
    with Workplace() as place:
        (one, *_) = snapshot_of(soup.uri, place.tracker)[1].ingredients
        place.store.append_recall(Recall(RecallKind.RUN, one.run.run_id, "mislabelled", "ada"))
    decision = calls.gate(soup.uri, watch=Silent())
    assert told(decision, "recall") == f"failed: run {one.run.run_id} was recalled by ada: mislabelled"
    assert [check.name for check in decision.failed] == ["recall"]


def test_a_copy_by_mlflows_promote_button_is_the_soup_as_far_as_its_bytes_are(
    soup: PublishedSoup, client: "MlflowClient", home: Path
) -> None:
    copy = client.copy_model_version(soup.uri, "production")
    write(home, model="production")
    said: list[str] = []
    decision = calls.gate(f"models:/production/{copy.version}", watch=Lines(said.append))
    assert decision.lets_pass
    assert {score.recipe for score in decision.version.scores} == {soup.recipe}
    assert not [line for line in said if "measuring" in line]


def test_content_that_was_replaced_behind_a_version_fails_it(
    soup: PublishedSoup, client: "MlflowClient", tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    tampered = artifacts(client, soup)
    kept = (tampered / "model.safetensors").read_bytes()
    save_file(weights("dense", seed=1), tampered / "model.safetensors", metadata={"format": "pt"})
    decision = calls.gate(soup.uri, watch=Silent())
    assert "failed: its model.safetensors is sha256:" in told(decision, "bytes")
    assert soup.recipe not in {score.recipe for score in decision.version.scores}
    (tampered / "model.safetensors").write_bytes(kept)
    assert calls.gate(soup.uri, watch=Silent()).lets_pass
    other = tmp_path / "other.pt2"
    _export(other)
    (tampered / "data" / "model.pt2").write_bytes(other.read_bytes())
    decision = calls.gate(soup.uri, watch=Silent())
    assert "failed: what is served of it are other weights" in told(decision, "bytes")


def _export(file: Path) -> None:
    import torch

    from stockpot.testing.tiny import dense

    module = dense()
    module.load_state_dict(weights("dense", seed=1))
    torch.export.save(torch.export.export(module, (torch.zeros(2, 8),)), file)


def test_a_soup_that_takes_the_place_of_a_champion_of_others_is_served_to_the_same_callers(
    soup: PublishedSoup, client: "MlflowClient", tmp_path: Path
) -> None:
    """Its signature is the champion's where that was logged as a soup is; two soups have the same."""
    assert calls.promote(soup.uri, reason="the first", watch=Silent()).moved
    copy = client.create_model_version(
        "tiny",
        source=artifacts(client, soup).as_uri(),
        tags=dict(client.get_model_version("tiny", soup.uri.rpartition("/")[2]).tags),
    )
    decision = calls.gate(f"models:/tiny/{copy.version}", watch=Silent())
    assert told(decision, "schema") == f"passed: inputs and outputs are those of {soup.uri}"
    card = artifacts(client, soup) / "MLmodel"
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "MLmodel").write_text(card.read_text().replace("float32", "float64"))
    (folder / "model.safetensors").write_bytes((artifacts(client, soup) / "model.safetensors").read_bytes())
    other = client.create_model_version("tiny", source=folder.as_uri())
    decision = calls.gate(f"models:/tiny/{other.version}", watch=Silent())
    assert "failed: others than the champion's: inputs" in told(decision, "schema")


def test_a_champion_of_another_library_is_measured_by_its_pyfunc_where_the_policy_says_so(
    soup: PublishedSoup, client: "MlflowClient", home: Path, tmp_path: Path
) -> None:
    import mlflow
    import numpy as np
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    from stockpot.testing.tiny import TinyTask

    rows = TinyTask("dense", "80").examples("validation")
    x, y = np.stack([row.numpy() for row, _ in rows]), np.array([label for _, label in rows])
    model = LogisticRegression().fit(x, y)
    assert model.predict_proba(x).shape == (80, 4)
    mlflow.sklearn.save_model(
        model,
        tmp_path / "sklearn",
        signature=infer_signature(x, model.predict_proba(x)),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn"],
    )
    champion = client.create_model_version("tiny", source=(tmp_path / "sklearn").as_uri())
    client.set_registered_model_alias("tiny", "champion", champion.version)
    refused = calls.gate(soup.uri, watch=Silent())
    assert "pyfunc = true in the policy has it measured" in told(refused, "score")
    policies = home / "policies.toml"
    policies.write_text(policies.read_text() + "pyfunc = true\n")
    decision = calls.gate(soup.uri, watch=Silent())
    assert f"models:/tiny/{champion.version} is measured by its pyfunc" in told(decision, "pyfunc")
    assert decision.champion is not None
    test = TinyTask("dense", "80").examples("test")
    right = model.predict(np.stack([row.numpy() for row, _ in test])) == [label for _, label in test]
    assert decision.champion.scores[0].value == right.mean()
    with Workplace() as place:
        for score in decision.champion.scores:
            assert place.store.score(score.recipe, score.protocol) is not None
