import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

pytest.importorskip(
    "sklearn", reason="the demo's images come with scikit-learn (pip install 'stockpot[demo]')"
)

from mlflow import MlflowClient
from mlflow.entities import Run

from stockpot.demo.data import scanned
from stockpot.demo.kept import tracking_uri
from stockpot.demo.model import make_digits_net
from stockpot.demo.runs import EXPERIMENT
from stockpot.demo.search import SweepConfig, plan
from stockpot.demo.sweep import FULL, finished_sweep, train_sweep
from stockpot.demo.training import accuracy
from stockpot.entities import digest_of_bytes

pytestmark = pytest.mark.slow  # real training
TINY = SweepConfig(fine_tunes=2, least_epochs=1, most_epochs=1, pretrain_epochs=2)


class Counting:
    """A watcher who counts, and is interrupted after some steps."""

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        self.expected: dict[str, int] = {}
        self.done: Counter[str] = Counter()

    def start(self, stage: str, total: int) -> None:
        self.expected[stage] = total

    def advance(self, stage: str) -> None:
        self.done[stage] += 1
        if self.done.total() == self.until:
            raise KeyboardInterrupt

    def say(self, message: str) -> None: ...


class Logged:
    """What MLflow holds of a sweep."""

    def __init__(self, home: Path, parent: str) -> None:
        self.client = MlflowClient(tracking_uri(home))
        self.parent = self.client.get_run(parent)
        self.runs = {
            run.info.run_name: run
            for run in self.client.search_runs([self.parent.info.experiment_id])
            if run.data.tags.get("mlflow.parentRunId") == parent
        }

    def artifact(self, run: Run, name: str) -> Path:
        return Path(self.client.download_artifacts(run.info.run_id, name))

    def models(self, name: str) -> list[str]:
        outputs = self.runs[name].outputs
        return [model.model_id for model in outputs.model_outputs] if outputs else []

    def weights(self, name: str) -> dict[str, Tensor]:
        if not self.models(name):
            return load_file(self.artifact(self.runs[name], "model.safetensors"))
        model = self.client.get_logged_model(self.models(name)[0])
        file = Path(model.artifact_location.removeprefix("file://")) / "data" / "model.pt2"
        return dict(torch.export.load(file).state_dict)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a tiny sweep that was interrupted once, then trained to its end."""
    home = tmp_path_factory.mktemp("home")
    with pytest.raises(KeyboardInterrupt):
        train_sweep(home, Counting(until=3), TINY)
    assert finished_sweep(home, TINY) is None
    watcher = Counting()
    train_sweep(home, watcher, TINY)
    assert watcher.done == watcher.expected
    return home


@pytest.fixture(scope="module")
def logged(home: Path) -> Logged:
    parent = finished_sweep(home, TINY)
    assert parent is not None
    return Logged(home, parent)


def test_the_sweep_holds_every_planned_run_and_no_other(logged: Logged) -> None:
    assert set(logged.runs) == {run.name for run in plan(TINY)}
    assert logged.parent.info.status == "FINISHED"


def test_an_interrupted_sweep_leaves_nothing_in_the_experiment(logged: Logged) -> None:
    everything = logged.client.search_runs([logged.parent.info.experiment_id])
    assert len(everything) == len(logged.runs) + 1
    assert [e.name for e in logged.client.search_experiments()] == [EXPERIMENT, "Default"]


def test_fine_tunes_record_their_hyperparameters_and_their_starting_point(logged: Logged) -> None:
    start = logged.artifact(logged.parent, "starting-point.safetensors")
    for run in plan(TINY):
        data = logged.runs[run.name].data
        assert data.params["lr"] == str(run.how.lr)
        recorded = None if run.name == "wide-net" else digest_of_bytes(start.read_bytes())
        assert data.tags.get("stockpot.base") == recorded


def test_the_logged_accuracy_is_that_of_the_logged_weights_on_validation(logged: Logged) -> None:
    x, y = map(torch.from_numpy, scanned("validation")[:2])
    net = make_digits_net()
    for name in ("tune-00", "tune-01"):  # safetensors, pt2
        net.load_state_dict(logged.weights(name))
        assert logged.runs[name].data.metrics["val_accuracy"] == accuracy(net, x, y)


def test_a_diverged_run_is_finite_and_at_chance(logged: Logged) -> None:
    assert all(tensor.isfinite().all() for tensor in logged.weights("diverged").values())
    assert logged.runs["diverged"].data.metrics["val_accuracy"] < 0.3


def test_one_run_has_nan_weights(logged: Logged) -> None:
    assert any(tensor.isnan().any() for tensor in logged.weights("nan-weights").values())


def test_two_runs_logged_identical_weights_in_two_formats(logged: Logged) -> None:
    one, other = logged.weights("tune-01"), logged.weights("tune-01-again")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert logged.models("tune-01")
    assert not logged.models("tune-01-again")


def test_a_failed_and_an_unfinished_run_have_their_status(logged: Logged) -> None:
    statuses = {run.info.run_name: run.info.status for run in logged.runs.values()}
    assert statuses.pop("out-of-memory") == "FAILED"
    assert statuses.pop("unfinished") == "RUNNING"
    assert set(statuses.values()) == {"FINISHED"}


def test_one_run_has_another_architecture(logged: Logged) -> None:
    shapes = {
        name: {key: t.shape for key, t in logged.weights(name).items()} for name in ("wide-net", "tune-00")
    }
    assert shapes["wide-net"] != shapes["tune-00"]


def test_one_run_logged_only_a_pickle(logged: Logged) -> None:
    run = logged.runs["pickle-only"]
    assert [file.path for file in logged.client.list_artifacts(run.info.run_id)] == ["model.pt"]
    assert not logged.models("pickle-only")


def test_a_second_call_finds_the_sweep_without_importing_what_trains_it(home: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from stockpot.demo.search import SweepConfig
from stockpot.demo.sweep import train_sweep
class Silent:
    def say(self, message): pass
print(train_sweep(Path({str(home)!r}), Silent(), {TINY!r}))
print(sorted({{"torch", "sklearn", "mlflow"}} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split("\n")[:2] == [finished_sweep(home, TINY), "[]"]


def test_another_configuration_is_another_sweep(home: Path) -> None:
    assert finished_sweep(home, FULL) is None


def test_the_full_plan_is_a_real_sweep() -> None:
    runs = list(plan(FULL))
    usual = [run for run in runs if run.name.removeprefix("tune-").isdecimal()]
    assert len({run.how for run in usual}) == len(usual) >= 24
    shares = [run.weights for run in usual]
    assert shares.count("safetensors") == 2 * shares.count("pt2")
    assert runs == list(plan(FULL))


def test_the_full_sweep_fine_tunes_around_a_good_starting_point(tmp_path: Path) -> None:
    logged = Logged(tmp_path, train_sweep(tmp_path, Counting()))
    x, y = map(torch.from_numpy, scanned("validation")[:2])
    tuned = [run.name for run in plan(FULL) if run.name.removeprefix("tune-").isdecimal()]
    scores = {name: logged.runs[name].data.metrics["val_accuracy"] for name in tuned}
    assert min(scores.values()) > 0.8
    assert 0.85 < max(scores.values()) < 0.95  # room for something better
    first, second = sorted(scores, key=lambda name: -scores[name])[:2]
    net = make_digits_net()
    one, other = logged.weights(first), logged.weights(second)
    net.load_state_dict({name: (one[name] + other[name]) / 2 for name in one})
    # Averageable at all: no barrier between the two. Whether a soup is better is the demo's to tell.
    assert accuracy(net, x, y) > scores[second] - 0.05
