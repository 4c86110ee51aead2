"""`stockpot domains` as a person types it, on a sweep of real models that were trained on several domains."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stockpot import SoupRequest, calls
from stockpot.cli import main
from stockpot.entities import tags
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import CLASSES, FEATURES, dense

if TYPE_CHECKING:
    from mlflow import MlflowClient

DOMAINS = ("birds", "boats", "bread")
RATES = (0.02, 0.03, 0.05)


def data(split: str, n: int = 120) -> dict[str, "np.ndarray[Any, Any]"]:
    """Points around a place of each domain's own, where labels follow a rule of its own."""
    draw = np.random.default_rng(["train", "validation", "test"].index(split))
    rules = np.random.default_rng(7).normal(0, 1, (len(DOMAINS), FEATURES, CLASSES))
    places = 3 * np.eye(len(DOMAINS), FEATURES)
    x = np.concatenate([place + draw.normal(0, 1, (n, FEATURES)) for place in places]).astype(np.float32)
    which = np.repeat(np.arange(len(DOMAINS)), n)
    y = np.array([(row @ rules[domain]).argmax() for row, domain in zip(x, which, strict=True)])
    order = draw.permutation(len(x))
    found = {"x": x, "y": y, "domain": np.array(DOMAINS)[which]}
    return {f"{split}_{name}": values[order] for name, values in found.items()}


def fine_tuned(start: dict[str, Tensor], domain: str, rate: float) -> dict[str, Tensor]:
    module, train = dense(), data("train")
    module.load_state_dict(start)
    own = train["train_domain"] == domain
    x, y = torch.from_numpy(train["train_x"][own]), torch.from_numpy(train["train_y"][own])
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(module(x), y))
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@pytest.fixture
def sweep(experiment: str, mlflow_uri: str, home: Path, tmp_path: Path, one_thread: None) -> list[str]:
    """The words behind ``stockpot domains`` for three models of each of three domains, in turn."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    del one_thread
    assert not home.exists()
    torch.manual_seed(0)
    start = dense().state_dict()
    weights = {f"{domain}-{rate}": fine_tuned(start, domain, rate) for rate in RATES for domain in DOMAINS}
    client = MlflowClient(mlflow_uri)
    parent = plant_sweep(client, experiment, weights)
    for run in client.search_runs(["1"], f"tags.mlflow.parentRunId = '{parent}'"):
        domain, _, rate = str(run.info.run_name).partition("-")
        client.log_batch(run.info.run_id, params=[Param("lr", rate), Param("corpus", domain[:2])])
    np.savez(tmp_path / "data.npz", **data("validation"), **data("test"))  # type: ignore[arg-type]  # numpy's stubs
    arguments = (f"data={tmp_path / 'data.npz'}", "model=stockpot.testing.tiny:dense")
    return ["--sweep", parent, "--task", "arrays", *(word for a in arguments for word in ("--task-arg", a))]


def told(client: "MlflowClient") -> dict[str, str | None]:
    runs = client.search_runs(["1"], "tags.mlflow.parentRunId != ''")
    return {run.info.run_name: run.data.tags.get(tags.DOMAIN) for run in runs}


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["domains", *words])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def request_of(words: list[str]) -> SoupRequest:
    _, parent, _, task, _, *rest = words
    pairs = dict(word.split("=", 1) for word in rest if "=" in word)
    return SoupRequest(model="tiny", sweep=parent, task=task, task_args=pairs)


def test_domains_are_found_from_remembered_scores_and_written_as_tags_once(
    sweep: list[str], mlflow_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    code, _, err = _run(capsys, *sweep)
    assert code == 3
    assert "9 of 9 candidates have no remembered score on split validation" in err
    assert "the same command with --rank evaluates them (9 forward passes over validation, n=360)" in err

    code, out, err = _run(capsys, *sweep, "--rank")
    assert code == 0
    assert "rank: 9 of 9" in err
    assert out.startswith("3 groups of 9 runs that are good at the same examples\n")
    assert "10 birds" in out
    assert "Mean silhouettes over split validation (n=360): 2 groups 0." in out
    assert "These divide the runs likewise: params.corpus." in out
    assert "Nothing was changed: --write-tags writes these names into stockpot.domain" in out
    plan = calls.plan(request_of(sweep))
    assert plan.ranking_passes == 0, "the request itself finds the scores remembered"
    assert plan.protocol is not None

    code, out, err = _run(capsys, *sweep, "--json")
    assert code == 0
    assert "9 scores on split validation (n=360) are remembered: no forward pass" in err
    found = json.loads(out)
    names = [{run["run_name"].partition("-")[0] for run in group["runs"]} for group in found["groups"]]
    assert names == [{domain} for domain in DOMAINS]
    assert [group["name"] for group in found["groups"]] == ["group-1", "group-2", "group-3"]
    assert [len(group["runs"]) for group in found["groups"]] == [3, 3, 3]
    for domain, group in zip(DOMAINS, found["groups"], strict=True):
        assert {example["domain"] for example in group["examples"]} == {domain}
    assert found["likewise"] == [{"name": "params.corpus", "agreement": 1.0}]
    assert found["agreement"] is None
    assert found["protocol"] == plan.protocol.digest
    assert not any(told(client).values()), "it changes nothing"

    code, _, err = _run(capsys, *sweep, "--names", "birds,boats", "--write-tags")
    assert code == 3
    assert "there are 3 groups, and 2 names for them" in err
    code, out, _ = _run(capsys, *sweep, "--names", "birds,boats,bread", "--write-tags")
    assert code == 0
    assert "stockpot.domain: 9 runs tagged now, 0 as before." in out
    assert (
        told(client).items() >= {name: name.partition("-")[0] for name in told(client) if "-" in name}.items()
    )
    code, out, _ = _run(capsys, *sweep, "--domain-from", "params.corpus")
    assert code == 0
    assert "Agreement with what the runs tell of their domain (adjusted Rand index): 1.00." in out
    code, out, _ = _run(capsys, *sweep, "--write-tags")
    assert code == 0, "groups have the names that their runs tell"
    assert "stockpot.domain: 0 runs tagged now, 9 as before." in out
    assert "Agreement with what the runs tell of their domain (adjusted Rand index): 1.00." in out

    code, _, err = _run(capsys, *sweep, "--names", "birds,boats,dough", "--write-tags")
    assert code == 3
    assert "the tag stockpot.domain of 3 runs has another value: nothing was written" in err
    assert "has 'bread', and would get 'dough'" in err
    assert "dough" not in told(client).values()


@pytest.mark.parametrize("names", ["a,b,b", "a,b,*", "a,,b"])
def test_names_that_no_group_can_have_are_refused_before_anything_is_looked_at(
    names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = _run(capsys, "--sweep", "1f0c", "--task", "arrays", "--names", names)
    assert code == 3
    assert "these cannot be the groups' names" in err


def test_a_sweep_without_domains_is_told_so(
    tiny_sweep: SoupRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sweep", str(tiny_sweep.sweep), "--task", tiny_sweep.task, "--task-arg", "n=120", "--rank"]
    code, out, _ = _run(capsys, *words, "--write-tags")
    assert code == 0
    assert out.startswith("No domains found among 5 runs: ")
