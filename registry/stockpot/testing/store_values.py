"""What the tests of stores put into them."""

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import nan
from threading import Barrier
from typing import TypeVar

from stockpot.entities import (
    Candidate,
    CandidatePoint,
    Checkpoint,
    Conditions,
    EvaluationProtocol,
    Evidence,
    FileStamp,
    IngestedSource,
    Job,
    Question,
    Recipe,
    ReportRow,
    Run,
    Score,
    Selection,
    SoupReport,
    SoupRequest,
    Step,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
    digest_of_bytes,
)

T = TypeVar("T")

THREADS = 8
NAN_WITH_PAYLOAD: float = struct.unpack("<d", bytes.fromhex("efbeadde0000f87f"))[0]

VALIDATION = EvaluationProtocol(
    Question(
        task="arrays",
        task_version="1+0123456789ab",
        task_args=(("path", "digits.npz"),),
        split="validation",
        dataset=digest_of_bytes(b"digits"),
        n=3,
    ),
    Conditions(
        dtype="float32",
        tf32=False,
        batch_size=256,
        device="cpu x86_64",
        torch_version="2.13.0",
    ),
)
TEST = replace(VALIDATION, question=replace(VALIDATION.question, split="test"))
HALVED = replace(VALIDATION, conditions=replace(VALIDATION.conditions, batch_size=128))
"""The same question under other conditions."""


def soup(*ingredients: str) -> Recipe:
    """The average of checkpoints that are named by these words."""
    return Recipe.mean([digest_of_bytes(name.encode()) for name in ingredients])


def ingested(uri: str, size: int = 4) -> IngestedSource:
    """A weights file of one tensor."""
    tensors = (TensorSpec("weight", "F32", (size // 4,)),)
    checkpoint = Checkpoint(digest_of_bytes(uri.encode()), size, tensors, exact=digest_of_bytes(b""))
    return IngestedSource(uri, size, "0" * 64, checkpoint)


def selection(recipe: Recipe, score: float = 0.5, *, complete: bool = True) -> Selection:
    """A search of three steps: kept, stopped early, without a score."""
    tried = recipe.checkpoints
    steps = (
        Step(recipe.digest, tried, score=-0.0, bound=None, kept=True),
        Step(soup("b").digest, tried, score=None, bound=0.1 + 0.2, kept=False),
        Step(soup("c").digest, tried, score=nan, bound=None, kept=False),
    )
    return Selection("greedy", "not_worse", steps, recipe, score, complete)


def report(*recipes: Recipe, runs: tuple[str, ...] = ("one", "two"), **request: object) -> SoupReport:
    """What was measured for a request that found these recipes, on VALIDATION and TEST."""
    asked = SoupRequest(**{"model": "digits", "task": "arrays", "sweep": "parent", **request})  # type: ignore[arg-type]  # the fields' types
    rows = [ReportRow("greedy soup", ("greedy",), recipe, {"test": 0.5}, {}) for recipe in recipes]
    points = [CandidatePoint(run, run, digest_of_bytes(run.encode()), 0.5, None, None) for run in runs]
    return SoupReport(asked, tuple(rows), (), tuple(points), (), (VALIDATION, TEST))


def listed(run_id: str, **metrics: float) -> Run:
    """A finished run."""
    return Run(run_id, f"run {run_id}", "1", "FINISHED", 0, {}, metrics, {})


def candidate(run_id: str, name: str) -> Candidate:
    """A run of which the checkpoint is named by this word."""
    uri = f"s3://user:secret@bucket/{run_id}/artifacts/model.safetensors"
    source = WeightsSource(run_id, WeightsFormat.SAFETENSORS, "model.safetensors", uri, None, 4)
    checkpoint = Checkpoint(digest_of_bytes(name.encode()), 4, (), exact=digest_of_bytes(b""))
    return Candidate(listed(run_id), source, "0" * 64, checkpoint)


def job(*runs: str, **request: object) -> Job:
    """A request about a sweep of these runs."""
    return Job.of(report(**request).request, [listed(run) for run in runs])  # type: ignore[arg-type]  # a request's fields


EVIDENCE = Evidence(digest_of_bytes(b"here"), (FileStamp("/data.npz", 1, 2, 3, 1 << 63),), doubt="")


def bits(score: Score | None) -> tuple[bytes, ...]:
    """Equal for equal bits only, as == is for neither NaN nor zero."""
    assert score is not None
    metric = [(score.metric.value,), score.metric.without] if score.metric else []
    return tuple(struct.pack(f"<{len(part)}d", *part) for part in (score.examples, *metric))


def at_once(act: Callable[[int], T]) -> list[T]:
    """What the threads got that did this at the same moment."""
    barrier = Barrier(THREADS)

    def wait_then_act(number: int) -> T:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(wait_then_act, range(THREADS)))
