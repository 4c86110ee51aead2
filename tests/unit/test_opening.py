"""How a job was opened, and who may help with it."""

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

import pytest

from stockpot.entities import EvaluationProtocol, Job, Opening, SoupRequest, digest_of_bytes
from stockpot.errors import CannotHelp
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow.sharing.opening import NOT_OPEN, halve_as_before, opening_of, require_alike
from stockpot.workflow.walk import Leader, _take_over

if TYPE_CHECKING:
    from stockpot.ports import Bench

SPLITS = {split: TableEvaluator(lambda _: [0.0], n=1, split=split) for split in ("validation", "test")}


class Halving:
    """As much of a bench as an opening needs."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def halve_batch(self) -> None:
        self.batch_size //= 2


def bench(batch_size: int) -> "Bench":
    return cast("Bench", Halving(batch_size))


def conditioned(protocol: EvaluationProtocol, **changes: object) -> EvaluationProtocol:
    return replace(protocol, conditions=replace(protocol.conditions, **changes))  # type: ignore[arg-type]  # by name


def test_whoever_opens_the_splits_alike_may_help() -> None:
    opening = opening_of(SPLITS, bench(8), 8)
    assert opening == Opening(version("stockpot"), tuple(e.protocol for e in SPLITS.values()))
    require_alike(SPLITS, opening)


def test_whoever_does_not_is_told_all_that_differs_each_once() -> None:
    theirs = [
        conditioned(evaluator.protocol, device="NVIDIA H100", torch_version="2.1")
        for evaluator in SPLITS.values()
    ]
    other = replace(theirs[1], question=replace(theirs[1].question, task_version="2"))
    with pytest.raises(CannotHelp) as raised:
        require_alike(SPLITS, Opening("0.0.9", (theirs[0], other)))
    ours = version("stockpot")
    assert raised.value.faults == (
        f"Stockpot: {ours} here, 0.0.9 there",
        "device: cpu here, NVIDIA H100 there",
        "torch: none here, 2.1 there",
        "version of the task: 1 here, 2 there",
    )


@pytest.mark.parametrize(("own", "halved_from", "found"), [(8, 8, 2), (8, None, 8), (4, 8, 4), (16, 8, 16)])
def test_batches_are_halved_as_the_job_did_unless_the_task_has_others_now(
    own: int, halved_from: int | None, found: int
) -> None:
    protocols = tuple(conditioned(e.protocol, batch_size=2) for e in SPLITS.values())
    halving = bench(own)
    halve_as_before(halving, own, Opening("1", protocols, halved_from))
    assert halving.batch_size == found


def test_what_was_halved_is_told() -> None:
    assert opening_of(SPLITS, bench(2), 8).halved_from == 8


def test_a_difference_that_no_field_tells_is_one() -> None:
    ours = SPLITS["test"].protocol
    twice = replace(ours, question=replace(ours.question, distributions=(("torch", "1"), ("torch", "2"))))
    once = replace(ours, question=replace(ours.question, distributions=(("torch", "2"),)))
    evaluator = TableEvaluator(lambda _: [0.0], n=1, split="test")
    evaluator.protocol = twice
    with pytest.raises(CannotHelp, match="protocol: another one here, in what is named twice"):
        require_alike({"test": evaluator}, Opening(version("stockpot"), (once,)))


def test_who_leads_next_learns_how_the_splits_were_opened_and_nobody_helps_until_they_are_again() -> None:
    store, job = MemoryStore(), Job(digest_of_bytes(b"job"), SoupRequest(model="m", task="t", sweep="s"))
    before = opening_of(SPLITS, bench(2), 8)
    store.begin_job(job)
    store.take_lease(job.lease, owner="next", seconds=60)
    store.open_job(job, before, owner="next")
    assert _take_over(Leader(job, "next"), store) == before
    assert store.opening(job.name) == NOT_OPEN
