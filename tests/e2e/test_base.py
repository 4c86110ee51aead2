"""Where a sweep started: named in each form, a row of the table, and the way from there to the soup."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.soup.adapters import factors, write_adapter
from torch import Tensor

from stockpot import calls
from stockpot.cli.printing import show_outcome, show_snapshot
from stockpot.documents import from_document, to_document
from stockpot.entities import (
    Arithmetic,
    Candidate,
    Digest,
    Dtype,
    Job,
    Recipe,
    Register,
    SoupOutcome,
    SoupReport,
    SoupRequest,
    tags,
)
from stockpot.errors import BadCheckpoint, BadRequest, Incompatible
from stockpot.testing.listener import Listener
from stockpot.testing.sweeps import plant_run, plant_sweep
from stockpot.testing.tiny import TinyTask, dense, weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.places import Places
from stockpot.workflow.gathering.starting_point import base_as_listed, base_source, find_base
from stockpot.workflow.publishing.publication import COEFFICIENTS, STATISTICS
from stockpot.workflow.selecting.curve import SHARES, between
from stockpot.workflow.trace import rebuild, snapshot_of
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

Weights = Mapping[str, Tensor]


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def start() -> dict[str, Tensor]:
    """Near the sweep's models, as the one that they were fine-tuned from is, and not as good as they are."""
    return weights("dense", seed=99, spread=0.3)


@pytest.fixture
def file(tmp_path: Path, start: dict[str, Tensor]) -> Path:
    save_file(start, tmp_path / "start.safetensors", metadata={"format": "pt"})
    return tmp_path / "start.safetensors"


def _walk(request: SoupRequest) -> SoupOutcome:
    return walk(request, Workplace(), in_turn, Silent())


def _found(request: SoupRequest) -> Candidate:
    """The base, as a walk reads it after it has looked the sweep up."""
    place = Workplace()
    bench = place.bench(request)
    prospects = gather(request, place.tracker, place.supply, bench.fits, Silent())
    base = find_base(prospects, place.tracker, place.supply, bench.fits)
    assert base is not None
    with place.supply.open(base.checkpoint.digest) as weights_file:
        assert weights_file.tensors == base.checkpoint.tensors
    return base


def _accuracy(tensors: Weights, split: str) -> float:
    model, examples = dense(), TinyTask("dense", "80").examples(split)
    model.load_state_dict(dict(tensors))
    with torch.no_grad():
        right = model(torch.stack([x for x, _ in examples])).argmax(dim=1)
    return float((right == torch.tensor([label for _, label in examples])).double().mean())


def _mixed(parts: Mapping[int | None, Fraction], start: Weights) -> dict[str, Tensor]:
    """Seeds of the sweep's models, None for the start, each with its share."""
    known = {seed: start if seed is None else weights("dense", seed=seed) for seed in parts}
    return {
        name: torch.stack([float(share) * known[k][name].double() for k, share in parts.items()])
        .sum(0)
        .float()
        for name in start
    }


@pytest.mark.slow
def test_the_base_is_a_row_and_the_way_to_the_soup_is_measured_where_nothing_is_reported(
    tiny_sweep: SoupRequest,
    file: Path,
    start: dict[str, Tensor],
    client: "MlflowClient",
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = _walk(replace(tiny_sweep, base=str(file), methods=("uniform",), register=Register.ALL))
    report = outcome.report
    assert report.base is not None
    assert report.curve is not None
    for split in ("validation", "test", "shifted"):
        assert report.base.scores[split] == _accuracy(start, split)
    assert report.base.versus_best["test"].difference == pytest.approx(
        report.base.scores["test"] - report.rows[0].scores["test"]
    )
    assert [point.share for point in report.curve.points] == [n / 10 for n in range(11)]
    for point, share in zip(report.curve.points, SHARES, strict=True):
        parts: dict[int | None, Fraction] = {**dict.fromkeys(range(5), share / 5), None: 1 - share}
        mixed = _mixed(parts, start)
        assert point.scores == {
            "validation": _accuracy(mixed, "validation"),
            "shifted": _accuracy(mixed, "shifted"),
            "mean of shifts": _accuracy(mixed, "shifted"),
        }
    soup = report.rows[1]
    ends = report.curve.points[0].recipe, report.curve.points[-1].recipe
    assert ends == (report.base.recipe.digest, soup.recipe.digest)
    assert report.table[0] is report.base
    assert all(c.checkpoint not in report.base.recipe.checkpoints for c in report.candidates)
    text = client.get_model_version("tiny", "1").description or ""
    assert "| base&emsp; | 1&emsp; | 1 x&emsp; |" in text
    assert "interpolations between the base and the uniform soup" in text
    show_outcome(outcome, as_json=False)
    printed = capsys.readouterr().out
    assert "share of the soup" in printed
    assert "From the base to the uniform soup" in printed


@pytest.mark.slow
def test_a_request_without_a_base_has_the_report_that_it_had_and_one_with_it_is_remembered_as_a_whole(
    tiny_sweep: SoupRequest, file: Path
) -> None:
    before = _walk(tiny_sweep)
    assert {"base", "curve"}.isdisjoint(to_document(before.report))
    assert "base" not in to_document(before.report)["request"]
    with_base = replace(tiny_sweep, base=str(file))
    first = _walk(with_base)
    assert first.evaluations == 3 + 9 * 2  # the base on each split; the recipes between on two
    again = _walk(with_base)
    assert again.evaluations == 0
    assert again.report == first.report
    assert [row.scores for row in first.report.rows] == [row.scores for row in before.report.rows]
    assert from_document(SoupReport, to_document(first.report)) == first.report


Form = Callable[["MlflowClient", SoupRequest, Path, Weights], str]


def _run(client: "MlflowClient", request: SoupRequest, _: Path, start: Weights) -> str:
    assert request.sweep is not None
    experiment = client.get_run(request.sweep).info.experiment_id
    return plant_run(client, experiment, "none", "pretrained", start)


def _version(client: "MlflowClient", request: SoupRequest, folder: Path, start: Weights) -> str:
    run = _run(client, request, folder, start)
    client.create_registered_model("pretrained")
    uri = f"{client.get_run(run).info.artifact_uri}"
    client.create_model_version("pretrained", uri, run_id=run)
    return "models:/pretrained/1"


def _alias(client: "MlflowClient", request: SoupRequest, folder: Path, start: Weights) -> str:
    _version(client, request, folder, start)
    client.set_registered_model_alias("pretrained", "start", "1")
    return "models:/pretrained@start"


def _torch(_: "MlflowClient", __: SoupRequest, folder: Path, start: Weights) -> str:
    torch.save({"state_dict": start, "epoch": 0}, folder / "start.ckpt")
    return str(folder / "start.ckpt")


def _link(_: "MlflowClient", __: SoupRequest, folder: Path, start: Weights) -> str:
    """As Hugging Face's cache keeps files."""
    snapshot = folder / "snapshot"
    snapshot.mkdir()
    save_file(dict(start), folder / "4f3a")
    (snapshot / "model.safetensors").symlink_to("../4f3a")
    (snapshot / "config.json").write_text("{}")
    return str(snapshot)


def _shards(_: "MlflowClient", __: SoupRequest, folder: Path, start: Weights) -> str:
    import json

    cut = folder / "pretrained"
    cut.mkdir()
    names = sorted(start)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    places = {name: files[place % 2] for place, name in enumerate(names)}
    for shard in files:
        save_file({name: start[name] for name in names if places[name] == shard}, cut / shard)
    (cut / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return str(cut)


def _index(client: "MlflowClient", request: SoupRequest, folder: Path, start: Weights) -> str:
    """Whose files are links, as Hugging Face's cache keeps them."""
    cut = Path(_shards(client, request, folder, start))
    for shard in cut.glob("*.safetensors"):
        shard.rename(folder / f"blob {shard.name}")
        shard.symlink_to(folder / f"blob {shard.name}")
    return str(cut / "model.safetensors.index.json")


def _one_shard(client: "MlflowClient", request: SoupRequest, folder: Path, start: Weights) -> str:
    return f"{_shards(client, request, folder, start)}/model-00002-of-00002.safetensors"


@pytest.mark.parametrize("form", [_run, _version, _alias, _torch, _link, _shards, _index, _one_shard])
def test_a_base_is_named_in_each_form_and_is_the_same_weights(
    tiny_sweep: SoupRequest,
    client: "MlflowClient",
    tmp_path: Path,
    file: Path,
    start: dict[str, Tensor],
    form: Form,
) -> None:
    named = _found(replace(tiny_sweep, base=form(client, tiny_sweep, tmp_path, start)))
    plainly = _found(replace(tiny_sweep, base=str(file)))
    assert named.checkpoint == plainly.checkpoint


def test_the_base_of_a_run_is_downloaded_once_for_all_walks(
    tiny_sweep: SoupRequest,
    client: "MlflowClient",
    tmp_path: Path,
    start: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = replace(tiny_sweep, base=_run(client, tiny_sweep, tmp_path, start))
    bases = [_found(request)]
    with monkeypatch.context() as nothing:
        nothing.setattr(Places, "fetch", None)
        bases.append(_found(request))
    assert bases[0].checkpoint == bases[1].checkpoint
    assert request.base is not None
    client.log_artifacts(request.base, str(_saved(tmp_path / "other", {n: t + 1 for n, t in start.items()})))
    client.set_terminated(request.base, end_time=client.get_run(request.base).info.end_time + 1)
    assert _found(request).checkpoint != bases[0].checkpoint, "its run went on"


def _saved(folder: Path, tensors: Weights) -> Path:
    folder.mkdir()
    save_file(dict(tensors), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("beside", [COEFFICIENTS, STATISTICS])
def test_the_run_of_a_soup_has_no_weights_and_its_version_is_told_as_the_base(
    tiny_sweep: SoupRequest, client: "MlflowClient", tmp_path: Path, start: dict[str, Tensor], beside: str
) -> None:
    request = replace(tiny_sweep, base=_run(client, tiny_sweep, tmp_path, start))
    assert request.base is not None
    artifacts = Path(client.get_run(request.base).info.artifact_uri.removeprefix("file://"))
    (artifacts / "model.safetensors").rename(artifacts / beside)
    client.set_tag(request.base, tags.ROLE, "soup")
    with pytest.raises(BadCheckpoint, match=r"holds no weights[\s\S]*--base models:/NAME/VERSION"):
        base_source(request, Workplace().tracker)


def _without_head() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights("dense").items() if not name.startswith("2.")}


def _other() -> dict[str, Tensor]:
    return {**weights("dense"), "0.weight": torch.zeros(17, 8)}


def _infinite() -> dict[str, Tensor]:
    return {**weights("dense"), "2.bias": torch.full((4,), torch.inf)}


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (_without_head, Incompatible, ["missing 2.weight", "2.bias", "head included"]),
        (_other, Incompatible, ["0.weight has shape [17, 8], the model's has [16, 8]"]),
        (_infinite, BadCheckpoint, ["2.bias"]),
    ],
)
def test_a_base_that_does_not_fit_is_refused_before_anything_is_evaluated(
    tiny_sweep: SoupRequest,
    tmp_path: Path,
    make: Callable[[], dict[str, Tensor]],
    kind: type[BadCheckpoint],
    told: list[str],
) -> None:
    save_file(make(), tmp_path / "bad.safetensors")
    with pytest.raises(kind) as caught:
        _found(replace(tiny_sweep, base=str(tmp_path / "bad.safetensors")))
    assert all(words in str(caught.value) for words in told), caught.value
    assert "bad.safetensors" in str(caught.value)


def test_a_base_that_lacks_what_adapters_bring_is_no_row_and_that_is_said(
    tiny_sweep: SoupRequest, tmp_path: Path, file: Path
) -> None:
    save_file(_without_head(), tmp_path / "bare.safetensors")
    place, said = Workplace(), list[str]()
    bench = place.bench(tiny_sweep)
    prospects = gather(tiny_sweep, place.tracker, place.supply, bench.fits, Silent())
    _, theirs = base_source(replace(tiny_sweep, base=str(file)), place.tracker) or (None, None)
    merged = tuple(replace(p, source=replace(p.source, base=theirs)) for p in prospects.found)
    request = replace(tiny_sweep, base=str(tmp_path / "bare.safetensors"))
    prospects = replace(prospects, request=request, found=merged)
    assert find_base(prospects, place.tracker, place.supply, bench.fits, said.append) is None
    assert "no row for the base" in said[0]
    assert "missing 2.weight" in said[0]


def test_a_base_of_another_dtype_is_refused_naming_it_and_cast_on_request(
    tiny_sweep: SoupRequest, tmp_path: Path
) -> None:
    save_file({n: t.bfloat16() for n, t in weights("dense").items()}, tmp_path / "half.safetensors")
    with pytest.raises(Incompatible, match="BF16 instead of F32"):
        _found(replace(tiny_sweep, base=str(tmp_path / "half.safetensors")))
    cast = _found(replace(tiny_sweep, base=str(tmp_path / "half.safetensors"), dtype=Dtype.FLOAT32))
    assert {spec.dtype for spec in cast.checkpoint.tensors} == {"F32"}


@pytest.mark.parametrize(
    "base", ["nowhere", "models:/none/1", "models:/x", "0" * 32, "~nobody-at-all/x", "x" * 5000]
)
def test_a_base_that_is_not_there_is_told_also_by_a_plan(tiny_sweep: SoupRequest, base: str) -> None:
    for call in (calls.plan, calls.soup):
        with pytest.raises(BadRequest, match="base") as caught:
            call(replace(tiny_sweep, base=base))
        assert "a run's id" in caught.value.mend


def test_a_version_that_was_made_again_is_another_base(
    tiny_sweep: SoupRequest, client: "MlflowClient", tmp_path: Path, start: dict[str, Tensor]
) -> None:
    tracker, named = Workplace().tracker, []
    for seed in range(2):
        base = _version(client, tiny_sweep, tmp_path, {k: v + seed for k, v in start.items()})
        named.append(base_as_listed(replace(tiny_sweep, base=base), tracker))
        client.delete_registered_model("pretrained")
    assert named[0] != named[1]
    assert Job.of(tiny_sweep, named[0]).name != Job.of(tiny_sweep, named[1]).name


def test_a_version_of_another_model_of_the_same_run_is_another_base(
    tiny_sweep: SoupRequest, client: "MlflowClient", tmp_path: Path, start: dict[str, Tensor]
) -> None:
    run = client.get_run(_run(client, tiny_sweep, tmp_path, start))
    tracker, named = Workplace().tracker, []
    for _ in range(2):
        model = client.create_logged_model(run.info.experiment_id, source_run_id=run.info.run_id)
        client.create_registered_model("pretrained")
        source = f"models:/{model.model_id}"
        client.create_model_version("pretrained", source, run.info.run_id, model_id=model.model_id)
        named.append(base_as_listed(replace(tiny_sweep, base="models:/pretrained/1"), tracker))
        client.delete_registered_model("pretrained")
    assert named[0] != named[1]


def test_a_folder_of_several_files_is_refused_naming_them(
    tiny_sweep: SoupRequest, tmp_path: Path, start: dict[str, Tensor]
) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("a", "b"):
        save_file(start, folder / f"{name}.safetensors")
    with pytest.raises(BadCheckpoint, match=r"holds a\.safetensors, b\.safetensors, of which"):
        _found(replace(tiny_sweep, base=str(folder)))


@pytest.mark.slow
def test_an_answer_is_given_again_until_the_base_is_another(
    tiny_sweep: SoupRequest, file: Path, start: dict[str, Tensor], client: "MlflowClient", tmp_path: Path
) -> None:
    request = replace(tiny_sweep, base=str(file), shifts=(), points=0)
    first = calls.soup(request)
    save_file({name: tensor + 0.2 for name, tensor in start.items()}, file)
    other = calls.soup(request)
    assert first.report.base != other.report.base
    assert other.evaluations > 0
    alias = _alias(client, request, tmp_path, start)
    of_alias = calls.soup(replace(request, base=alias))
    assert of_alias.report.base == first.report.base
    assert of_alias.report.request.base == "models:/pretrained/1"
    run = _run(client, request, tmp_path, weights("dense", seed=7))
    client.create_model_version("pretrained", f"{client.get_run(run).info.artifact_uri}", run_id=run)
    client.set_registered_model_alias("pretrained", "start", "2")
    moved = calls.soup(replace(request, base=alias)).report
    assert moved.base != of_alias.report.base


def test_the_way_between_has_exact_ratios() -> None:
    base, a, b = (Digest(f"sha256:{letter * 64}") for letter in "0ab")
    half = between(base, Recipe.mean([a, b]), Fraction(1, 2))
    assert half.arithmetic is Arithmetic.LINEAR_1
    assert half.checkpoints == (a, b, base)
    assert [i.coefficient for i in half.ingredients] == [(1, 4), (1, 4), (1, 2)]
    odd = between(base, Recipe.linear({a: (1, 3), b: (2, 3)}), Fraction(1, 10))
    assert [i.coefficient for i in odd.ingredients] == [(1, 30), (1, 15), (9, 10)]
    within = between(base, Recipe.mean([base, a]), Fraction(1, 10))
    assert [(i.checkpoint, i.coefficient) for i in within.ingredients] == [(a, (1, 20)), (base, (19, 20))]


MODEL_STOCK = "model-stock"


def test_model_stock_without_a_base_is_refused_naming_the_option(tiny_sweep: SoupRequest) -> None:
    with pytest.raises(BadRequest, match=r"around the model that the sweep started from[\s\S]*--base"):
        calls.plan(replace(tiny_sweep, methods=(MODEL_STOCK,)))


@pytest.mark.slow
def test_model_stock_is_found_registered_and_made_again_without_the_cache(
    tiny_sweep: SoupRequest,
    file: Path,
    start: dict[str, Tensor],
    client: "MlflowClient",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = replace(
        tiny_sweep, base=str(file), methods=(MODEL_STOCK,), register=Register.ALL, shifts=(), points=0
    )
    outcome = _walk(request)
    (row,) = outcome.report.rows[1:]
    expected = _model_stock(start)
    assert row.label == "model-stock soup"
    assert row.scores["test"] == _accuracy(expected, "test")
    assert outcome.report.curve is None
    assert any("no plain average" in note for note in outcome.report.notes)
    (soup,) = outcome.registered
    monkeypatch.setenv("STOCKPOT_CACHE", str(tmp_path / "elsewhere"))
    place = Workplace()
    rebuild(soup.uri, place.tracker, place.supply, tmp_path / "again.safetensors")
    for name, tensor in load_file(tmp_path / "again.safetensors").items():
        assert torch.allclose(tensor, expected[name], rtol=0, atol=1e-6)
    text = client.get_model_version("tiny", "1").description or ""
    assert "The average of 5 fine-tuned models and the base that they started from" in text
    assert "- start.safetensors, the base" in text
    version, snapshot = snapshot_of(soup.uri, place.tracker)
    show_snapshot(version, snapshot, place.tracker, as_json=False)
    assert "by tensor" in capsys.readouterr().out
    again = _walk(request)
    assert again.evaluations == 0
    assert [known.uri for known in again.soups] == [soup.uri]
    said = Listener()
    walk(replace(request, verify_exact=True), place, in_turn, said)
    assert any("model-stock" in line and "the plain search agrees" in line for line in said.said), said.said


@pytest.mark.slow
def test_nothing_is_written_into_the_experiment_of_the_base(
    tiny_sweep: SoupRequest, client: "MlflowClient", start: dict[str, Tensor], tmp_path: Path
) -> None:
    theirs = client.create_experiment("theirs", artifact_location=(tmp_path / "theirs").as_uri())
    run = plant_run(client, theirs, "none", "pretrained", start)
    before = client.search_logged_models([theirs]), client.get_run(run).to_dictionary()
    request = replace(
        tiny_sweep, base=run, methods=(MODEL_STOCK,), register=Register.ALL, shifts=(), points=0
    )
    assert len(_walk(request).registered) == 1
    assert (client.search_logged_models([theirs]), client.get_run(run).to_dictionary()) == before


@pytest.mark.slow
def test_where_model_stock_has_nothing_to_average_the_report_tells_and_the_rest_is_measured(
    tiny_sweep: SoupRequest, client: "MlflowClient", experiment: str, tmp_path: Path
) -> None:
    candidates = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(2)}
    save_file(candidates["tune-0"], tmp_path / "same.safetensors")
    sweep = plant_sweep(client, experiment, candidates)
    asked = replace(tiny_sweep, sweep=sweep, base=str(tmp_path / "same.safetensors"), shifts=(), points=0)
    report = _walk(replace(asked, methods=("uniform", MODEL_STOCK))).report
    assert [row.methods for row in report.rows] == [(), ("uniform",)]
    assert "nothing by model-stock: all candidates but 1 are the base same.safetensors itself" in report.notes


def test_adapters_with_a_head_that_the_base_lacks_are_not_ranked_for_model_stock(
    tiny_sweep: SoupRequest, client: "MlflowClient", experiment: str, tmp_path: Path
) -> None:
    save_file(_without_head(), tmp_path / "bare.safetensors")
    head = {f"2.{name}": tensor for name, tensor in (("weight", torch.ones(4, 16)), ("bias", torch.ones(4)))}
    sweep = plant_sweep(client, experiment, {})
    for seed in range(2):
        file = write_adapter(
            tmp_path / f"{seed}",
            {**factors("0", 16, 8, seed=seed), **head},
            target_modules=["0"],
            modules_to_save=["2"],
        )
        _log_adapter(client, sweep, file.parent)
    base, listener = str(tmp_path / "bare.safetensors"), Listener()
    request = replace(tiny_sweep, sweep=sweep, base=base, methods=("greedy", MODEL_STOCK))
    with pytest.raises(BadRequest, match="model-stock needs a base of the candidates' architecture"):
        walk(request, Workplace(), in_turn, listener)
    assert "rank" not in listener.stages


def _log_adapter(client: "MlflowClient", sweep: str, folder: Path) -> None:
    experiment = client.get_run(sweep).info.experiment_id
    run = client.create_run(experiment, run_name=folder.name, tags={"mlflow.parentRunId": sweep}).info.run_id
    client.log_artifacts(run, str(folder), "adapter")
    client.set_terminated(run)


def _model_stock(start: Weights) -> dict[str, Tensor]:
    """The paper's formula, in numpy, for each tensor."""
    models = [weights("dense", seed=seed) for seed in range(5)]
    made = {}
    for name, tensor in start.items():
        base = tensor.double().numpy()
        updates = [model[name].double().numpy() - base for model in models]
        units = [update.reshape(-1) / np.linalg.norm(update) for update in updates]
        cosine = np.mean([float(a @ b) for a, b in itertools.combinations(units, 2)])
        t = 5 * cosine / (4 * cosine + 1)
        made[name] = torch.from_numpy(base + t * np.mean(updates, axis=0)).float()
    return made


@pytest.mark.slow
def test_heads_that_runs_began_for_themselves_are_told_as_the_likely_reason(
    client: "MlflowClient", experiment: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not home.exists()
    draw = torch.Generator().manual_seed(7)
    runs = {
        f"tune-{seed}": {
            **weights("attention", seed=seed, spread=0.02),
            "head.weight": torch.randn(4, 8, generator=draw),
        }
        for seed in range(4)
    }
    outcome = _walk(
        SoupRequest(
            model="tiny",
            sweep=plant_sweep(client, experiment, runs),
            task="stockpot.testing.tiny:TinyTask",
            task_args={"kind": "attention", "n": "80"},
            points=0,
        )
    )
    show_outcome(outcome, as_json=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "the candidates agree but for head.weight (mean cosine" in printed
    assert "Start all runs from one saved model, head included" in printed
