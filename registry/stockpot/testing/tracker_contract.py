"""What every tracker promises, as tests.

Subclass it in a test module, with a fixture that gives the tests a backend. One backend may serve all
of them: each test makes an experiment and a model name of its own::

    class TestMyTracker(TrackerContract):
        @pytest.fixture
        def backend(self) -> Backend:
            return MyBackend()
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stockpot.entities import (
    Publication,
    Recipe,
    Registration,
    RegistrationState,
    Run,
    Schema,
    SweepSelector,
    WeightsFormat,
    digest_of_bytes,
)
from stockpot.errors import (
    BadCheckpoint,
    BadModelName,
    BadRequest,
    OtherLibrary,
    TrackingError,
    UnknownSweep,
)
from stockpot.ports import Tracker
from stockpot.testing.registry_contract import RegistryContract
from stockpot.testing.tracker_backend import (
    Backend,
    PlantedSweep,
    child,
    fresh,
    plant,
    publication_of,
    publish,
    registered,
)


class TrackerContract(RegistryContract):
    """Promises of `stockpot.ports.Tracker`."""

    @pytest.fixture
    def tracker(self, backend: Backend) -> Tracker:
        return backend.tracker

    @pytest.fixture
    def sweep(self, backend: Backend) -> PlantedSweep:
        """Three finished children of one parent."""
        return plant(backend, 3)

    @pytest.fixture
    def publication(self, backend: Backend, sweep: PlantedSweep) -> Publication:
        """A soup of the sweep's first two children, of a model name of its own that is not registered."""
        return publication_of(backend, sweep)

    def test_it_tells_where_runs_and_versions_are(self, tracker: Tracker) -> None:
        told = " ".join(tracker.servers())
        assert "runs" in told
        assert "versions" in told

    def test_the_children_of_a_parent_are_listed_in_starting_order_without_the_parent(
        self, tracker: Tracker, sweep: PlantedSweep
    ) -> None:
        assert [run.run_id for run in tracker.runs(sweep.selector)] == list(sweep.children)

    def test_a_run_carries_what_was_logged(self, backend: Backend) -> None:
        experiment_id = backend.add_experiment(fresh("sweep"))
        parent = backend.add_run(experiment_id, "parent")
        backend.add_run(
            experiment_id,
            "child",
            parent=parent,
            status="FAILED",
            params={"lr": "0.1"},
            metrics={"accuracy": 0.5},
            tags={"study": "it's"},
        )
        (run,) = backend.tracker.runs(SweepSelector(parent_run_id=parent))
        assert (run.name, run.status, run.experiment_id) == ("child", "FAILED", experiment_id)
        assert (run.params, run.metrics, run.tags["study"]) == ({"lr": "0.1"}, {"accuracy": 0.5}, "it's")

    def test_runs_below_a_parent_are_found_at_any_depth_and_in_other_experiments(
        self, backend: Backend, sweep: PlantedSweep
    ) -> None:
        elsewhere = backend.add_experiment(fresh("elsewhere"))
        aside = backend.add_run(elsewhere, "aside", parent=sweep.parent)
        group = backend.add_run(sweep.experiment_id, "group", parent=sweep.children[0])
        leaves = {
            backend.add_run(place, "leaf", parent=group, params={"lr": "1"})
            for place in (elsewhere, sweep.experiment_id)
        }
        backend.add_run(elsewhere, "another's", parent=backend.add_run(elsewhere, "another"))
        found = [run.run_id for run in backend.tracker.runs(sweep.selector)]
        assert len(found) == len(set(found))
        assert set(found) == {*sweep.children, aside, group, *leaves}
        filtered = backend.tracker.runs(replace(sweep.selector, filter="params.lr = '1'"))
        assert {run.run_id for run in filtered} == leaves

    def test_the_parent_of_a_sweep_is_told_as_it_is_now(self, backend: Backend, sweep: PlantedSweep) -> None:
        running = backend.add_run(sweep.experiment_id, "running", status="RUNNING")
        for run_id, status in ((sweep.parent, "FINISHED"), (running, "RUNNING")):
            parent = backend.tracker.parent(SweepSelector(parent_run_id=run_id))
            assert parent is not None
            assert (parent.run_id, parent.status) == (run_id, status)
        assert backend.tracker.parent(SweepSelector(experiment=sweep.experiment)) is None
        with pytest.raises(UnknownSweep):
            backend.tracker.parent(SweepSelector(parent_run_id="0" * 32))

    def test_experiments_are_listed_and_their_runs_selected(
        self, backend: Backend, tracker: Tracker, sweep: PlantedSweep, publication: Publication
    ) -> None:
        listed = {one.experiment_id: one.name for one in tracker.experiments()}
        assert listed[sweep.experiment_id] == sweep.experiment
        assert 0 < tracker.born() == min(one.created for one in tracker.experiments())
        tracker.create_run(publication)  # our own
        running = backend.add_run(sweep.experiment_id, "running", status="RUNNING", tags={"study": "lr"})
        everywhere = [*listed]

        def selected(**conditions: Any) -> list[str]:
            return [run.run_id for run in tracker.select_runs([sweep.experiment_id], **conditions)]

        every = [sweep.parent, *sweep.children, running]
        assert selected() == every
        ended = {run.run_id: run.ended for run in tracker.select_runs([sweep.experiment_id])}
        last = max(end for end in ended.values() if end is not None)
        assert selected(ended_since=last) == [run_id for run_id, end in ended.items() if end == last]
        assert [run_id for run_id in selected(ended_since=0) if run_id != running] == every[:-1]
        assert selected(ended_since=last + 1) == []
        assert selected(unfinished=True) == selected(tag="study") == [running]
        assert selected(run_ids=[sweep.children[0], running], filter="tags.study = 'lr'") == [running]
        assert selected(run_ids=[]) == []
        assert [*tracker.select_runs([])] == []
        found = tracker.select_runs(everywhere, run_ids=sweep.children, filter="params.seed = '1'")
        assert [run.run_id for run in found] == [sweep.children[1]]
        with pytest.raises(BadRequest, match="filter 'nonsense'"):
            selected(filter="nonsense")

    def test_a_run_is_tagged_and_its_tag_replaced(self, tracker: Tracker, sweep: PlantedSweep) -> None:
        for value in ("now", '{"rule": "birds"}'):
            tracker.tag_run(sweep.parent, "stockpot.soup", value)
            (found,) = tracker.select_runs([sweep.experiment_id], tag="stockpot.soup")
            assert (found.run_id, found.tags["stockpot.soup"]) == (sweep.parent, value)
        with pytest.raises(UnknownSweep, match="0" * 32):
            tracker.tag_run("0" * 32, "stockpot.soup", "now")

    def test_an_experiment_is_found_by_a_name_with_quotes(self, backend: Backend) -> None:
        name = fresh("""it's a "sweep" """)
        run = backend.add_run(backend.add_experiment(name), "child")
        assert [found.run_id for found in backend.tracker.runs(SweepSelector(experiment=name))] == [run]

    def test_a_filter_narrows_an_experiment_and_a_parent(self, tracker: Tracker, sweep: PlantedSweep) -> None:
        condition = "params.seed = '1' and metrics.accuracy > 0.05"
        by_parent = tracker.runs(replace(sweep.selector, filter=condition))
        by_name = tracker.runs(SweepSelector(experiment=sweep.experiment, filter=condition))
        assert [run.run_id for run in by_parent] == [run.run_id for run in by_name] == [sweep.children[1]]

    @pytest.mark.parametrize(
        "selector", [SweepSelector(parent_run_id="0" * 32), SweepSelector(experiment="nowhere")]
    )
    def test_an_unknown_sweep_is_named_with_its_mend(self, tracker: Tracker, selector: SweepSelector) -> None:
        with pytest.raises(UnknownSweep, match=selector.parent_run_id or selector.experiment) as caught:
            list(tracker.runs(selector))
        assert caught.value.mend

    def test_a_refused_filter_is_the_requests_fault(self, tracker: Tracker, sweep: PlantedSweep) -> None:
        with pytest.raises(BadRequest, match="what = is = this") as caught:
            list(tracker.runs(replace(sweep.selector, filter="what = is = this")))
        assert not isinstance(caught.value, UnknownSweep)

    def test_our_own_runs_and_models_never_come_back(
        self, backend: Backend, sweep: PlantedSweep, publication: Publication
    ) -> None:
        tracker = backend.tracker
        run_id = publish(tracker, publication)
        assert backend.logged(run_id).parent == sweep.parent
        runs = list(tracker.runs(sweep.selector))
        assert [run.run_id for run in runs] == list(sweep.children)
        assert {source.path for source in tracker.weights(runs[0])} == {"model.safetensors"}

    def test_weights_are_found_in_folders_and_in_models(self, backend: Backend, tmp_path: Path) -> None:
        run = child(backend)
        backend.add_file(run.run_id, "final.safetensors", b"one")
        backend.add_file(run.run_id, "check points/step 10/last.ckpt", b"pickle")
        backend.add_file(run.run_id, "readme.txt", b"none")
        exported = backend.add_model(run.run_id, "exported", {"MLmodel": b"{}", "data/model.pt2": b"three"})
        backend.add_model(run.run_id, "elsewhere", {})
        pickled = backend.add_model(run.run_id, "pickled", {"MLmodel": b"{}", "data/model.pth": b"four"})
        found = backend.tracker.weights(run)
        assert [(source.path, source.format, source.model_id, source.size) for source in found] == [
            ("check points/step 10/last.ckpt", WeightsFormat.TORCH, None, 6),
            ("exported/data/model.pt2", WeightsFormat.PT2, exported, 5),
            ("final.safetensors", WeightsFormat.SAFETENSORS, None, 3),
            ("pickled/data/model.pth", WeightsFormat.PICKLE, pickled, 4),
        ]
        fetched = [backend.tracker.fetch(source, tmp_path) for source in found]
        assert [file.read_bytes() for file in fetched] == [b"pickle", b"three", b"one", b"four"]
        assert all(file.parent == tmp_path and not file.is_symlink() for file in fetched)

    def test_weights_that_were_cut_are_one_source_that_is_fetched_whole(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        run = child(backend)
        shards = {"m-00001-of-00002.safetensors": b"one", "m-00002-of-00002.safetensors": b"three"}
        whole = {**shards, "m.safetensors.index.json": b"{}"}
        model_id = backend.add_model(run.run_id, "cut", {f"model/{n}": c for n, c in whole.items()})
        for name, content in shards.items():  # and once without an index, in the run
            backend.add_file(run.run_id, f"step/{name}", content)
        model, bare = backend.tracker.weights(run)
        names = ("model/m.safetensors.index.json", "step/m.safetensors.index.json")
        assert [(s.path, s.inner, s.size, s.model_id) for s in (model, bare)] == [
            (f"cut/{names[0]}", names[0], 10, model_id),
            (names[1], names[1], 8, None),
        ]
        assert [part.name for part in model.parts] == sorted(whole)
        assert [part.name for part in bare.parts] == sorted(shards)
        for source, files in ((model, whole), (bare, shards)):
            folder = tmp_path / (source.model_id or "bare")
            folder.mkdir()
            assert backend.tracker.fetch(source, folder) == folder / "m.safetensors.index.json"
            assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
            heads = [backend.tracker.head(source.beside(part), 2) for part in source.parts]
            assert heads == [files[part.name][:2] for part in source.parts]

    def test_companions_are_the_files_beside_the_weights(self, backend: Backend, tmp_path: Path) -> None:
        run = child(backend)
        backend.add_file(run.run_id, "step 1/model.safetensors", b"one")
        backend.add_file(run.run_id, "step 1/config.json", b"{}")
        backend.add_file(run.run_id, "step 1/deeper/more.txt", b"deeper")
        backend.add_file(run.run_id, "step 2/config.json", b"other")
        inside = {"MLmodel": b"flavors:", "model/model.safetensors": b"two", "components/t.json": b"[]"}
        backend.add_model(run.run_id, "logged", inside)
        model, bare = backend.tracker.weights(run)
        assert model.inner == "model/model.safetensors"
        found = [{file.inner: file for file in backend.tracker.companions(s)} for s in (model, bare)]
        assert [sorted(files) for files in found] == [
            ["MLmodel", "components/t.json"],
            ["step 1/config.json"],
        ]
        for name, files in (("components/t.json", found[0]), ("step 1/config.json", found[1])):
            file = backend.tracker.fetch(files[name], tmp_path)
            assert files[name].size == len(file.read_bytes()) == 2
            assert backend.tracker.head(files[name], 1) == file.read_bytes()[:1]

    def test_companions_of_sentence_transformers_are_its_modules_too(self, backend: Backend) -> None:
        run = child(backend)
        for name in ("model.safetensors", "modules.json", "1_Pooling/config.json", "other/config.json"):
            backend.add_file(run.run_id, f"best/{name}", b"{}")
        (source,) = backend.tracker.weights(run)
        found = sorted(file.inner for file in backend.tracker.companions(source))
        assert found == ["best/1_Pooling/config.json", "best/modules.json"]

    def test_models_of_other_libraries_are_no_weights_and_said_to_be_such(self, backend: Backend) -> None:
        card = b"flavors:\n  python_function: {loader_module: mlflow.sklearn}\n  sklearn: {code: null}\n"
        run = child(backend)
        backend.add_model(run.run_id, "forest", {"MLmodel": card, "model.pkl": b"pickle"})
        with pytest.raises(OtherLibrary, match="sklearn") as caught:
            backend.tracker.weights(run)
        assert not caught.value.mend, "nothing is wrong with it"
        backend.add_model(run.run_id, "unknown", {"MLmodel": b"flavors: &a [*a]"})
        assert backend.tracker.weights(run) == (), "of what cannot be read nothing is said"
        backend.add_file(run.run_id, "last.ckpt", b"pickle")
        assert [source.path for source in backend.tracker.weights(run)] == ["last.ckpt"]
        backend.add_file(run.run_id, "model.safetensors", b"one")
        assert "model.safetensors" in {source.path for source in backend.tracker.weights(run)}

    def test_what_an_older_mlflow_logged_of_another_library_is_known_by_the_runs_tag(
        self, backend: Backend
    ) -> None:
        told = [{"artifact_path": "model", "flavors": {"python_function": {}, "xgboost": {"data": "m.ubj"}}}]
        tags = {"mlflow.log-model.history": json.dumps(told)}
        experiment_id = backend.add_experiment(fresh("sweep"))
        parent = backend.add_run(experiment_id, "parent")
        run_id = backend.add_run(experiment_id, "child", parent=parent, tags=tags)
        backend.add_file(run_id, "model/model.pkl", b"pickle")
        (run,) = backend.tracker.runs(SweepSelector(parent_run_id=parent))
        with pytest.raises(OtherLibrary, match="xgboost"):
            backend.tracker.weights(run)

    @pytest.mark.parametrize("listed", [2, 4])
    def test_a_file_that_is_not_as_long_as_it_was_listed_concerns_its_run_alone(
        self, backend: Backend, tmp_path: Path, listed: int
    ) -> None:
        run = child(backend)
        backend.add_file(run.run_id, "model.safetensors", b"one")
        (source,) = backend.tracker.weights(run)
        with pytest.raises(BadCheckpoint, match="listed") as caught:
            backend.tracker.fetch(replace(source, size=listed), tmp_path)
        assert caught.value.mend
        assert backend.tracker.fetch(replace(source, size=None), tmp_path).read_bytes() == b"one"

    @pytest.mark.parametrize("length", [1, 8, 9, 100])
    def test_the_head_of_a_file_is_its_first_bytes(self, backend: Backend, length: int) -> None:
        run = child(backend)
        backend.add_file(run.run_id, "check points/model.safetensors", b"nine byte")
        backend.add_model(run.run_id, "logged", {"data/model.safetensors": b"nine byte"})
        for source in backend.tracker.weights(run):
            assert backend.tracker.head(source, length) == b"nine byte"[:length]

    def test_weights_are_found_and_read_from_several_threads_at_once(
        self, backend: Backend, sweep: PlantedSweep, tmp_path: Path
    ) -> None:
        tracker = backend.tracker
        runs = list(tracker.runs(sweep.selector)) * 3
        folders = [tmp_path / str(place) for place in range(len(runs))]

        def read(run: Run, folder: Path) -> tuple[bytes | None, bytes]:
            (source,) = tracker.weights(run)
            folder.mkdir()
            return tracker.head(source, 7), tracker.fetch(source, folder).read_bytes()

        with ThreadPoolExecutor(len(runs)) as pool:
            read_at_once = list(pool.map(read, runs, folders))
        assert read_at_once == [(b"weights", f"weights {n}".encode()) for n in [0, 1, 2] * 3]

    def test_models_of_one_name_are_told_apart(self, backend: Backend) -> None:
        run = child(backend)
        ids = [backend.add_model(run.run_id, "model", {"data/model.pt2": b"x"}) for _ in range(2)]
        found = backend.tracker.weights(run)
        assert {source.path for source in found} == {f"model/{model_id}/data/model.pt2" for model_id in ids}

    def test_a_run_without_weights_has_none(self, backend: Backend) -> None:
        run = child(backend)
        assert backend.tracker.weights(run) == ()

    @pytest.mark.parametrize("versions", [0, 1], ids=["new model", "known model"])
    def test_proofs_of_permission_leave_nothing_behind_also_where_several_are_made_at_once(
        self, backend: Backend, sweep: PlantedSweep, publication: Publication, versions: int
    ) -> None:
        for _ in range(versions):
            registered(backend.tracker, publication)
        before = backend.everything(sweep.experiment_id)
        with ThreadPoolExecutor(8) as pool:
            proofs = [
                pool.submit(backend.tracker.prove_writable, publication.model, sweep.experiment_id)
                for _ in range(24)
            ]
        assert [proof.exception() for proof in proofs] == [None] * 24
        assert backend.everything(sweep.experiment_id) == before

    def test_a_refused_proof_leaves_nothing_behind(self, backend: Backend, sweep: PlantedSweep) -> None:
        before = backend.everything(sweep.experiment_id)
        with pytest.raises(BadModelName):
            backend.tracker.prove_writable("a/b", sweep.experiment_id)
        with pytest.raises(TrackingError):
            backend.tracker.prove_writable(fresh("new model"), "987654321")
        assert backend.everything(sweep.experiment_id) == before

    def test_first_versions_that_are_created_at_once_find_or_make_their_model(
        self, backend: Backend, publication: Publication
    ) -> None:
        tracker = backend.tracker
        run_id = tracker.create_run(publication)
        model_id = tracker.create_model(run_id, publication)
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(tracker.create_version, run_id, model_id, publication) for _ in range(4)]
        assert sorted(version.result().version for version in made) == ["1", "2", "3", "4"]

    @pytest.mark.parametrize("name", ["a/b", "a:b", " "])
    def test_a_refused_model_name_is_told(self, tracker: Tracker, sweep: PlantedSweep, name: str) -> None:
        with pytest.raises(BadModelName):
            tracker.prove_writable(name, sweep.experiment_id)

    def test_what_is_created_is_found_at_once_and_not_before(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        assert tracker.find_run(publication) is None
        run_id = tracker.create_run(publication)
        assert tracker.find_run(publication) == run_id

        candidate = publication.ingredients[0]
        assert tracker.find_ingredient_model(candidate) is None
        ingredient = tracker.create_ingredient_model(candidate)
        assert tracker.find_ingredient_model(candidate) == ingredient

        assert tracker.find_model(run_id, publication) is None
        model_id = tracker.create_model(run_id, publication)
        assert tracker.find_model(run_id, publication) == model_id

        recipe = publication.recipe.digest
        assert tracker.reconcile(publication.model, recipe) is None
        version = tracker.create_version(run_id, model_id, publication)
        assert tracker.reconcile(publication.model, recipe) == version
        assert (version.run_id, version.model_id, version.version) == (run_id, model_id, "1")

    def test_another_model_name_or_recipe_is_another_soup(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        version = registered(tracker, publication)
        recipe = Recipe.mean([digest_of_bytes(b"x"), digest_of_bytes(b"y")])
        assert tracker.find_model(version.run_id or "", replace(publication, recipe=recipe)) is None
        for other in (replace(publication, model="another"), replace(publication, recipe=recipe)):
            assert tracker.find_run(other) is None
            assert tracker.reconcile(other.model, other.recipe.digest) is None

    def test_the_lowest_of_several_versions_is_the_soups_and_the_others_say_so(
        self, backend: Backend, publication: Publication
    ) -> None:
        tracker = backend.tracker
        first, *others = [registered(tracker, publication) for _ in range(11)]
        for _ in range(2):
            assert tracker.reconcile(publication.model, publication.recipe.digest) == first
        found = [
            tracker.version(version.uri).tags.get("stockpot.duplicate_of") for version in (first, *others)
        ]
        assert found == [None, *["1"] * 10]
        assert len(backend.versions(publication.model)) == 11

    def test_the_model_that_holds_the_weights_stands_for_its_ingredient(
        self, backend: Backend, publication: Publication
    ) -> None:
        run = publication.ingredients[0].run
        model_id = backend.add_model(run.run_id, "exported", {"data/model.pt2": b"weights"})
        source = next(s for s in backend.tracker.weights(run) if s.model_id)
        candidate = replace(publication.ingredients[0], source=source)
        assert backend.tracker.find_ingredient_model(candidate) == model_id

    def test_a_recorded_run_has_its_lineage_numbers_and_files(
        self, backend: Backend, sweep: PlantedSweep, publication: Publication
    ) -> None:
        tracker = backend.tracker
        run_id = tracker.create_run(publication)
        assert backend.logged(run_id).status == "RUNNING"
        ingredients = [tracker.create_ingredient_model(candidate) for candidate in publication.ingredients]
        model_id = tracker.create_model(run_id, publication)
        tracker.record(run_id, model_id, ingredients, publication)
        logged = backend.logged(run_id)
        assert (logged.name, logged.status, logged.parent) == (publication.name, "FINISHED", sweep.parent)
        assert (logged.inputs, logged.outputs) == (sorted(ingredients), [model_id])
        assert logged.params == publication.params
        assert sorted(logged.metrics) == [("score.test", 0.75), ("score.validation", 0.8)]
        assert logged.datasets == ["test", "validation"]
        assert logged.files == ["plots/figure.png", "stockpot.json"]
        assert publication.tags.items() <= logged.tags.items()

    def test_a_run_is_failed_until_it_is_recorded(self, backend: Backend, publication: Publication) -> None:
        run_id = backend.tracker.create_run(publication)
        for _ in range(2):
            backend.tracker.fail(run_id)
            assert backend.logged(run_id).status == "FAILED"
        assert backend.tracker.find_run(publication) == run_id
        assert publish(backend.tracker, publication) == run_id
        assert backend.logged(run_id).status == "FINISHED"

    def test_recording_again_leaves_the_same(self, backend: Backend, publication: Publication) -> None:
        run_id = publish(backend.tracker, publication)
        before = backend.logged(run_id)
        assert publish(backend.tracker, publication) == run_id
        assert backend.logged(run_id) == before

    def test_what_is_uploaded_comes_back(
        self, tracker: Tracker, publication: Publication, tmp_path: Path
    ) -> None:
        model_id = tracker.create_model(tracker.create_run(publication), publication)
        package = tmp_path / "package"
        (package / "data").mkdir(parents=True)
        (package / "model.safetensors").write_bytes(b"weights")
        (package / "data" / "model.pt2").write_bytes(b"graph")
        for _ in range(2):
            tracker.upload(model_id, package)
        folder = tracker.download(model_id, tmp_path / "returned")
        assert (folder / "model.safetensors").read_bytes() == b"weights"
        assert tracker.read_file(model_id, "data/model.pt2") == b"graph"

    @pytest.mark.parametrize("path", ["nothing.json", "no/such/folder.json"])
    def test_a_file_that_is_not_there_is_the_requests_fault(
        self, tracker: Tracker, publication: Publication, path: str
    ) -> None:
        model_id = tracker.create_model(tracker.create_run(publication), publication)
        with pytest.raises(BadRequest, match=path):
            tracker.read_file(model_id, path)

    def test_a_package_holds_the_canonical_file_byte_for_byte(
        self, tracker: Tracker, publication: Publication, tmp_path: Path
    ) -> None:
        torch = pytest.importorskip("torch")
        safetensors = pytest.importorskip("safetensors.torch")
        module = torch.nn.Linear(4, 2)
        weights = tmp_path / "canonical"
        safetensors.save_file(module.state_dict(), weights, metadata={"format": "pt"})
        packaged = tracker.package(
            module,
            weights,
            torch.rand(3, 4),
            tmp_path / "package",
            model_id=tracker.create_model(tracker.create_run(publication), publication),
            like=publication.ingredients[0],
            architecture=("nowhere:Task", {}),
        )
        assert packaged.kind == "pt2"
        assert (tmp_path / "package" / "model.safetensors").read_bytes() == weights.read_bytes()

    def test_language_models_that_are_packaged_together_answer_by_their_posterior(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        torch = pytest.importorskip("torch")
        safetensors = pytest.importorskip("safetensors.torch")
        from stockpot.testing.tiny import Bigrams

        ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
        modules = [Bigrams().eval() for _ in range(2)]
        weights = [tmp_path / "first", tmp_path / "second"]
        for module, file in zip(modules, weights, strict=True):
            safetensors.save_file(module.state_dict(), file, metadata={"format": "pt"})
        prior, folder = (0.9, 0.1), tmp_path / "together"
        models = zip(modules, (ids, ids), weights, strict=True)
        tracker.package_together(models, prior, folder)
        with tracker.served(folder) as served:
            found, shorter = served(ids.numpy()), served(ids[:1, :2].numpy())
        assert found.dtype == "float32"
        follow = [module.following.weight.detach().softmax(1) for module in modules]
        for said, text in zip(found, ids.tolist(), strict=True):
            counts = torch.tensor(prior)  # of the first token nobody says how likely it is
            for place, token in enumerate(text):
                if place:
                    counts = counts * torch.stack([each[text[place - 1], token] for each in follow])
                    counts = counts / counts.sum()
                likely = counts[0] * follow[0][token] + counts[1] * follow[1][token]
                assert said[place] == pytest.approx(likely.log().numpy(), abs=1e-4)
        assert shorter == pytest.approx(found[:1, :2], abs=1e-4)

    def test_a_version_is_found_by_number_and_by_alias(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        version = registered(tracker, publication)
        tracker.set_alias(version.name, "challenger", version.version)
        by_number = tracker.version(version.uri)
        assert by_number == tracker.version(f"models:/{version.name}@challenger")
        assert by_number.aliases == ("challenger",)
        assert by_number.tags["stockpot.recipe"] == publication.recipe.digest
        assert by_number.tags["stockpot.alias"] == "challenger"
        found = tracker.reconcile(publication.model, publication.recipe.digest)
        assert found == by_number

    def test_an_alias_moves(self, tracker: Tracker, publication: Publication) -> None:
        first, second = registered(tracker, publication), registered(tracker, publication)
        for version in (first, second):
            tracker.set_alias(version.name, "challenger", version.version)
        assert tracker.version(f"models:/{first.name}@challenger").version == second.version
        assert tracker.version(first.uri).aliases == ()
        assert tracker.version(first.uri).tags["stockpot.alias"] == "challenger"

    def test_a_version_keeps_in_its_tag_every_alias_that_it_was_given(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        version = registered(tracker, publication)
        assert version.given == frozenset()
        for alias in ("challenger-b", "challenger-a", "challenger-b"):
            tracker.set_alias(version.name, alias, version.version)
        found = tracker.version(version.uri)
        assert found.aliases == ("challenger-a", "challenger-b")
        assert found.tags["stockpot.alias"] == "challenger-a,challenger-b"
        assert found.given == {"challenger-a", "challenger-b"}

    def test_an_alias_that_is_pointed_at_a_version_leaves_its_tags(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        first, second = registered(tracker, publication), registered(tracker, publication)
        tracker.set_alias(first.name, "challenger", first.version)
        for version in (first, second, first):
            tracker.point_alias(version.name, "champion", version.version)
            assert tracker.version(f"models:/{version.name}@champion").version == version.version
        assert tracker.version(first.uri).aliases == ("challenger", "champion")
        assert tracker.version(first.uri).tags["stockpot.alias"] == "challenger"
        assert "stockpot.alias" not in tracker.version(second.uri).tags
        with pytest.raises(BadRequest):
            tracker.point_alias(first.name, "champion", "77")
        assert tracker.version(f"models:/{first.name}@champion").version == first.version

    def test_the_signature_of_a_version_is_told_in_one_way_whoever_wrote_its_card(
        self, tracker: Tracker, publication: Publication, tmp_path: Path
    ) -> None:
        cards = [
            'signature:\n  inputs: \'[{"type": "tensor", "shape": [-1, 8]}]\'\n  outputs: null\n',
            'signature: {inputs: \'[{"shape": [-1,8], "type": "tensor"}]\'}\n',
            "flavors: {python_function: {}, pytorch: {}}\n",
            "signature: {inputs: '[{'}\n",
            "flavors: {\n",
        ]
        versions = []
        for card in cards:
            version = registered(tracker, publication)
            (tmp_path / "MLmodel").write_text(card)
            tracker.upload(version.model_id or "", tmp_path)
            versions.append(version)
        first, second, third = map(tracker.schema, versions[:3])
        assert first == second == Schema('[{"shape":[-1,8],"type":"tensor"}]', None)
        assert third is None
        assert tracker.schema(registered(tracker, publication)) is None
        assert [tracker.flavours(one) for one in versions[1:3]] == [(), ("python_function", "pytorch")]
        assert tracker.flavours(registered(tracker, publication)) == ()
        with pytest.raises(BadRequest, match="MLmodel cannot be read"):
            tracker.flavours(versions[4])
        with pytest.raises(BadRequest, match="MLmodel cannot be read"):
            tracker.schema(versions[3])

    def test_what_the_card_of_a_version_names_is_loaded_of_it(
        self, tracker: Tracker, publication: Publication, tmp_path: Path
    ) -> None:
        card = (
            "flavors:\n"
            "  python_function:\n"
            "    python_model: python_model.pkl\n"
            "    artifacts: {weights: {path: artifacts/w.safetensors, uri: stray.pt}}\n"
            "  transformers: {model_binary: x/../model, components: [tokenizer]}\n"
            "saved: {as: other.pt}\n"
        )
        files = (
            "python_model.pkl",
            "artifacts/w.safetensors",
            "model/a/adapter_model.bin",
            "tokenizer/t.json",
        )
        for path in (*files, "stray.pt", "other.pt", "models/x.pt"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(b"content")
        (tmp_path / "MLmodel").write_text(card)
        version = registered(tracker, publication)
        assert tracker.loaded(version) == ()
        tracker.upload(version.model_id or "", tmp_path)
        assert tracker.loaded(version) == tuple(sorted(files))
        for broken in ("flavors: {a: [", "flavors: &a {b: *a}", f"x: {'y' * (1 << 20)}"):
            (tmp_path / "MLmodel").write_text(broken)
            tracker.upload(version.model_id or "", tmp_path)
            with pytest.raises((BadRequest, BadCheckpoint), match="card MLmodel"):
                tracker.loaded(version)

    def test_the_weights_of_a_version_can_be_fetched(
        self, tracker: Tracker, publication: Publication, tmp_path: Path
    ) -> None:
        package, returned = tmp_path / "package", tmp_path / "returned"
        (package / "data").mkdir(parents=True)
        returned.mkdir()
        (package / "model.safetensors").write_bytes(b"weights")
        (package / "data" / "model.pt2").write_bytes(b"graph")
        (package / "MLmodel").write_bytes(b"card")
        version = registered(tracker, publication)
        tracker.upload(version.model_id or "", package)
        sources = tracker.version_weights(version)
        assert [source.path for source in sources] == ["data/model.pt2", "model.safetensors"]
        assert tracker.fetch(sources[1], returned).read_bytes() == b"weights"

    def test_all_files_of_a_version_can_be_downloaded_and_nothing_is_added(
        self, tracker: Tracker, publication: Publication, tmp_path: Path
    ) -> None:
        package = tmp_path / "package"
        (package / "data").mkdir(parents=True)
        files = {"MLmodel": b"flavors: {}\n", "data/model.pt2": b"graph", "model.sig": b"{}"}
        for path, content in files.items():
            (package / path).write_bytes(content)
        version = registered(tracker, publication)
        tracker.upload(version.model_id or "", package)
        for name in ("first", "second"):
            folder = tracker.download_version(version, tmp_path / name)
            held = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
            assert held == files
        with pytest.raises(BadRequest):
            tracker.download_version(replace(version, version="77"), tmp_path / "third")

    def test_a_version_that_was_noted_is_told_for_good_by_its_soup_and_experiment(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        recipe, here = publication.recipe.digest, [publication.experiment_id]
        version = registered(tracker, publication)
        assert tracker.noted_versions(recipe, here) == ()
        for _ in range(2):
            tracker.note_version(version)
            assert tracker.noted_versions(recipe, here) == (version.uri,)
        later = registered(tracker, publication)
        copied = replace(version, name=fresh("production"))
        for noted in (later, copied):
            tracker.note_version(noted)
        assert tracker.noted_versions(recipe, here) == (later.uri, copied.uri), "the newest of each model"
        assert tracker.noted_versions(recipe, []) == ()
        assert tracker.noted_versions(digest_of_bytes(b"another"), here) == ()

    @pytest.mark.parametrize("run_id", [None, "0" * 32])
    def test_a_version_without_its_run_is_not_noted(
        self, tracker: Tracker, publication: Publication, run_id: str | None
    ) -> None:
        tracker.note_version(replace(registered(tracker, publication), run_id=run_id))
        assert tracker.noted_versions(publication.recipe.digest, [publication.experiment_id]) == ()

    def test_a_registration_that_is_older_than_all_here_and_whose_run_is_unknown_was_made_elsewhere(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        version = registered(tracker, publication)
        row = Registration(
            version.name, publication.recipe.digest, RegistrationState.REGISTERED, run_id=version.run_id
        )
        assert tracker.may_have_made(row)
        elsewhere = replace(row, run_id="0" * 32)
        assert not tracker.may_have_made(elsewhere)
        assert tracker.may_have_made(replace(elsewhere, updated_at=time.time() + 60.0))

    def test_runs_are_found_by_their_ids_deleted_ones_and_our_own_too(
        self, backend: Backend, publication: Publication
    ) -> None:
        tracker = backend.tracker
        ours = tracker.create_run(publication)
        kept, deleted = (candidate.run for candidate in publication.ingredients)
        backend.delete_run(deleted.run_id)
        wanted = [kept.run_id, deleted.run_id, ours, "0" * 32]
        found = {run.run_id: (run.name, gone) for run, gone in tracker.runs_named(wanted)}
        assert found == {
            kept.run_id: (kept.name, False),
            deleted.run_id: (deleted.name, True),
            ours: (publication.name, False),
        }
        assert list(tracker.runs_named([])) == []
        assert deleted.run_id not in {
            run.run_id for run in tracker.select_runs([publication.experiment_id], run_ids=wanted)
        }

    def test_runs_are_found_by_the_data_that_they_used(
        self, backend: Backend, sweep: PlantedSweep, publication: Publication
    ) -> None:
        tracker, digest = backend.tracker, fresh("data")[-12:]
        first, second, third = sweep.children
        for run_id in (first, second, tracker.create_run(publication)):
            backend.add_dataset(run_id, digest)
        backend.add_dataset(third, "other data")
        backend.delete_run(second)
        assert tracker.runs_on(digest) == tuple(sorted([first, second]))
        assert tracker.runs_on("nobody's") == ()

    def test_a_run_is_asked_for_what_it_was_trained_on(self, backend: Backend, sweep: PlantedSweep) -> None:
        first, second, third = sweep.children
        for name in ("python", "man"):
            backend.add_dataset(first, f"digest of {name}", name)
        backend.add_dataset(second, "d1", "man", "training")
        backend.add_dataset(second, "d2", "python", "validation")
        found = backend.tracker.datasets([first, second, third, "nobody"])
        assert found == {first: ("man", "python"), second: ("man",)}
        assert backend.tracker.datasets([]) == {}

    def test_runs_are_found_by_a_tag_deleted_ones_too_and_our_own_not(
        self, backend: Backend, sweep: PlantedSweep, publication: Publication
    ) -> None:
        tracker, tag = backend.tracker, f"stockpot.{fresh('tag')}"
        first, second, third = sweep.children
        for run_id in (first, second, tracker.create_run(publication)):
            tracker.tag_run(run_id, tag, f"a,{run_id}")
        tracker.tag_run(third, tag, "")
        backend.delete_run(second)
        found = [(run.run_id, run.tags[tag]) for run in tracker.runs_tagged(tag)]
        assert found == [(run_id, f"a,{run_id}") for run_id in sorted([first, second])]
        assert tracker.runs_tagged("nobody's") == ()

    def test_a_version_takes_a_tag_beside_its_others(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        version = registered(tracker, publication)
        for value in ("mislabelled", "it's 'mislabelled'"):
            tracker.tag_version(version, "stockpot.recalled", value)
            told = {**version.tags, "stockpot.recalled": value}
            assert tracker.version(version.uri) == replace(version, tags=told)
        with pytest.raises(BadRequest):
            tracker.tag_version(replace(version, version="77"), "stockpot.recalled", "gone")

    def test_versions_are_found_by_a_tag_and_its_value_whoever_made_them(self, backend: Backend) -> None:
        tracker, model, tag = backend.tracker, fresh("model"), f"stockpot.{fresh('tag')}"
        numbers = [backend.add_version(model) for _ in range(11)]
        for number in numbers:
            value = "approved" if number in {"2", "10"} else "not approved"
            tracker.tag_version(tracker.version(f"models:/{model}/{number}"), tag, value)
        found = [(one.name, one.version) for one in tracker.versions_tagged(tag, "approved")]
        assert found == [(model, "2"), (model, "10")]

    def test_a_promoted_copy_tells_what_it_is_a_copy_of(
        self, backend: Backend, publication: Publication
    ) -> None:
        tracker = backend.tracker
        version = registered(tracker, publication)
        assert version.copy_of is None
        model = fresh("promoted")
        backend.copy_version(version.uri, model)
        copy = tracker.version(f"models:/{model}/1")
        assert (copy.copy_of, copy.run_id, copy.tags) == (version.uri, version.run_id, version.tags)
        assert copy in tracker.soup_versions()
        assert version.run_id is not None
        found = tracker.versions_of(version.run_id)
        assert {one.uri for one in found} == {version.uri, copy.uri}
        assert [one.model_id for one in found] == [version.model_id] * 2
        renamed = fresh("renamed")
        backend.rename_model(version.name, renamed)
        (there,) = (one for one in tracker.versions_of(version.run_id) if one.name == renamed)
        assert (there.version, there.model_id, there.copy_of) == (version.version, version.model_id, None)

    def test_a_version_has_its_model_unless_that_is_gone(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        version = registered(tracker, publication)
        assert tracker.has_model(version)
        assert tracker.has_model(replace(version, model_id=None))
        assert not tracker.has_model(replace(version, model_id="m-" + "0" * 32))

    def test_all_versions_runs_and_models_of_soups_are_listed_and_nothing_else(
        self, tracker: Tracker, publication: Publication
    ) -> None:
        first, second = registered(tracker, publication), registered(tracker, publication)
        ingredient = tracker.create_ingredient_model(publication.ingredients[0])
        listed = [version for version in tracker.soup_versions() if version.name == publication.model]
        assert listed == [first, second]
        runs = [run for run in tracker.soup_runs() if run.run_id == first.run_id]
        assert [(run.status, run.tags["stockpot.model"]) for run in runs] == [("RUNNING", publication.model)]
        sweep = {candidate.run.run_id for candidate in publication.ingredients}
        assert not sweep & {run.run_id for run in tracker.soup_runs()}
        models = {model.model_id: model for model in tracker.soup_models()}
        assert ingredient not in models
        found = models[first.model_id or ""]
        assert (found.run_id, found.tags["stockpot.recipe"]) == (first.run_id, publication.recipe.digest)
        assert abs(found.created / 1000 - time.time()) < 3600

    def test_a_model_that_was_deleted_is_gone(self, tracker: Tracker, publication: Publication) -> None:
        version = registered(tracker, publication)
        tracker.delete_model(version.model_id or "")
        assert not tracker.has_model(version)
        assert version.model_id not in {model.model_id for model in tracker.soup_models()}
        assert tracker.find_model(version.run_id or "", publication) is None

    def test_a_version_shows_another_publication_of_its_soup(
        self, backend: Backend, publication: Publication
    ) -> None:
        tracker = backend.tracker
        version = registered(tracker, publication)
        tags = {**publication.tags, "stockpot.verdict": "worse"}
        later = replace(publication, description="-0.5 points", tags=tags, files={"later.png": b"png"})
        for _ in range(2):
            tracker.describe(version, later)
        assert tracker.version(version.uri).tags["stockpot.verdict"] == "worse"
        assert tracker.reconcile(publication.model, publication.recipe.digest) is not None
        assert "later.png" in backend.logged(version.run_id or "").files

    def test_a_description_is_edited_as_it_is_found(self, tracker: Tracker, publication: Publication) -> None:
        version, found = registered(tracker, publication), list[str]()

        def edit(text: str) -> str:
            found.append(text)
            return f"{text}, said Ada {{run_id}}"

        for _ in range(2):
            tracker.edit_description(version, edit)
        assert found[0].startswith("+0.5 points")
        assert found[1] == f"{found[0]}, said Ada {{run_id}}"
        with pytest.raises(BadRequest):
            tracker.edit_description(replace(version, version="77"), edit)

    def test_a_file_is_put_beside_a_run_in_place_of_the_one_before(
        self, backend: Backend, publication: Publication
    ) -> None:
        tracker = backend.tracker
        version = registered(tracker, publication)
        run_id = version.run_id or ""
        for content in (b"one", b"two"):
            tracker.put_file(run_id, "report.html", content)
            assert backend.content(run_id, "report.html") == content
        backend.delete_run(run_id)
        tracker.put_file(run_id, "report.html", b"three")
        assert backend.content(run_id, "report.html") == b"three", "a deleted run is still there"
        with pytest.raises(BadRequest):
            tracker.put_file("0" * 32, "report.html", b"")

    @pytest.mark.parametrize(
        "uri", ["", "soup", "models:/", "models:/no", "models:/no/1", "models:/no/one", "models:/no@where"]
    )
    def test_a_uri_of_no_version_is_the_requests_fault(self, tracker: Tracker, uri: str) -> None:
        with pytest.raises(BadRequest):
            tracker.version(uri)
