"""A version is taken for a soup's only where it holds that soup: tags can be copied."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import save_file

from stockpot.entities import PublishedSoup, SoupRequest, SoupState
from stockpot.errors import RegistryConflict
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.trace import snapshot_of
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.slow


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def request_(tiny_sweep: SoupRequest) -> SoupRequest:
    return replace(tiny_sweep, methods=("greedy",), shifts=(), margin=-100.0)


def _soup(request: SoupRequest) -> PublishedSoup:
    (soup,) = walk(request, Workplace(), in_turn, Silent()).soups
    return soup


def _forget(home: Path) -> None:
    """As on another machine: the store knows no version."""
    shutil.rmtree(home)


def _copy(client: "MlflowClient", folder: Path, tags: Mapping[str, str]) -> None:
    """Other weights, under a soup's tags."""
    folder.mkdir()
    save_file(weights("dense", seed=9), folder / "model.safetensors", metadata={"format": "pt"})
    client.create_model_version("tiny", source=folder.as_uri(), tags=dict(tags))


def test_a_version_that_the_store_does_not_know_is_adopted_once_its_weights_agree(
    request_: SoupRequest, home: Path
) -> None:
    soup = _soup(request_)
    _forget(home)
    adopted = _soup(request_)
    assert adopted == replace(soup, state=SoupState.ADOPTED)
    assert _soup(request_) == adopted


def test_copied_tags_on_other_weights_are_a_conflict_and_never_adopted(
    request_: SoupRequest, client: "MlflowClient", home: Path, tmp_path: Path
) -> None:
    soup = _soup(request_)
    tags = client.get_model_version("tiny", "1").tags
    client.delete_model_version("tiny", "1")
    _copy(client, tmp_path / "other", tags)
    for _ in range(2):
        with pytest.raises(
            RegistryConflict, match=r"models:/tiny/2 carries the tag stockpot\.recipe"
        ) as raised:
            _soup(request_)
        assert f"the soup is {soup.checkpoint}" in str(raised.value)
        assert "delete that version, or its tag stockpot.recipe" in str(raised.value)
        _forget(home)
    client.delete_model_version_tag("tiny", "2", "stockpot.recipe")
    assert _soup(request_).state is SoupState.WITHDRAWN, "version 1 was deleted"
    assert _soup(replace(request_, again=True)).uri == "models:/tiny/3", "the mend mends it"


@pytest.mark.parametrize("key", ["stockpot.checkpoint", "stockpot.logged_model", "stockpot.role"])
def test_a_version_that_lost_one_of_its_tags_is_told_or_adopted_and_no_bare_error(
    request_: SoupRequest, client: "MlflowClient", home: Path, key: str
) -> None:
    soup = _soup(request_)
    client.delete_model_version_tag("tiny", "1", key)
    assert _soup(request_).uri == soup.uri, "the store knows it"
    _forget(home)
    if key == "stockpot.checkpoint":
        with pytest.raises(RegistryConflict, match=r"its tag stockpot\.checkpoint is missing"):
            _soup(request_)
    else:
        assert _soup(request_).uri == soup.uri, "its weights say so"


def test_a_version_without_readable_weights_is_a_conflict(
    request_: SoupRequest, client: "MlflowClient", home: Path
) -> None:
    _soup(request_)
    location = client.get_model_version_download_uri("tiny", "1")
    Path(location.removeprefix("file://"), "model.safetensors").unlink()
    _forget(home)
    with pytest.raises(RegistryConflict, match=r"its model\.safetensors is missing"):
        _soup(request_)


def test_where_a_model_was_renamed_the_new_name_is_told(
    request_: SoupRequest, client: "MlflowClient"
) -> None:
    _soup(request_)
    client.rename_registered_model("tiny", "small")
    client.create_registered_model("tiny")
    client.create_model_version("tiny", source="s3://nobody/nothing")  # a stranger takes the old name
    told = _soup(request_)
    assert told.state is SoupState.WITHDRAWN
    assert "is models:/small/1 now" in told.why
    assert "--model small; " in told.why
    assert _soup(replace(request_, model="small")).uri == "models:/small/1"


def test_a_copy_that_was_promoted_into_another_model_is_recognised_there(
    request_: SoupRequest, client: "MlflowClient"
) -> None:
    soup = _soup(request_)
    client.copy_model_version("models:/tiny/1", "production")
    promoted = _soup(replace(request_, model="production"))
    assert (promoted.state, promoted.uri) == (SoupState.ADOPTED, "models:/production/1")
    assert promoted.why == "It was registered as a version of tiny, and copied or renamed since."
    assert promoted.checkpoint == soup.checkpoint
    assert len(client.search_model_versions("name='production'")) == 1
    _, snapshot = snapshot_of(promoted.uri, Workplace().tracker)
    assert snapshot.recipe.digest == soup.recipe
