"""Domains of a sweep's runs: looked for in remembered scores, named, and written as tags."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save

from stockpot.cli.discovering import show_discovery
from stockpot.documents import from_document, to_document
from stockpot.entities import Composition, SoupRequest, TensorSpec, tags
from stockpot.errors import BadRequest, Incompatible, NoRoomForWeights, NotPermitted, OutOfDeviceMemory
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.testing.listener import Listener
from stockpot.tracking import MemoryTracker
from stockpot.workflow.discovering import Discovery, discover, write_tags_of
from stockpot.workflow.gathering.supply import Supply

if TYPE_CHECKING:
    from stockpot.ports import Bench

N = 200
REQUEST = SoupRequest(model="m", task="t", experiment="e")


class Halving:
    """As much of a bench as looking for domains needs: batches of eight, of which only `fitting` fit."""

    def __init__(self, scores: Callable[[Composition], Sequence[float]], fitting: int = 8) -> None:
        self._scores, self._fitting = scores, fitting
        self.batch_size = 8

    def fits(self, _: Sequence[TensorSpec]) -> Sequence[str]:
        return []

    def heed(self, *_: object) -> None:
        return

    def halve_batch(self) -> None:
        self.batch_size //= 2

    def evaluator(self, split: str, *, compared: bool) -> TableEvaluator:
        assert not compared
        found = TableEvaluator(self._told, n=N, split=split)
        found.protocol = replace(
            found.protocol, conditions=replace(found.protocol.conditions, batch_size=self.batch_size)
        )
        return found

    def _told(self, recipe: Composition) -> Sequence[float]:
        if self.batch_size > self._fitting:
            raise OutOfDeviceMemory("no room", mend="a smaller model")
        return self._scores(recipe)

    def domains(self, split: str) -> Sequence[str]:
        assert split == "validation"
        return ["seen"] * (N // 2) + ["heard"] * (N // 2)


@dataclass
class Place:
    """A sweep in memory whose runs, in turn, are good at the one half and at the other half of the
    examples.
    """

    tracker: MemoryTracker
    store: MemoryStore
    supply: Supply
    fitting: int = 8
    request: SoupRequest = REQUEST
    diverged: int | None = None
    """The place of a run that did."""

    @classmethod
    def of(cls, folder: Path, told: Mapping[int, str], *, runs: int = 6) -> "Place":
        """`told`: the tags of some of its runs, by their places."""
        tracker, store = MemoryTracker(), MemoryStore()
        experiment = tracker.add_experiment("e")
        for number in range(runs):
            tag = {tags.DOMAIN: told[number]} if number in told else {}
            tag |= {"mlflow.source.name": f"{number % 2}.py", "folder": f"/{number % 2}"}
            params = {
                "corpus": "ab"[number % 2],
                "nearly": "ab"[number % 2 or number == 4],
                "lr": str(number // 2),
                "seed": str(number),
            }
            run = tracker.add_run(
                experiment, f"tune-{number}", params=params, tags=tag, metrics={"loss": float(number)}
            )
            tracker.add_file(run, "model.safetensors", save({"w": torch.full((2,), float(number))}))
        return cls(tracker, store, Supply(tracker, store, CheckpointCache(folder)))

    def bench(self, request: SoupRequest) -> "Bench":
        assert request == self.request
        return cast("Bench", Halving(self._scores, self.fitting))

    def _scores(self, recipe: Composition) -> Sequence[float]:
        (digest,) = recipe.checkpoints
        with self.supply.open(digest) as file:
            number = int(file.read("w")[0])
        draw = np.random.default_rng(number)
        if number == self.diverged:
            far: list[float] = draw.normal(-50, 20, N).tolist()
            return far
        at_home = (np.arange(N) < N // 2) == (number % 2 == 0)
        scores: list[float] = (at_home + draw.normal(0, 0.3, N)).tolist()
        return scores

    def look(self, *, ranks: bool = False, names: Sequence[str] = ()) -> Discovery:
        return discover(self.request, self, Listener(), ranks=ranks, names=names)

    def tags(self) -> list[str]:
        return [kept.run.tags.get(tags.DOMAIN, "") for kept in self.tracker.runs_kept.values()]


def test_runs_are_grouped_and_programs_read_it(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {})
    found = place.look(ranks=True)
    assert [group.name for group in found.groups] == ["group-1", "group-2"]
    assert [[run.run_name for run in group.runs] for group in found.groups] == [
        ["tune-0", "tune-2", "tune-4"],
        ["tune-1", "tune-3", "tune-5"],
    ]
    assert [{example.domain for example in group.examples} for group in found.groups] == [{"seen"}, {"heard"}]
    assert all(0.5 < run.silhouette <= 1 for group in found.groups for run in group.runs)
    assert [one.name for one in found.likewise] == ["params.corpus", "tags.folder"]
    assert found.agreement is None
    assert (found.exclusions, found.notes) == ((), ())
    assert from_document(Discovery, to_document(found)) == found
    assert place.tags() == [""] * 6
    assert place.look() == found, "remembered"


def test_a_run_in_no_group_says_nothing_of_what_divides_those_in_groups(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {6: "seen"}, runs=7)
    place.diverged = 6
    found = place.look(ranks=True)
    assert [run.run_name for run in found.alone] == ["tune-6"]
    assert [one.name for one in found.likewise] == ["params.corpus", "tags.folder"]
    assert ([group.name for group in found.groups], found.agreement) == (["group-1", "group-2"], None)


def test_scores_are_found_that_were_measured_in_smaller_batches(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {})
    place.fitting = 2
    found = place.look(ranks=True)
    assert found.groups
    assert place.look() == found
    place.fitting = 0
    with pytest.raises(OutOfDeviceMemory):
        Place.look(replace(place, store=MemoryStore()), ranks=True)


def test_smaller_batches_are_not_tried_where_they_are_no_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> Sequence[float]:
        raise NoRoomForWeights("no room for weights", mend="another device")

    place = Place.of(tmp_path, {})
    monkeypatch.setattr(place, "_scores", none)
    listener = Listener()
    with pytest.raises(NoRoomForWeights):
        discover(REQUEST, place, listener, ranks=True)
    assert not [said for said in listener.said if "in batches of" in said]


def test_what_gathering_left_out_and_took_for_granted_is_told(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {})
    place.tracker.add_run(place.tracker.add_experiment("e"), "empty")
    place.request = replace(REQUEST, by="loss", top=9)
    for ranks in (True, False):
        found = place.look(ranks=ranks)
        assert [one.run_name for one in found.exclusions] == ["empty"]
        assert any(note.startswith("the largest loss is taken for the best") for note in found.notes)


def test_a_base_of_another_architecture_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "base.safetensors"
    file.write_bytes(save({"w": torch.zeros(3)}))
    place = Place.of(tmp_path / "cache", {})
    place.request = replace(REQUEST, base=str(file))
    with pytest.raises(Incompatible):
        place.look(ranks=True)


def test_missing_scores_are_told_with_the_command_that_measures_them(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {})
    with pytest.raises(
        BadRequest, match="6 of 6 candidates have no remembered score on split validation"
    ) as told:
        place.look()
    assert "--rank evaluates them (6 forward passes over validation, n=200)" in told.value.mend
    place.look(ranks=True)
    experiment = place.tracker.add_experiment("e")
    run = place.tracker.add_run(experiment, "late")
    place.tracker.add_file(run, "model.safetensors", save({"w": torch.full((2,), 6.0)}))
    with pytest.raises(
        BadRequest, match="1 of 7 candidates have no remembered score on split validation: late"
    ) as told:
        place.look()
    assert "--rank evaluates them (1 forward pass over validation, n=200)" in told.value.mend


def test_groups_have_the_names_that_their_runs_tell_where_those_agree(tmp_path: Path) -> None:
    found = Place.of(tmp_path / "some", {0: "seen", 2: "seen", 3: "heard"}).look(ranks=True)
    assert [group.name for group in found.groups] == ["seen", "heard"]
    assert found.agreement == 1
    place = Place.of(tmp_path / "logged", {0: "heard"})
    for number in range(6):
        place.tracker.add_dataset(f"run-{number}", f"d{number}", ["left", "right"][number % 2])
    place.request = replace(REQUEST, domain_from="inputs")
    found = place.look(ranks=True)
    assert [group.name for group in found.groups] == ["left", "right"]
    found = Place.of(tmp_path / "one", {0: "seen", 2: "spoken", 3: "heard"}).look(ranks=True)
    assert [group.name for group in found.groups] == ["group-1", "heard"]
    found = Place.of(tmp_path / "same", {0: "all", 1: "all"}).look(ranks=True)
    assert [group.name for group in found.groups] == ["group-1", "group-2"]
    found = Place.of(tmp_path / "star", {0: "*", 2: "*", 4: "*"}).look(ranks=True)
    assert [group.name for group in found.groups] == ["group-1", "group-2"], (
        "no group is all data by its name"
    )


def test_no_two_groups_have_the_same_name_whatever_was_tagged_before(tmp_path: Path) -> None:
    """Part of a sweep was looked at first, whose groups have other numbers now."""
    found = Place.of(tmp_path / "one", {1: "group-1"}).look(ranks=True)
    assert [group.name for group in found.groups] == ["group-2", "group-1"]
    found = Place.of(tmp_path / "other", {0: "group-2"}).look(ranks=True)
    assert [group.name for group in found.groups] == ["group-2", "group-3"]


def test_names_are_the_groups_in_their_order_and_as_many(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {0: "seen"})
    found = place.look(ranks=True, names=["left", "right"])
    assert [group.name for group in found.groups] == ["left", "right"]
    with pytest.raises(BadRequest, match="there are 2 groups, and 1 name for them"):
        place.look(names=["left"])


def test_tags_are_written_once_and_never_over_another_value(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {0: " seen "})
    found = write_tags_of(place.look(ranks=True), place.tracker)
    assert place.tags() == [" seen ", "group-2", "seen", "group-2", "seen", "group-2"]
    assert len(found.tagged) == 5
    assert write_tags_of(place.look(), place.tracker).tagged == ()
    with pytest.raises(
        BadRequest, match=r"the tag stockpot\.domain of 3 runs has another value: nothing was written"
    ) as told:
        write_tags_of(place.look(names=["seen", "heard"]), place.tracker)
    assert "run tune-1 (run-1) has 'group-2', and would get 'heard'" in told.value.faults
    assert "--names" in told.value.mend
    assert "heard" not in place.tags()


def test_what_happened_meanwhile_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place.of(tmp_path, {})
    found = place.look(ranks=True)
    place.tracker.delete_run("run-2")
    place.tracker.tag_run("run-1", tags.DOMAIN, "group-2")
    done = write_tags_of(found, place.tracker)
    assert done.tagged == ("run-0", "run-4", "run-3", "run-5")
    assert done.gone == ("run-2",)
    assert done.notes == ("deleted meanwhile, and not tagged: run-2",)
    show_discovery(done, write_tags=True, as_json=False)
    assert "stockpot.domain: 4 runs tagged now, 1 as before." in capsys.readouterr().out
    place.tracker.tag_run("run-5", tags.DOMAIN, "else")
    with pytest.raises(BadRequest, match="of 1 run has another value"):
        write_tags_of(found, place.tracker)


def test_whoever_may_not_write_is_told(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {})
    found = place.look(ranks=True)
    place.tracker.writable = False
    with pytest.raises(NotPermitted):
        write_tags_of(found, place.tracker)


@pytest.mark.parametrize("names", [["a", "a"], ["a", "*"], ["a", ""], ["a", "A"]])
def test_names_that_no_group_can_have_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(BadRequest, match="these cannot be the groups' names"):
        Place.of(tmp_path, {}).look(names=names)


def test_where_no_domains_are_found_nothing_is_tagged(tmp_path: Path) -> None:
    place = Place.of(tmp_path, {}, runs=3)
    found = write_tags_of(place.look(ranks=True, names=["left", "right"]), place.tracker)
    assert found.groups == ()
    assert found.why.startswith("groups of two runs or more need 4 runs")
    assert [run.run_name for run in found.alone] == ["tune-0", "tune-1", "tune-2"]
    assert place.tags() == ["", "", ""]
