"""Which checkpoint of a run that logged several, by what real tools write beside them."""

from dataclasses import replace

import pytest

from stockpot.entities import Direction, SoupRequest, SweepSelector, WeightsSource
from stockpot.errors import AmbiguousWeights, BadRequest
from stockpot.tracking.memory import MemoryTracker
from stockpot.workflow.gathering.checkpoint_choice import choose_checkpoint

REQUEST = SoupRequest(model="m", task="t", experiment="e")
STATE = b'{"best_metric": NaN, "best_model_checkpoint": "%s", "log_history": [{"loss": NaN}]}'


class Logged:
    """A run with these files, each of them in the run or in a model of its own."""

    def __init__(self) -> None:
        self.tracker = MemoryTracker()
        self._run = self.tracker.add_run(self.tracker.add_experiment("e"), "run")

    def file(self, path: str, content: bytes = b"weights") -> None:
        self.tracker.add_file(self._run, path, content)

    def model(self, name: str, files: dict[str, bytes]) -> None:
        self.tracker.add_model(self._run, name, files)

    @property
    def sources(self) -> tuple[WeightsSource, ...]:
        (run,) = self.tracker.runs(SweepSelector(experiment="e"))
        return self.tracker.weights(run)

    def chosen(self, request: SoupRequest = REQUEST) -> str:
        return choose_checkpoint(self.sources, request, self.tracker).path


def _by_trainer(best: str, *steps: int) -> Logged:
    logged = Logged()
    for step in steps:
        # A later state knows more: of the first, the first was the best.
        state = STATE % (best if step == max(steps) else f"out/checkpoint-{step}").encode()
        folder = f"artifacts/checkpoint-{step}"
        files = {f"{folder}/model.safetensors": b"x", f"{folder}/trainer_state.json": state}
        logged.model(f"checkpoint-{step}", files)
    return logged


@pytest.mark.parametrize("weights", [None, "best"])
@pytest.mark.parametrize("best", ["/home/me/out/checkpoint-9", "out/checkpoint-9/", r"C:\\out\\checkpoint-9"])
def test_the_trainers_own_word_on_its_best(best: str, weights: str | None) -> None:
    logged = _by_trainer(best, 100, 9, 20)
    wanted = "checkpoint-9/artifacts/checkpoint-9/model.safetensors"
    assert logged.chosen(replace(REQUEST, weights=weights)) == wanted


def test_the_word_of_the_last_checkpoint_counts() -> None:
    logged = _by_trainer("out/checkpoint-20", 10, 20, 30)  # the first one says that the first is the best
    assert logged.chosen() == "checkpoint-20/artifacts/checkpoint-20/model.safetensors"


def test_the_last_is_that_of_the_largest_step_not_of_the_last_name() -> None:
    logged = _by_trainer("out/checkpoint-9", 100, 9, 20)
    wanted = "checkpoint-100/artifacts/checkpoint-100/model.safetensors"
    assert logged.chosen(replace(REQUEST, weights="last")) == wanted


def test_a_best_that_was_not_logged_is_no_choice() -> None:
    with pytest.raises(AmbiguousWeights, match="2 weights files") as caught:
        _by_trainer("out/checkpoint-7", 9, 20).chosen()
    assert "--weights last, which takes checkpoint-20/" in caught.value.mend


def test_lightnings_best_is_the_newest_that_was_best_when_it_was_logged() -> None:
    logged = Logged()
    for step, aliases in ((5, b"['latest', 'best']"), (50, b"['latest', 'best']"), (100, b"['latest']")):
        folder = f"epoch=0-step={step}"
        logged.file(f"{folder}/{folder}.safetensors")
        logged.file(f"{folder}/aliases.txt", aliases)
        logged.file(f"{folder}/metadata.yaml", b"score: 0.5")
    assert logged.chosen() == "epoch=0-step=50/epoch=0-step=50.safetensors"
    assert logged.chosen(replace(REQUEST, weights="last")) == "epoch=0-step=100/epoch=0-step=100.safetensors"


def test_where_nobody_recorded_a_best_the_ways_out_are_named() -> None:
    logged = Logged()
    for name in ("best.safetensors", "last.safetensors", "epoch-3.safetensors"):
        logged.file(name)
    with pytest.raises(AmbiguousWeights) as caught:
        logged.chosen()
    assert caught.value.mend.startswith("--weights best, which takes best.safetensors; or --weights PATTERN")
    assert logged.chosen(replace(REQUEST, weights="best")) == "best.safetensors"


@pytest.mark.parametrize("weights", [None, "best", "last"])
def test_without_a_best_and_without_steps_only_a_pattern_helps(weights: str | None) -> None:
    logged = Logged()
    logged.file("a.safetensors")
    logged.file("b.safetensors")
    with pytest.raises(AmbiguousWeights) as caught:
        logged.chosen(replace(REQUEST, weights=weights))
    assert caught.value.mend.startswith("--weights PATTERN")
    assert "a.safetensors, b.safetensors" in caught.value.what


def test_two_of_one_step_are_not_told_apart() -> None:
    logged = Logged()
    for name in ("a/step-5.safetensors", "b/step-5.safetensors"):
        logged.file(name)
    with pytest.raises(AmbiguousWeights, match="nothing tells the last"):
        logged.chosen(replace(REQUEST, weights="last"))


@pytest.mark.parametrize(("direction", "wanted"), [(None, "b"), (Direction.MIN, "c")])
def test_a_metric_of_the_models_chooses(direction: Direction | None, wanted: str) -> None:
    logged = Logged()
    for name in "abcd":
        logged.file(f"{name}.safetensors")
    values = {"a": 0.5, "b": 0.9, "c": 0.1}
    sources = [
        replace(source, metrics=(("acc", values[source.path[0]]),)) if source.path[0] in values else source
        for source in logged.sources
    ]
    request = replace(REQUEST, checkpoint_metric="acc", direction=direction)
    assert choose_checkpoint(sources, request, logged.tracker).path == f"{wanted}.safetensors"


def test_a_metric_that_no_model_has_is_told_with_those_that_they_have() -> None:
    logged = Logged()
    for name in "ab":
        logged.file(f"{name}.safetensors")
    sources = [replace(source, metrics=(("loss", 1.0),)) for source in logged.sources]
    with pytest.raises(AmbiguousWeights, match="'acc': they have loss"):
        choose_checkpoint(sources, replace(REQUEST, checkpoint_metric="acc"), logged.tracker)


def test_two_ways_to_choose_are_refused() -> None:
    with pytest.raises(BadRequest, match="two ways to choose"):
        replace(REQUEST, checkpoint_metric="acc", weights="best")
