"""Versions whose weights cannot be read are measured as MLflow serves them, where a policy allows that."""

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.gate_site import GOOD, WORSE, Site, outcomes, tagged, told

from stockpot.entities import ModelVersion, Recipe, SoupRequest, digest_of_document
from stockpot.errors import BadRequest
from stockpot.evaluation import TorchBench
from stockpot.ports.signing import SIGNATURE
from stockpot.statistics import compare
from stockpot.testing.signers import PlainSigner, plain_key
from stockpot.testing.tiny import TinyTask, dense, weights
from stockpot.workflow.promotion.policies import Policy
from stockpot.workflow.promotion.served import digest_of_files

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def answers(tensors: dict[str, torch.Tensor]) -> Callable[[Any], Any]:
    """What the task's model with these weights says, to an array."""
    module = dense()
    module.load_state_dict(tensors)

    def says(inputs: np.ndarray) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(inputs)).numpy()

    return says


def serve(site: Site, function: Callable[[Any], Any], name: str = "f", **told: Any) -> ModelVersion:
    """Register what only its pyfunc can say."""
    site.tracker.pyfuncs[name] = function
    return site.register({"pyfunc": name.encode(), "model.onnx": b"x"}, **told)


def test_a_champion_that_only_its_pyfunc_can_measure_is_compared_with_and_it_is_said(site: Site) -> None:
    serve(site, answers(GOOD), alias="champion")
    decision = site.judge(site.register(WORSE), shifts=("shifted",), pyfunc=True)
    assert {check.name for check in decision.failed} == {"score", "shift shifted"}
    assert told(decision, "pyfunc").startswith(
        "models:/tiny/1 is measured by its pyfunc, with the task's labels, since its weights cannot be read: "
    )
    champion = decision.champion
    assert champion is not None
    assert champion.files is not None
    assert champion.checkpoint is None
    assert told(decision, "pyfunc").endswith(f"its files are {champion.files}")
    assert {score.recipe for score in champion.scores} == {Recipe.served(champion.files).digest}
    same = site.judge(site.register(GOOD), pyfunc=True)
    assert same.champion is not None
    assert same.champion.scores[0].value == same.version.scores[0].value
    assert same.comparisons["test"].difference == 0
    assert same.version.files is None


def test_files_keep_the_name_that_stores_and_trails_know_them_by(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    for path in ("MLmodel", "inside/model.onnx"):
        (tmp_path / path).write_text(path)
    hashes = {path: sha256(path.encode()).hexdigest() for path in ("MLmodel", "inside/model.onnx")}
    assert digest_of_files(tmp_path) == digest_of_document({"pyfunc": hashes})


def test_its_scores_are_kept_by_all_its_files_and_found_again(site: Site) -> None:
    asked: list[int] = []

    def counted(inputs: np.ndarray) -> Any:
        asked.append(len(inputs))
        return answers(GOOD)(inputs)

    serve(site, counted, alias="champion")
    version = site.register(weights(seed=3))
    first = site.judge(version, pyfunc=True)
    assert sum(asked) == 80
    assert site.judge(version, pyfunc=True) == first
    assert sum(asked) == 80
    assert first.champion is not None
    (mine,), (its,) = first.version.scores, first.champion.scores
    before, after = (site.store.score(one.recipe, one.protocol) for one in (its, mine))
    assert before is not None
    assert after is not None
    found = first.comparisons["test"]
    assert compare("test", before, after, level=found.level) == found
    assert its.protocol != mine.protocol
    bench = site.bench(SoupRequest(model="m", task="tiny", sweep="s"))
    asked_so = bench.served_protocol("test", (("memory", "1"),))
    assert (asked_so.digest, asked_so.conditions.device) == (its.protocol, "as MLflow serves it (pyfunc)")
    other = site.register({"pyfunc": b"f", "model.onnx": b"another"}, alias="champion")
    again = site.judge(version, pyfunc=True)
    assert sum(asked) == 160
    assert again.champion is not None
    assert again.champion.uri == other.uri
    assert again.champion.files != first.champion.files


def test_a_candidate_is_measured_so_as_well(site: Site) -> None:
    site.register(GOOD, alias="champion")
    decision = site.judge(serve(site, answers(GOOD)), pyfunc=True, margin=-10)
    assert not decision.failed
    assert (decision.version.checkpoint, decision.version.scores[0].value) == (
        None,
        decision.champion and decision.champion.scores[0].value,
    )
    assert told(decision, "bytes") == f"nobody told their digest; its files are {decision.version.files}"
    tagged_by_hand = serve(site, answers(GOOD), told=tagged(GOOD))
    assert outcomes(site.judge(tagged_by_hand, pyfunc=True, margin=-10))["bytes"] == "failed"


def test_another_architecture_is_measured_by_its_pyfunc_although_its_weights_can_be_read(site: Site) -> None:
    site.tracker.pyfuncs["f"] = answers(GOOD)
    held = {**site.tracker.models_kept[site.register(weights("conv")).model_id or ""].files, "pyfunc": b"f"}
    site.register(held, alias="champion")
    decision = site.judge(site.register(GOOD), pyfunc=True, margin=-10, max_latency=5.0, max_size=5.0)
    assert "since its weights do not fit the task's model; " in told(decision, "pyfunc")
    assert [check.name for check in decision.failed] == ["latency"]
    assert "not comparable" in told(decision, "latency")


def test_without_the_policys_word_nothing_is_run(site: Site) -> None:
    def runs(_: Any) -> Any:
        raise AssertionError

    serve(site, runs, alias="champion")
    decision = site.judge(site.register(GOOD))
    assert [check.name for check in decision.failed] == ["score"]
    assert "pyfunc = true in the policy has it measured" in told(decision, "score")
    assert "pyfunc" not in outcomes(decision)
    with pytest.raises(BadRequest, match="pyfunc"):
        Policy(task="tiny", pyfunc="yes")  # type: ignore[arg-type]  # as a file may have it


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (
            lambda x: x[:, 0],
            r"predictions are float32 \[n\], and those of the task's model float32 \[n, 4\]",
        ),
        (lambda x: x[:, :1], r"float32 \[n, 1\], and"),
        (lambda x: np.ones((len(x), 4), int), r"its predictions are int64 \[n, 4\], and"),
        (lambda x: x[:3, :4], "for a batch of 8"),
        (lambda x: {"logits": x[:, :4]}, "predict"),
        (lambda _: 1 / 0, "it raised ZeroDivisionError"),
    ],
    ids=["labels", "one column", "kinds", "examples", "names", "raises"],
)
@pytest.mark.parametrize("whose", ["champion's", "version's"])
def test_what_does_not_fit_the_task_fails_in_a_sentence(
    site: Site, function: Callable[[Any], Any], why: str, whose: str
) -> None:
    odd = serve(site, function, alias="champion" if whose == "champion's" else None)
    decision = site.judge(site.register(GOOD) if whose == "champion's" else odd, pyfunc=True, margin=-100)
    assert "score" in {check.name for check in decision.failed}
    assert re.search(why, told(decision, "score"))
    assert ("the champion, models:/tiny/1," in told(decision, "score")) is (whose == "champion's")


class Likelihood(TinyTask):
    """The log likelihood of the label, of which probabilities would make something else than logits."""

    bounds = None

    def score(self, outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        return -torch.nn.functional.cross_entropy(outputs, batch[1], reduction="none")


def test_probabilities_count_as_their_logarithms_where_the_own_model_gives_none(site: Site) -> None:
    site.task = Likelihood("dense", "80")
    said: list[str] = []

    def probable(inputs: np.ndarray) -> Any:
        return torch.from_numpy(answers(GOOD)(inputs)).softmax(dim=1).numpy()

    site.makes = lambda _: TorchBench(
        site.task,
        identity=("tiny", "1"),
        task_args={},
        checkpoints=site.supply,
        device="cpu",
        say=said.append,
    )
    serve(site, probable, alias="champion")
    decision = site.judge(site.register(GOOD), pyfunc=True, margin=-10)
    assert decision.champion is not None
    assert decision.champion.scores[0].value == pytest.approx(decision.version.scores[0].value, rel=1e-5)
    assert any("probabilities: their logarithms" in line for line in said)


def test_a_metric_of_the_whole_split_is_that_of_its_predictions(site: Site) -> None:
    class Measures(TinyTask):
        def metric(self, outputs: torch.Tensor, targets: Any) -> float:
            return float((outputs.argmax(dim=1) == targets[1]).double().mean())

    site.task = Measures("dense", "80")
    serve(site, answers(GOOD), alias="champion")
    decision = site.judge(site.register(GOOD), pyfunc=True, margin=-10)
    assert not decision.failed
    assert decision.comparisons["test"].difference == 0
    assert decision.champion is not None
    found = site.store.score(decision.champion.scores[0].recipe, decision.champion.scores[0].protocol)
    assert found is not None
    assert found.metric is not None
    assert len(found.metric.without) > 1


@pytest.mark.parametrize("whose", ["champion's", "version's"])
def test_where_the_policy_asks_for_signatures_what_has_none_is_not_run(
    site: Site, whose: str, tmp_path: Path
) -> None:
    asked: list[int] = []

    def counted(inputs: np.ndarray) -> Any:
        asked.append(len(inputs))
        return answers(GOOD)(inputs)

    key = plain_key(tmp_path / "ours.pem", "secret")
    odd = serve(site, counted, alias="champion" if whose == "champion's" else None)
    judged = site.register(GOOD) if whose == "champion's" else odd
    decision = site.judge(judged, pyfunc=True, signed_by=(str(key),))
    assert asked == []
    assert "; its pyfunc is not run: " in told(decision, "score")
    folder = site.tracker.download_version(odd, tmp_path / "signed")
    PlainSigner(key).sign(folder)
    site.tracker.models_kept[odd.model_id or ""].files[SIGNATURE] = (folder / SIGNATURE).read_bytes()
    site.judge(judged, pyfunc=True, signed_by=(str(key),))
    assert sum(asked) == 80


def test_what_is_run_is_the_very_download_whose_signature_was_verified(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write the artifact store may hand out one thing first and another one later."""
    asked: list[str] = []

    def evil(inputs: np.ndarray) -> Any:
        asked.append("run")
        return answers(GOOD)(inputs)

    key = plain_key(tmp_path / "ours.pem", "secret")
    version = serve(site, answers(GOOD))
    site.tracker.pyfuncs["evil"] = evil
    folder = site.tracker.download_version(version, tmp_path / "signed")
    PlainSigner(key).sign(folder)
    site.tracker.models_kept[version.model_id or ""].files[SIGNATURE] = (folder / SIGNATURE).read_bytes()
    download = site.tracker.download_version
    served: list[Path] = []

    def changing(version: ModelVersion, into: Path) -> Path:
        found = download(version, into)
        if served:
            (found / "pyfunc").write_bytes(b"evil")
        served.append(found)
        return found

    monkeypatch.setattr(site.tracker, "download_version", changing)
    site.judge(version, pyfunc=True, signed_by=(str(key),))
    assert served
    assert asked == []
