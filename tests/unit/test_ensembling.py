"""Specialists that are written as one model: what it answers, against the definition, and what is refused."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import save
from tests.unit.language_kitchen import learnt
from torch import Tensor, nn

from stockpot.entities import Recall, RecallKind, Recipe, SoupReport, SoupRequest, tags
from stockpot.errors import BadCheckpoint, BadRequest, BadTask, RegistryConflict, StockpotError
from stockpot.evaluation import TorchBench
from stockpot.settings import read_settings
from stockpot.store import MemoryStore
from stockpot.testing.tiny import LABELS, LanguageTask, text_weights
from stockpot.tracking import MemoryTracker
from stockpot.watching import Lines, Silent
from stockpot.wiring import Workplace
from stockpot.workflow.ensembling import Together, write_together
from stockpot.workflow.selecting.by_posterior import BY_CACHED_PRIOR, BY_LIKELIEST, BY_POSTERIOR
from stockpot.workflow.trace import snapshot_of
from stockpot.workflow.walk import in_turn, walk

N = 40
TASK = "stockpot.testing.tiny:LanguageTask"
URI = "models:/texts@challenger"
Log = NDArray[np.float64]


class Indoors(Workplace):
    """Without MLflow and a database. `task`: in place of the request's."""

    def __init__(self, task: Any = None) -> None:
        super().__init__(read_settings())
        self.tracker = self.memory = MemoryTracker()
        self.store = MemoryStore()
        self.task = task

    def bench(self, request: SoupRequest) -> TorchBench:
        if self.task is None:
            return super().bench(request)
        return TorchBench(
            self.task, identity=("other", "1"), task_args={}, checkpoints=self.supply, device="cpu"
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ensembling")
        patch.setenv("STOCKPOT_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def walked(home: Path) -> tuple[Indoors, SoupReport]:
    """Two runs of each of three domains, and what came of them."""
    place = Indoors()
    experiment = place.memory.add_experiment("texts")
    for domain in LABELS[:3]:
        for seed in range(2):
            run = place.memory.add_run(experiment, f"{domain}-{seed}", tags={tags.DOMAIN: domain})
            content = save(text_weights(domain, seed=seed), metadata={"format": "pt"})
            place.memory.add_file(run, "model.safetensors", content)
    request = SoupRequest(
        model="texts",
        task=TASK,
        task_args={"n": str(N)},
        experiment="texts",
        methods=("greedy",),
        margin=-9.0,
    )
    report = walk(request, place, in_turn, Silent()).report
    assert home.exists()
    return place, report


@pytest.fixture
def place(walked: tuple[Indoors, SoupReport]) -> Iterator[Indoors]:
    """The task is its own again, and nothing is recalled."""
    place, _ = walked
    yield place
    place.task = None


def _tables(place: Indoors, recipes: Iterable[Recipe]) -> list[Log]:
    """Of each specialist the logarithms of what follows each token."""
    found = []
    for recipe in recipes:
        module = TorchBench(
            LanguageTask(), identity=("t", "1"), task_args={}, checkpoints=place.supply, device="cpu"
        ).module_with(recipe)
        weight = module.state_dict()["following.weight"].double()
        found.append(weight.log_softmax(1).numpy())
    return found


def _mixture(tables: Sequence[Log], prior: Sequence[float], text: Sequence[int]) -> Log:
    """Place by place, the logarithms of what may follow it: by Bayes' rule."""
    counts, said = np.array(prior), []
    for place, token in enumerate(text):
        if place:
            counts = counts * np.exp([table[text[place - 1], token] for table in tables])
            counts = counts / counts.sum()
        said.append(np.log(counts @ np.exp([table[token] for table in tables])))
    return np.stack(said)


def _written(place: Indoors, out: Path, **asked: Any) -> tuple[Together, Any]:
    made = write_together(URI, place, out, Silent(), **asked)
    with place.memory.served(out) as served:
        return made, served


def _by_domain(served: Any, split: str = "test") -> dict[str, float]:
    """The mean over each domain's texts of what it scores: the mean over tokens after the first."""
    task = LanguageTask(n=str(N))
    found: dict[str, list[float]] = {}
    for (text, length), domain in zip(task.examples(split), task.domains(split), strict=True):
        said = served(text[None].numpy())[0]
        logs = [said[p, text[p + 1]] for p in range(length - 1)]
        found.setdefault(domain, []).append(float(np.mean(logs)))
    return {domain: float(np.mean(scores)) for domain, scores in found.items()}


def test_of_a_text_of_any_domain_it_answers_what_the_definition_and_the_reports_row_say(
    walked: tuple[Indoors, SoupReport], place: Indoors, tmp_path: Path
) -> None:
    _, report = walked
    (row,) = [row for row in report.references or () if row.label == BY_POSTERIOR]
    lines: list[str] = []
    version = place.memory.version(URI)
    before = {*place.memory.runs_kept}, {*place.memory.models_kept}
    made = write_together(URI, place, tmp_path / "together", Lines(lines.append))
    assert ({*place.memory.runs_kept}, {*place.memory.models_kept}) == before
    assert place.memory.version(URI) == version
    assert lines[0] == "3 forward passes per answer, and 3 x the weights"
    assert [one.recipe for one in made.members] == [*row.recipes]
    assert [one.domains for one in made.members] == [(label,) for label in sorted(LABELS[:3])]
    with place.memory.served(tmp_path / "together") as served:
        ids = np.random.default_rng(0).integers(0, 16, (5, 7))
        tables = _tables(place, row.recipes)
        expected = np.stack([_mixture(tables, [1 / 3] * 3, text) for text in ids.tolist()])
        assert served(ids) == pytest.approx(expected, abs=1e-5)
        scores = {domain: cell.score for domain, cell in (row.domains or {}).items()}
        assert _by_domain(served) == pytest.approx(scores, abs=1e-5)
    assert {one.name for one in tmp_path.iterdir()} == {"together"}


def test_of_one_domain_it_begins_with_the_prior_that_was_learnt_there(
    walked: tuple[Indoors, SoupReport], place: Indoors, tmp_path: Path
) -> None:
    _, report = walked
    rows = {row.label: row for row in report.references or ()}
    recipes, task = rows[BY_POSTERIOR].recipes, LanguageTask(n=str(N))
    domain = LABELS[0]
    texts = [i for i, label in enumerate(task.domains("validation")) if label == domain]
    positions = [
        [
            np.array([table[a, b] for a, b in zip(text[: n - 1].tolist(), text[1:n].tolist(), strict=True)])
            for text, n in task.examples("validation")
        ]
        for table in _tables(place, recipes)
    ]
    prior = learnt(positions, texts)
    made, served = _written(place, tmp_path / "all", domain=domain)
    assert [one.prior for one in made.members] == pytest.approx(prior, abs=1e-9)
    told = rows[BY_CACHED_PRIOR].domains or {}
    assert _by_domain(served)[domain] == pytest.approx(told[domain].score, abs=1e-5)
    two, served = _written(place, tmp_path / "two", domain=domain, top=2)
    kept = np.sort(prior)[1:]
    assert sorted(one.prior for one in two.members) == pytest.approx(kept / kept.sum(), abs=1e-9)
    assert [one.recipe for one in two.members] == [recipes[i] for i in np.flatnonzero(prior > prior.min())]
    told = rows[BY_LIKELIEST].domains or {}
    assert _by_domain(served)[domain] == pytest.approx(told[domain].score, abs=1e-5)
    assert (two.weights, made.weights) == (2 * made.weights // 3, made.weights)
    one, _ = _written(place, tmp_path / "one", domain=domain, top=1)
    (alone,) = one.members
    assert (alone.domains, alone.prior) == ((domain,), 1.0)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "top without a domain": ({"top": 2}, "add --domain"),
    "more than there are": ({"top": 4, "domain": LABELS[0]}, "1 to 3"),
    "none": ({"top": 0, "domain": LABELS[0]}, "1 to 3"),
    "an unknown domain": ({"domain": "clouds"}, LABELS[0]),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(place: Indoors, tmp_path: Path, why: str) -> None:
    asked, mend = REFUSED[why]
    with pytest.raises(BadRequest) as told:
        _written(place, tmp_path / "together", **asked)
    assert mend in told.value.mend
    assert not [*tmp_path.iterdir()]


class OnItsDevice(LanguageTask):
    """Sends tokens to where the model's first parameter is, as many do."""

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, lengths = batch
        return super().predict(model, (tokens.to(next(model.parameters()).device), lengths))


def test_a_folder_that_holds_something_is_left_as_it_is(
    place: Indoors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for out, why in (
        (tmp_path, "not empty"),
        (tmp_path / "mine", "no folder"),
        (tmp_path / "link", "no folder"),
    ):
        with pytest.raises(BadRequest, match=why):
            _written(place, out)
    with pytest.raises(BadRequest, match="cannot be written"):
        _written(place, tmp_path / "no" / "where")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    place.task = OnItsDevice(n=str(N))
    _written(place, Path())
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_version_whose_report_has_no_such_row_says_why(
    walked: tuple[Indoors, SoupReport], place: Indoors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, report = walked
    version, snapshot = snapshot_of(URI, place.tracker)
    note = "no row for specialists together: the task gives no log_likelihood(outputs, batch)"
    for changed, why in (
        (replace(report, mixture=None, references=None), "tells of no domains"),
        (replace(report, references=(), notes=(note,)), "gives no log_likelihood"),
        (replace(report, references=()), "does not tell of two"),
    ):
        other = replace(snapshot, report=changed)
        monkeypatch.setattr("stockpot.workflow.ensembling.snapshot_of", lambda *_, s=other: (version, s))
        with pytest.raises(BadRequest, match=why):
            _written(place, tmp_path / "together")
    assert not [*tmp_path.iterdir()]


class Earlier(LanguageTask):
    """Asks how likely the token before is, not the one behind."""

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits: Tensor = model(batch[0])[:, 1:]
        return logits

    def log_likelihood(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, lengths = batch
        return super().log_likelihood(outputs, (tokens.roll(1, 1), lengths))


class Pooled(LanguageTask):
    """Its model answers once for each text."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.following = nn.Embedding(16, 16)

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.following(tokens).mean(dim=1)
            return found

    def model(self) -> nn.Module:
        return self.Mean()


class Floats(LanguageTask):
    """Its inputs are no ids."""

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[0].float()


OTHERS: dict[type[LanguageTask], tuple[type[StockpotError], str]] = {
    Earlier: (RegistryConflict, "answers otherwise"),
    Pooled: (BadTask, "logits"),
    Floats: (BadTask, "ids"),
}


@pytest.mark.parametrize("task", OTHERS)
def test_a_model_of_something_else_is_refused_and_leaves_nothing(
    place: Indoors, tmp_path: Path, task: type[LanguageTask]
) -> None:
    kind, why = OTHERS[task]
    place.task = task(n=str(N))
    with pytest.raises(kind, match=why):
        _written(place, tmp_path / "together")
    assert not [*tmp_path.iterdir()]


def test_what_answers_by_another_prior_than_it_should_is_not_kept(
    place: Indoors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = MemoryTracker.package_together

    def other(self: MemoryTracker, models: Any, prior: Sequence[float], into: Path) -> None:
        write(self, models, [*prior[1:], prior[0]], into)

    monkeypatch.setattr(MemoryTracker, "package_together", other)
    with pytest.raises(RegistryConflict, match="answers otherwise"):
        _written(place, tmp_path / "together", domain=LABELS[0])
    assert not [*tmp_path.iterdir()]


def test_weights_that_were_recalled_or_are_gone_are_named(
    walked: tuple[Indoors, SoupReport], place: Indoors, tmp_path: Path
) -> None:
    _, report = walked
    (row,) = [row for row in report.references or () if row.label == BY_POSTERIOR]
    point = next(one for one in report.candidates if one.checkpoint == row.recipes[0].checkpoints[0])
    word = Recall(RecallKind.RUN, point.run_id, "its licence", "me")
    place.store.append_recall(word)
    with pytest.raises(BadCheckpoint) as told:
        _written(place, tmp_path / "together")
    place.store.append_recall(replace(word, withdrawn=True))
    assert point.run_name in told.value.faults[0]
    assert "its licence" in told.value.faults[0]
    place.memory.delete_run(point.run_id)
    with pytest.raises(BadCheckpoint) as told:
        _written(place, tmp_path / "together")
    place.memory.runs_kept[point.run_id].deleted = False
    assert f"{point.run_name} ({point.run_id}): it is gone" in told.value.faults
    assert not [*tmp_path.iterdir()]
