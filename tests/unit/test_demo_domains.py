"""The text and the sweep of `make demo-domains`, on planted documents and tiny sizes."""

import fcntl
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from stockpot.demo.domains import texts
from stockpot.demo.domains.plan import (
    DomainsConfig,
    Hyperparameters,
    PlannedRun,
    Sizes,
    all_data,
    branches,
)
from stockpot.demo.domains.task import BUCKETS, NextByte, pairs
from stockpot.demo.domains.texts import Different, Source, TextsConfig, chosen, digest_of, write_texts
from stockpot.demo.domains.training import batch, rate, train, train_all
from stockpot.demo.kept import alone_in, keep_sweep, kept_sweep
from stockpot.errors import BadTask
from stockpot.ports import Task
from stockpot.testing.task_contract import TaskContract

CONFIG = TextsConfig(validation=2, test=3, train=4, windows=2)
CONTEXT = 15
SIZES = Sizes(width=8, depth=1, context=CONTEXT)


def prose(seed: int, words: int = 120) -> bytes:
    """Words of a document's own."""
    rng = Random(seed)  # noqa: S311 - a document, no secret
    return " ".join("".join(rng.choices("abcdefghij", k=6)) for _ in range(words)).encode()


def source(name: str, text: bytes) -> Source:
    return Source(name, lambda: text)


def planted(name: str, number: int = 9) -> Callable[[], Iterable[Source]]:
    first = sum(name.encode()) * 1000
    return lambda: [source(f"{name}/{place}", prose(first + place)) for place in range(number)]


KINDS = {"a": planted("a"), "b": planted("b")}
HELD_OUT = "c", planted("c")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "below" / "texts.npz"
    write_texts(file, CONFIG, CONTEXT, KINDS, HELD_OUT)
    return file


@pytest.fixture(scope="module")
def arrays(file: Path) -> Mapping[str, Any]:
    return dict(np.load(file, allow_pickle=False))


def test_no_document_is_in_two_splits_nor_trained_on(arrays: Mapping[str, Any]) -> None:
    groups = [set(arrays[f"{split}_group"].tolist()) for split in ("validation", "test", "unseen")]
    assert [len(group) for group in groups] == [2 * 2, 2 * 3, 3]
    assert len(set.union(*groups)) == sum(map(len, groups))
    trained = b"".join(arrays[f"train_{name}"].tobytes() for name in KINDS)
    shown = [part.tobytes() for split in ("validation", "test", "unseen") for part in arrays[f"{split}_x"]]
    assert all(len(part) == CONTEXT + 1 and part not in trained for part in shown)
    assert len(set(shown)) == len(shown) == 2 * (4 + 6 + 3)


def test_what_is_shown_and_what_is_trained_on_is_of_its_domain(arrays: Mapping[str, Any]) -> None:
    texts_of = {name: b"|".join(one.read() for one in find()) for name, find in (*KINDS.items(), HELD_OUT)}
    for split, domains in {"validation": {"a", "b"}, "test": {"a", "b"}, "unseen": {"c"}}.items():
        labels = arrays[f"{split}_domain"].tolist()
        assert set(labels) == domains
        for label, part in zip(labels, arrays[f"{split}_x"], strict=True):
            assert part.tobytes() in texts_of[label]
    for name in KINDS:
        documents = arrays[f"train_{name}"].tobytes().split(b"\n\n")
        assert len(documents) == CONFIG.train
        assert all(document in texts_of[name] for document in documents)


def test_what_stands_before_a_part_tells_its_domain_and_is_not_scored(file: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(file, allow_pickle=False))
    documents = [one.read() for find in (*KINDS.values(), HELD_OUT[1]) for one in find()]
    for split in ("validation", "test", "unseen"):
        for before, part in zip(arrays[f"{split}_before"], arrays[f"{split}_x"], strict=True):
            assert any(before.tobytes() + part.tobytes() in document for document in documents)
    task = NextByte(str(file))
    found = task.features("test")
    assert found is not None
    assert found.shape == (len(arrays["test_x"]), BUCKETS)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    earlier = tmp_path / "earlier.npz"
    np.savez(earlier, allow_pickle=False, **{k: v for k, v in arrays.items() if "_before" not in k})
    assert NextByte(str(earlier)).features("test") is None


def test_features_of_a_text_are_roots_of_how_often_pairs_come() -> None:
    abc, other = pairs(np.frombuffer(b"ababababcdef", np.uint8).reshape(2, 6))
    assert sorted(abc[abc > 0]) == pytest.approx([math.sqrt(2 / 5), math.sqrt(3 / 5)])
    assert sorted(other[other > 0]) == pytest.approx([math.sqrt(1 / 5)] * 5)
    assert abc @ other == pytest.approx(math.sqrt(3 / 5) * math.sqrt(1 / 5)), "ab is in both"


def test_the_same_documents_give_the_same_text_in_whatever_order_they_are_found(
    file: Path, tmp_path: Path
) -> None:
    def backwards(find: Callable[[], Iterable[Source]]) -> Callable[[], Iterable[Source]]:
        return lambda: reversed(list(find()))

    again = tmp_path / "again.npz"
    turned = {name: backwards(find) for name, find in KINDS.items()}
    write_texts(again, CONFIG, CONTEXT, turned, (HELD_OUT[0], backwards(HELD_OUT[1])))
    assert digest_of(again) == digest_of(file)
    write_texts(again, CONFIG, CONTEXT, KINDS | {"b": planted("B")}, HELD_OUT)
    assert digest_of(again) != digest_of(file)
    assert [left.name for left in tmp_path.iterdir()] == ["again.npz"]


def test_of_documents_that_are_nearly_alike_one_is_taken_and_others_are_not() -> None:
    one = prose(1)
    few_words_changed = one.replace(one.split()[3], b"changed").replace(one.split()[90], b"changed")
    half_another = b" ".join([*prose(1).split()[:30], *prose(2).split()[:90]])
    different = Different()
    taken = [different.take(text) for text in (one, one + b" end", few_words_changed, half_another, prose(3))]
    assert taken == [True, False, False, True, True]


def test_what_is_alike_in_two_domains_is_taken_once(tmp_path: Path) -> None:
    kinds = {"a": planted("a"), "b": lambda: [*planted("a")(), *planted("b")()]}
    write_texts(tmp_path / "texts.npz", CONFIG, CONTEXT, kinds, HELD_OUT)
    arrays = dict(np.load(tmp_path / "texts.npz"))
    trained = {name: set(arrays[f"train_{name}"].tobytes().split(b"\n\n")) for name in kinds}
    assert not trained["a"] & trained["b"]


def test_what_is_no_text_or_too_short_or_gone_is_passed_over() -> None:
    def gone() -> bytes:
        raise FileNotFoundError("gone")

    sources = [source("binary", b"\xff\xfe" * 500), source("short", b"short"), Source("gone", gone)]
    assert chosen([*sources, source("text", prose(1) + b"\r\n")], 9, 100, Different()) == [prose(1)]


def test_a_machine_with_too_little_text_is_told_what_it_lacks(tmp_path: Path) -> None:
    kinds = KINDS | {"b": planted("b", number=6)}
    with pytest.raises(BadTask, match="make demo-domains") as caught:
        write_texts(tmp_path / "texts.npz", CONFIG, CONTEXT, kinds, (HELD_OUT[0], planted("c", number=2)))
    assert caught.value.faults == (
        "b: 6 documents, where 7 are needed",
        "c: 2 documents, where 3 are needed",
    )
    assert not list(tmp_path.iterdir())


def test_every_machine_has_python_and_its_reference_and_no_name_depends_on_where() -> None:
    for find in (texts.find_python, texts.find_reference):
        names = [found.name for found in find()]
        assert len(set(names)) == len(names) > 50
        assert not any(name.startswith("/") for name in names)
    assert not {name for name in (one.name for one in texts.find_python()) if "site-packages" in name}


class TestNextByte(TaskContract):
    @pytest.fixture
    def make(self, file: Path) -> Callable[[], Task]:
        return lambda: NextByte(str(file), width="8", depth="1", context=str(CONTEXT))


def test_a_score_is_the_mean_of_the_bytes_log_likelihoods(file: Path) -> None:
    task = NextByte(str(file), width="8", depth="1", context=str(CONTEXT))
    told = task.collate([task.examples("test")[place] for place in range(5)])
    model = task.model().eval()
    outputs = task.predict(model, told)
    found = task.log_likelihood(outputs, told)
    assert found.shape == (5, CONTEXT)
    plain = torch.log_softmax(model(told[:, :-1]).double(), dim=2)
    wanted = torch.stack([plain[n, at, told[n, at + 1]] for n in range(5) for at in range(CONTEXT)])
    assert torch.allclose(found.flatten(), wanted, atol=1e-5)
    assert torch.equal(task.score(outputs, told), found.mean(dim=1))


def test_a_byte_is_predicted_from_those_before_it_alone(file: Path) -> None:
    model = NextByte(str(file), width="8", depth="1", context=str(CONTEXT)).model().eval()
    told = torch.arange(CONTEXT)[None]
    changed = told.clone()
    changed[0, 10] = 200
    same = (model(told) == model(changed)).all(dim=2)[0]
    assert same.tolist() == [True] * 10 + [False] * (CONTEXT - 10)


def test_all_branches_together_compute_what_the_long_run_on_all_data_does() -> None:
    config = DomainsConfig()
    branched, everything = list(branches(config)), list(all_data(config))
    assert len(branched) == len(texts.DOMAINS) * len(config.rates) == 16
    assert {(run.domain, run.how.lr) for run in branched} == {
        (domain, lr) for domain in texts.DOMAINS for lr in config.rates
    }
    assert everything[-1].how.steps == sum(run.how.steps for run in branched)
    assert {run.how.steps for run in everything[:-1]} == {run.how.steps for run in branched}
    seeds = [run.how.seed for run in (*branched, *everything)]
    assert len(set(seeds)) == len(seeds)


def test_a_rate_rises_and_falls_to_zero() -> None:
    rates = [rate(step, 100) for step in range(101)]
    assert max(rates) == rates[10] == 1.0
    assert rates[0] == 0.1
    assert rates[100] == pytest.approx(0)


def test_a_batch_takes_its_texts_in_equal_parts_and_all_of_each() -> None:
    one, other = torch.zeros(9, dtype=torch.uint8), torch.ones(5, dtype=torch.uint8)
    one[-1] = 7
    drawn = batch([one, other], 400, 4, torch.Generator().manual_seed(0))
    assert (drawn[1::2] == 1).all()
    assert set(drawn[::2].flatten().tolist()) == {0, 7}


def _planned(seed: int = 0, **changed: Any) -> PlannedRun:
    how = {"lr": 1e-2, "weight_decay": 0.0, "steps": 30, "batch": 8, "seed": seed} | changed
    return PlannedRun("run", "a", Hyperparameters(**how))


def test_training_learns_and_is_the_same_each_time(file: Path) -> None:
    first, again, other = (train(_planned(seed), SIZES, file) for seed in (0, 0, 1))
    assert first == again
    assert first.weights != other.weights
    assert first.curve[-1] < first.curve[0] - 1
    assert first.validation["a"] == pytest.approx(-first.curve[-1], abs=1)
    assert set(first.validation) == {"a", "b"}


def test_a_branch_begins_at_the_start(file: Path) -> None:
    start = train(_planned(0), SIZES, file).weights
    (branch,) = train_all([_planned(1, lr=0.0, steps=2)], SIZES, file, start)
    begun, ended = load(start), load(branch.weights)
    assert all(torch.equal(begun[name], ended[name]) for name in begun)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "mlflow.db").touch()
    (tmp_path / "data").touch()
    return tmp_path


def test_a_kept_sweep_is_found_by_its_configuration_while_its_files_are_there(home: Path) -> None:
    config = {"sizes": (1, 2), "seed": 0}
    keep_sweep(home, config, "parent")
    assert kept_sweep(home, config, home / "data") == "parent"
    assert kept_sweep(home, config | {"seed": 1}, home / "data") is None
    (home / "data").unlink()
    assert kept_sweep(home, config, home / "data") is None


def test_one_process_at_a_time_trains_below_a_home(tmp_path: Path) -> None:
    def taken() -> bool:
        with (tmp_path / "below" / "training.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    with alone_in(tmp_path / "below"):
        assert taken()
    assert not taken()
