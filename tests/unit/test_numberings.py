"""Runs whose tokens or classes are numbered otherwise than most: told by name, and never averaged."""

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from safetensors.torch import save

from stockpot.entities import MOST_BYTES, Exclusion, ExclusionReason, SoupRequest, WeightsSource
from stockpot.errors import NothingToSoup
from stockpot.soup import CheckpointCache, strict_json
from stockpot.store.memory import MemoryStore
from stockpot.tracking.memory import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.gathering import numberings
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.supply import Supply

REQUEST = SoupRequest(model="m", task="t", experiment="e")
WORDS = ["[PAD]", "good", "bad", "film"]
TURNED = ["[PAD]", "bad", "good", "film"]
ADDED = [{"id": 0, "content": "[PAD]", "special": True}, {"id": 4, "content": "x", "special": True}]
Files = dict[str, bytes]


def dumped(document: object) -> bytes:
    return json.dumps(document).encode()


def whole(words: list[str], merges: Sequence[object] = (), **more: object) -> Files:
    vocabulary = {word: place for place, word in enumerate(words)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return {"tokenizer.json": dumped({"model": model, **more})}


def lines(words: list[str]) -> Files:
    return {"vocab.txt": "\n".join(words).encode()}


def table(words: list[str], merges: bytes = b"") -> Files:
    found = {"vocab.json": dumped({word: place for place, word in enumerate(words)})}
    return found | ({"merges.txt": merges} if merges else {})


def added(**numbers: int) -> Files:
    return {"added_tokens.json": dumped(numbers)}


def classes(*names: str) -> Files:
    return {"config.json": dumped({"id2label": {str(place): name for place, name in enumerate(names)}})}


class Reading(MemoryTracker):
    """Counts what is read of files beside weights."""

    def __init__(self, *runs: Files) -> None:
        super().__init__()
        self.read: list[str] = []
        experiment = self.add_experiment("e")
        for place, files in enumerate(runs):
            run = self.add_run(experiment, f"run-{place}")
            weights = save({"w": torch.full((2,), float(place))})
            for path, content in {"config.json": b"{}", "model.safetensors": weights, **files}.items():
                self.add_file(run, path, content)

    def head(self, source: WeightsSource, length: int) -> bytes | None:
        self.read.append(source.uri)
        return super().head(source, length)


def gathered(tracker: MemoryTracker, tmp_path: Path) -> tuple[list[str], tuple[Exclusion, ...]]:
    supply = Supply(tracker, MemoryStore(), CheckpointCache(tmp_path / "cache"))
    prospects = gather(REQUEST, tracker, supply, lambda _: (), Silent())
    again = gather(REQUEST, tracker, supply, lambda _: (), Silent())
    assert again.found == prospects.found
    return [prospect.run.name for prospect in prospects.found], prospects.exclusions


@pytest.mark.parametrize(
    ("usual", "odd", "told"),
    [
        (lines(WORDS), lines(TURNED), "token 'bad' is 2 in run run-0 and 1 in run run-2"),
        (whole(WORDS), whole(TURNED), "token 'good' is 1 in run run-0 and 2 in run run-2"),
        (whole(WORDS), lines([*WORDS, "more"]), "token 'more' is missing in run run-0 and 4 in run run-2"),
        (
            table(WORDS, b"#version\na b\nc d"),
            table(WORDS, b"c d\na b"),
            "merge 'a b' is 0 in run run-0 and 1",
        ),
        (
            whole(WORDS, ["a b"]),
            whole(WORDS, ["b a"]),
            "merge 'a b' is 0 in run run-0 and missing in run run-2",
        ),
        (
            whole(WORDS, added_tokens=[{"id": 4, "content": "<x>"}]),
            whole(WORDS, added_tokens=[{"id": 5, "content": "<x>"}]),
            "token '<x>' is 4 in run run-0 and 5 in run run-2",
        ),
        (
            lines(WORDS) | added(x=4, y=5),
            lines(WORDS) | added(x=5, y=4),
            "token 'x' is 4 in run run-0 and 5 in run run-2",
        ),
        (table(WORDS) | added(x=4), table(WORDS), "token 'x' is 4 in run run-0 and missing in run run-2"),
        (
            {"tokenizer.json": dumped({"model": {"vocab": [["a", 0.1], ["b", 0.2]]}})},
            table(["b", "a"]),
            "'a' is 0",
        ),
        ({"spiece.model": b"one"}, {"spiece.model": b"other"}, "file 'spiece.model' is 'sha256:"),
        (
            classes("bad", "good"),
            classes("good", "bad"),
            "class 0 is 'bad' in run run-0 and 'good' in run run-2",
        ),
    ],
)
def test_the_odd_run_is_excluded_and_what_is_odd_is_told(
    usual: Files, odd: Files, told: str, tmp_path: Path
) -> None:
    found, (exclusion,) = gathered(Reading(usual, usual, odd, usual), tmp_path)
    assert found == ["run-0", "run-1", "run-3"]
    assert exclusion.reason is ExclusionReason.INCOMPATIBLE
    assert told in exclusion.detail
    assert "--filter" in exclusion.mend


def test_where_none_is_that_of_most_there_is_nothing_to_average(tmp_path: Path) -> None:
    with pytest.raises(NothingToSoup) as caught:
        gathered(Reading(lines(WORDS), lines(TURNED)), tmp_path)
    assert "token 'bad' is 2 in run run-0 and 1 in run run-1" in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (whole(WORDS), table(WORDS)),
        (whole(WORDS, added_tokens=ADDED), lines(WORDS) | added(x=4)),
        (whole(WORDS, added_tokens=ADDED), table(WORDS) | added(x=4)),
        (whole(WORDS, added_tokens=ADDED), whole(WORDS, added_tokens=ADDED) | added(x=7)),  # not asked
        (lines(WORDS), lines(WORDS) | added(good=1)),  # special ones that are there already
        (lines(WORDS), lines(TURNED) | {"added_tokens.json": b"[1]"}),
        (whole(WORDS, ["a b"]), whole(WORDS, [["a", "b"]])),  # as older and newer releases write merges
        (whole(WORDS, padding={"length": 8}), whole(WORDS, padding=None)),  # of the last call
        (classes("bad", "good"), classes("LABEL_0", "LABEL_1")),  # nobody named them
        (classes("bad", "good"), {}),
        (whole(WORDS), {}),
        (whole(WORDS), {"tokenizer.json": b"[" * 100_000}),
        (whole(WORDS), {"tokenizer.json": dumped({"model": 3})}),
        (
            whole(WORDS),
            {"tokenizer.json": dumped({"model": {"vocab": {"a": 1}}, "x": [[]] * numberings.MARKS})},
        ),
        (lines(WORDS), lines([""] * (numberings.MARKS + 2) + ["good"])),
        (classes("bad", "good"), {"config.json": dumped({"id2label": {"zero": "good"}})}),
        (classes("bad", "good"), {"config.json": b'{"id2label": [1]}'}),
    ],
)
def test_what_means_the_same_or_nothing_excludes_nobody(one: Files, other: Files, tmp_path: Path) -> None:
    found, exclusions = gathered(Reading(one, other), tmp_path)
    assert len(found) == 2
    assert not exclusions


def test_each_file_is_read_once(tmp_path: Path) -> None:
    tracker = Reading(*[{**whole(WORDS), **classes("bad", "good")}] * 3)
    gathered(tracker, tmp_path)
    read = [uri for uri in tracker.read if not uri.endswith(".safetensors")]
    assert len(read) == len(set(read)) == 6


def test_a_tokenizer_that_comes_several_times_at_once_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AtOnce(Reading):
        arrived = Barrier(3)

        def head(self, source: WeightsSource, length: int) -> bytes | None:
            if source.path.endswith("tokenizer.json"):
                self.arrived.wait(timeout=60)
            return super().head(source, length)

    parsed: list[int] = []

    def counted(text: bytes) -> Any:
        parsed.append(len(text))
        return json.loads(text)

    monkeypatch.setattr(numberings, "_document", counted)
    found, _ = gathered(AtOnce(*[whole([f"word {i}" for i in range(20_000)])] * 3), tmp_path)
    assert len(found) == 3
    assert len([length for length in parsed if length > 1000]) == 1


def test_tokenizers_of_many_words_are_within_the_limit() -> None:
    words = b",".join(b'"w%d":%d' % (i, i) for i in range(256_000))
    merges = b",".join([b'["a","b"]'] * 500_000)
    text = b'{"model":{"vocab":{' + words + b'},"merges":[' + merges + b"]}}"
    strict_json.require_small(text, MOST_BYTES, numberings.MARKS)
