"""The alias challenger goes to a new soup only where it is shown not to be worse than who has it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from stockpot.entities import PublishedSoup, SoupRequest
from stockpot.person import person
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.promotion.auditing import Standing, audit
from stockpot.workflow.promotion.watching import look
from stockpot.workflow.publishing.markdown import shown
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import Tensor

pytestmark = pytest.mark.slow
Hold = Callable[..., str]


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def request_(client: "MlflowClient", experiment: str, tiny_sweep: SoupRequest) -> SoupRequest:
    """Of a sweep of poor models, of which a soup is better than each, and worse than a good one."""
    runs = {f"tune-{seed}": weights("dense", seed=seed, spread=0.7) for seed in range(5)}
    sweep = plant_sweep(client, experiment, runs)
    return replace(tiny_sweep, sweep=sweep, methods=("greedy",), shifts=(), margin=-20.0)


@pytest.fixture
def hold(client: "MlflowClient", tmp_path: Path) -> Hold:
    """Register a file by hand, as somebody else does, and make that version challenger."""

    def held(tensors: "dict[str, Tensor]", name: str = "weights.safetensors") -> str:
        folder = tmp_path / "theirs"
        folder.mkdir()
        if name.endswith(".pkl"):
            torch.save(SimpleNamespace(**tensors), folder / name)
        else:
            save_file(tensors, folder / name)
        if "tiny" not in [model.name for model in client.search_registered_models()]:
            client.create_registered_model("tiny")
        version = client.create_model_version("tiny", source=folder.as_uri())
        client.set_registered_model_alias("tiny", "challenger", version.version)
        return str(version.version)

    return held


def _soup(request: SoupRequest) -> PublishedSoup:
    (soup,) = walk(request, Workplace(), in_turn, Silent()).soups
    return soup


def _challenger(client: "MlflowClient") -> str:
    return str(client.get_model_version_by_alias("tiny", "challenger").version)


def _page(client: "MlflowClient", soup: PublishedSoup) -> str:
    return str(client.get_model_version("tiny", soup.uri.rsplit("/", 1)[1]).description)


def test_a_soup_that_is_worse_than_the_holder_leaves_the_alias_where_it_is_and_says_so(
    request_: SoupRequest, client: "MlflowClient", hold: Hold
) -> None:
    holder = hold(weights("dense", spread=0.0))
    soup = _soup(request_)
    assert soup.uri == "models:/tiny/2"
    assert (_challenger(client), soup.aliases) == (holder, ())
    assert "challenger stays with models:/tiny/1: -" in soup.why
    assert "interval" in soup.why
    assert shown(soup.why, most=1000) in _page(client, soup)


def test_a_soup_that_is_better_than_the_holder_takes_the_alias_and_says_from_whom(
    request_: SoupRequest, client: "MlflowClient", hold: Hold
) -> None:
    hold(weights("dense", seed=9, spread=2.0))
    soup = _soup(request_)
    assert (_challenger(client), soup.aliases) == ("2", ("challenger",))
    assert soup.why.startswith("challenger was models:/tiny/1: +")
    with Workplace() as place:
        (trail,) = audit(place, "tiny", verify=True)
        assert look(place).entries == (), "it is on record already"
    assert trail.verification is not None
    assert trail.verification.standing is Standing.ANCHORED
    begun, move = trail.entries
    assert (begun.fact["aliases"], move.fact["before"], move.fact["after"]) == ({"challenger": "1"}, "1", "2")
    assert (move.by, move.fact["seen"]) == (person(), "promote")
    assert move.reason.startswith(f"greedy soup of sweep {request_.sweep}: +")
    assert "and the interval lies above -20 points. challenger was" in move.reason
    assert move.reason.endswith(soup.why)
    assert shown(soup.why, most=1000) in _page(client, soup)


@pytest.mark.parametrize(
    ("theirs", "name", "why"),
    [
        (weights("dense", spread=0.0), "model.pkl", "types.SimpleNamespace"),
        (weights("conv"), "model.safetensors", "do not fit"),
        ({name: t * torch.nan for name, t in weights("dense").items()}, "model.safetensors", "NaN"),
    ],
    ids=["a pickle", "another architecture", "not finite"],
)
def test_a_holder_that_cannot_be_measured_keeps_the_alias_and_the_page_says_why(
    request_: SoupRequest,
    client: "MlflowClient",
    hold: Hold,
    theirs: "dict[str, Tensor]",
    name: str,
    why: str,
) -> None:
    holder = hold(theirs, name)
    soup = _soup(request_)
    assert _challenger(client) == holder
    assert "challenger stays with models:/tiny/1, which cannot be measured: " in soup.why
    assert why in soup.why
    assert shown(soup.why, most=1000) in _page(client, soup)


def test_a_holder_of_ours_is_read_back_from_the_registry_and_measured(
    request_: SoupRequest, tiny_sweep: SoupRequest, client: "MlflowClient"
) -> None:
    good = _soup(replace(tiny_sweep, methods=("greedy",), shifts=(), margin=-20.0))
    assert good.aliases == ("challenger",)
    soup = _soup(request_)
    assert _challenger(client) == "1"
    assert "challenger stays with models:/tiny/1: -" in soup.why


def test_the_holder_is_measured_once(request_: SoupRequest, client: "MlflowClient", hold: Hold) -> None:
    hold(weights("dense", spread=0.0))
    walk(request_, Workplace(), in_turn, Silent())
    client.delete_model_version("tiny", "2")
    outcome = walk(replace(request_, again=True), Workplace(), in_turn, Silent())
    assert "stays with models:/tiny/1" in outcome.soups[0].why
    assert outcome.evaluations == 0


def test_a_holder_is_read_anew_where_its_model_was_deleted_and_made_again(
    request_: SoupRequest, client: "MlflowClient", hold: Hold, tmp_path: Path
) -> None:
    hold(weights("dense", spread=0.0))
    assert _soup(request_).aliases == ()
    client.delete_registered_model("tiny")
    (tmp_path / "theirs").rename(tmp_path / "before")
    hold(weights("dense", seed=9, spread=2.0))
    assert _soup(replace(request_, again=True)).aliases == ("challenger",)


def test_a_holder_that_comes_while_the_soup_is_registered_is_compared_too(
    request_: SoupRequest, client: "MlflowClient", hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workplace()
    create = place.tracker.create_version

    def meanwhile(*args: object) -> object:
        hold(weights("dense", spread=0.0))
        return create(*args)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(place.tracker, "create_version", meanwhile)
    (soup,) = walk(request_, place, in_turn, Silent()).soups
    assert (soup.uri, _challenger(client)) == ("models:/tiny/2", "1")
    assert "stays with models:/tiny/1" in soup.why
