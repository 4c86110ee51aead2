"""What was recalled is no candidate: by its run before a download, by its weights whoever logged them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from stockpot.entities import (
    Digest,
    Exclusion,
    ExclusionReason,
    KnownVersion,
    Recall,
    RecallKind,
    Recipe,
    SoupRequest,
    digest_of_bytes,
)
from stockpot.errors import BadRequest
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.gathering.arrivals import Arrivals, read_all
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.starting_point import find_base
from stockpot.workflow.gathering.supply import Supply

FILES = {str(value): save({"w": torch.full((2,), float(value))}, {"format": "pt"}) for value in range(5)}


class Sweep:
    """Five runs, named after what they logged, and one more that logged what the first did."""

    def __init__(self, folder: Path) -> None:
        self.tracker, self.store = MemoryTracker(), MemoryStore()
        self.supply = Supply(self.tracker, self.store, CheckpointCache(folder))
        experiment = self.tracker.add_experiment("e")
        self.kept: list[str] = []
        self.runs: dict[str, str] = {}
        for name, content in {**FILES, "twin of 0": FILES["0"]}.items():
            self.runs[name] = self.tracker.add_run(
                experiment, name, metrics={"acc": 1.0 - len(self.runs) / 10}
            )
            self.tracker.add_file(self.runs[name], "model.safetensors", content)

    def recall(self, kind: RecallKind, name: str) -> None:
        self.store.append_recall(Recall(kind, name, "mislabelled", "ann"))

    def excluded(self, **request: object) -> dict[str, Exclusion]:
        """By the run's name, those that were recalled."""
        asked = SoupRequest(model="m", task="t", experiment="e", **request)  # type: ignore[arg-type]  # its fields
        prospects = gather(asked, self.tracker, self.supply, lambda _: (), Silent())
        if asked.base is not None:
            find_base(prospects, self.tracker, self.supply, lambda _: ())
        sweep = read_all(Arrivals(prospects, self.supply, lambda _: (), Silent()))
        self.kept = [candidate.run.name for candidate in sweep.candidates]
        return {one.run_name: one for one in sweep.exclusions if one.reason is ExclusionReason.RECALLED}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def digest(name: str) -> Digest:
    return digest_of_bytes(FILES[name])


def test_a_recalled_run_is_excluded_with_the_way_back_and_takes_no_place_among_the_best(sweep: Sweep) -> None:
    sweep.recall(RecallKind.RUN, sweep.runs["1"])
    (found,) = sweep.excluded(top=3, by="acc").values()
    assert found.run_id == sweep.runs["1"]
    assert sweep.kept == ["0", "2", "3"]
    assert found.detail == f"run {sweep.runs['1']} was recalled by ann: mislabelled"
    assert f"stockpot recall --run {sweep.runs['1']} --withdraw --reason" in found.mend


def test_recalled_weights_are_excluded_whichever_run_logged_them(sweep: Sweep) -> None:
    sweep.recall(RecallKind.CHECKPOINT, digest("0"))
    assert {*sweep.excluded()} == {"0", "twin of 0"}


def test_a_soup_that_holds_recalled_weights_is_no_candidate_either(sweep: Sweep) -> None:
    recipe = Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")])
    sweep.store.remember_version(KnownVersion("m", "1", recipe.digest, digest("3")), recipe)
    sweep.recall(RecallKind.CHECKPOINT, digest_of_bytes(b"a"))
    assert {*sweep.excluded()} == {"3"}


def test_runs_of_recalled_data_are_excluded_and_come_back_with_its_withdrawal(sweep: Sweep) -> None:
    sweep.tracker.add_dataset(sweep.runs["2"], "d1")
    sweep.recall(RecallKind.DATASET, "d1")
    assert {*sweep.excluded()} == {"2"}
    sweep.store.append_recall(Recall(RecallKind.DATASET, "d1", "it was right", "ann", withdrawn=True))
    assert sweep.excluded() == {}


def test_runs_of_a_recalled_domain_are_excluded_with_the_way_back(sweep: Sweep) -> None:
    for name, tag in {"1": "plain prose", "2": "*", "3": "code"}.items():
        sweep.tracker.tag_run(sweep.runs[name], "stockpot.domain", tag)
    sweep.recall(RecallKind.DOMAIN, "plain prose")
    found = sweep.excluded()
    assert {*found} == {"1", "2"}
    assert "stockpot recall --domain 'plain prose' --withdraw --reason" in found["2"].mend


def test_a_recalled_base_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    base = tmp_path / "base.safetensors"
    base.write_bytes(FILES["4"])
    sweep.recall(RecallKind.CHECKPOINT, digest("4"))
    with pytest.raises(BadRequest, match="was recalled by ann: mislabelled"):
        sweep.excluded(base=str(base))
