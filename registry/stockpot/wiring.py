"""The one place that picks adapters."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from stockpot.entities import Evidence, Job, SoupRequest, tags
from stockpot.errors import BadRequest, StoreError
from stockpot.evidence import Reads, change_since
from stockpot.helpers import Help, Helpers
from stockpot.person import person
from stockpot.settings import (
    Settings,
    reach_loopback_directly,
    read_settings,
    require_home,
    signing_password,
)
from stockpot.watching import Silent

if TYPE_CHECKING:
    from stockpot.evaluation import TorchBench
    from stockpot.figure import DrawnOnce
    from stockpot.ports import Bench, MakeMethod, Signer, Store, Tracker, Verifier, Watcher
    from stockpot.soup import CheckpointCache
    from stockpot.workflow.gathering.supply import Supply
    from stockpot.workflow.plan import Plan
    from stockpot.workflow.promotion.policies import Policy
    from stockpot.workflow.promotion.promote import Promoter
    from stockpot.workflow.publishing.publish import Publisher
    from stockpot.workflow.reporting.reporter import Reporter


def make_folder(folder: Path) -> None:
    """Make sure that the folder is there. Raises StoreError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be made: {error.strerror}",
            mend="set STOCKPOT_HOME (and STOCKPOT_CACHE) to a folder that you may write",
        ) from error


def open_tracker() -> "Tracker":
    """MLflow, where its own variables say. Nothing is asked yet.

    Raises BadRequest for a user without a home directory.
    """
    require_home("MLflow")
    from stockpot.tracking import MlflowTracker

    return MlflowTracker()


class Workplace:
    """The adapters that the settings name, each made when it is first used.

    Where those name several devices, use it in a ``with``: at its end the processes that help end. `watch` is
    told what its adapters have to say. `elsewhere`: helpers on other machines. `flow_run`: the page of the
    flow run that this work is, for the runs of soups.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        watch: "Watcher | None" = None,
        *,
        elsewhere: Help | None = None,
        flow_run: str | None = None,
    ) -> None:
        reach_loopback_directly()
        self.settings = settings or read_settings()
        self.watch = watch or Silent()
        self._elsewhere = elsewhere
        self._flow_run = flow_run
        self._open = ExitStack()
        self._reads = Reads()
        self._model_folders: dict[tuple[object, ...], Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def tracker(self) -> "Tracker":
        """MLflow, where its own variables say."""
        return open_tracker()

    @cached_property
    def store(self) -> "Store":
        """The database. Raises SchemaMismatch for one that is older or newer than this program."""
        from stockpot.store import SqlStore

        make_folder(self.settings.home)
        store = SqlStore(self.settings.database)
        self._open.callback(store.close)
        return store

    @cached_property
    def cache(self) -> "CheckpointCache":
        """The local folder of weights."""
        from stockpot.soup import CheckpointCache

        make_folder(self.settings.cache_folder)
        return CheckpointCache(self.settings.cache_folder, self.settings.cache_limit)

    @cached_property
    def supply(self) -> "Supply":
        """Weights by digest."""
        from stockpot.workflow.gathering.supply import Supply

        def uses(file: Path) -> None:
            self._reads.take(file)  # another request has another

        return Supply(self.tracker, self.store, self.cache, self.watch.say, uses)

    @cached_property
    def signer(self) -> "Signer | None":
        """Signs what is registered; None where no key is named. Raises BadRequest for a useless one."""
        if self.settings.signing_key is None:
            return None
        from stockpot.signing import KeySigner

        return KeySigner(self.settings.signing_key.absolute(), signing_password(self.settings))

    @cached_property
    def verifier(self) -> "Verifier":
        """Tells whose signature a version holds."""
        from stockpot.signing import KeyVerifier

        return KeyVerifier()

    def bench(self, request: SoupRequest) -> "TorchBench":
        """The request's task on the first of the devices. Raises UnknownPlugin, BadTask or BadRequest."""
        from stockpot.evaluation import RememberedOutputs, TorchBench, all_seeded, device_names
        from stockpot.shelves import shelf_at
        from stockpot.tasks.arguments import NamedByContent
        from stockpot.tasks.loading import load_task, task_identity, task_source

        device, *_ = device_names(self.settings.device)
        shelf = shelf_at(self.settings.outputs_place, self.settings.cache_limit)
        outputs = RememberedOutputs(shelf, say=self.watch.say)
        args = self.task_args(request)
        with all_seeded():  # what it draws would be another question each time
            task = load_task(request.task, args)
        source = task_source(task, request.task, args)
        self._reads.take_code(name for name, _ in source.modules if not name.startswith("stockpot."))
        for doubt in source.doubts:
            self._reads.doubt(doubt)
            self.watch.say(f"scores are remembered by the task's source, but {doubt}")
        return TorchBench(
            task,
            identity=task_identity(task, source),
            source=source,
            task_args=NamedByContent(args),
            checkpoints=self.supply,
            device=device or None,
            outputs=outputs,
            overlays=self.store,
            say=self.watch.say,
        )

    def task_args(self, request: SoupRequest) -> Mapping[str, str]:
        """The request's, and the folder of a model from its sweep where the task is made with one: that model
        has the dtype which weights are cast to.

        Raises UnknownPlugin, BadRequest where no run logged such a folder, and what listing the sweep raises.
        """
        from stockpot.tasks.loading import lacks_model_folder, takes_model_folder
        from stockpot.workflow.gathering.model_folder import fetch_model_folder

        given = dict(request.task_args)
        if request.dtype and takes_model_folder(request.task):
            given.setdefault("dtype", request.dtype.value)
        if not lacks_model_folder(request.task, given):
            return given
        r = request
        asked = (
            r.selector,
            r.weights,
            r.checkpoint_metric,
            r.direction,
            r.dtype,
            r.top,
            r.by,
            r.any_base,
            r.base,
        )
        if asked not in self._model_folders:
            make_folder(self.model_folders_at)
            self._model_folders[asked] = fetch_model_folder(
                request, self.tracker, self.supply, Silent(), self.model_folders_at
            )
        return {**given, "model": str(self._model_folders[asked])}

    @property
    def model_folders_at(self) -> Path:
        """Each is named by what it holds."""
        return self.settings.home.absolute() / "models"

    def start_helpers(self, job: Job) -> None:
        """Let others take part in the job, unless they do: the other devices, each by a process of its own,
        and helpers elsewhere.
        """
        for helpers in self._helpers:
            helpers.start(job)

    @cached_property
    def _helpers(self) -> tuple[Help, ...]:
        from stockpot.evaluation import device_names

        _, *others = device_names(self.settings.device)
        here = Helpers(others, self.watch.say)
        found: tuple[Help, ...] = (here,) if self._elsewhere is None else (here, self._elsewhere)
        for helpers in found:
            self._open.callback(helpers.close)
        return found

    def methods(self, request: SoupRequest) -> Mapping[str, "MakeMethod"]:
        """The request's selection methods by name. Raises UnknownPlugin, and BadRequest for one that needs to
        know where the sweep started, where the request does not say so.
        """
        from stockpot.selection import is_around_base
        from stockpot.tasks.loading import load_method
        from stockpot.workflow.gathering.starting_point import FORMS

        methods = {name: load_method(name) for name in request.methods}
        if request.base is None and (needing := [n for n, make in methods.items() if is_around_base(make)]):
            raise BadRequest(
                f"{', '.join(needing)} looks for a soup around the model that the sweep started from",
                mend=f"name that model: {FORMS}",
            )
        return methods

    def plan(self, request: SoupRequest) -> "Plan":
        """What the request would do. Downloads nothing."""
        from stockpot.workflow.gathering.gather import gather
        from stockpot.workflow.gathering.starting_point import base_source
        from stockpot.workflow.plan import plan
        from stockpot.workflow.selecting.by_features import open_features
        from stockpot.workflow.selecting.by_target import open_target
        from stockpot.workflow.selecting.domains import domains_of
        from stockpot.workflow.selecting.measure import open_splits
        from stockpot.workflow.selecting.overlaid import overlay_rule

        methods, bench = self.methods(request), self.bench(request)
        prospects = gather(request, self.tracker, self.supply, bench.fits, self.watch)
        base_source(request, self.tracker)  # raises where nothing is there
        splits, rule = open_splits(request, bench), overlay_rule(request, bench)
        domains = domains_of(request, bench, prospects.runs, prospects.datasets)
        open_target(request, bench, splits)  # raises where it cannot be
        return plan(
            prospects,
            self.supply,
            methods,
            splits,
            self.store,
            rule,
            domains,
            likelihoods=bench.has_log_likelihoods,
            features=bool(open_features(request, bench, domains)),
        )

    def promoter(self, policy: "Policy") -> "Promoter":
        """What judges versions by this policy, and moves the alias that it guards."""
        from stockpot.workflow.promotion.gate import Gate
        from stockpot.workflow.promotion.promote import Promoter

        gate = Gate(self.tracker, self.store, self.supply, self.bench, self.watch, self.verifier)
        return Promoter(gate, policy, self.settings.watch_every, self.reporter.show)

    def reading(self, request: SoupRequest) -> Reads:
        """Knows what the request's task reads: what its arguments name, and what is opened ``with`` it."""
        from stockpot.tasks.loading import lacks_model_folder
        from stockpot.workflow.gathering.starting_point import local_base

        outputs = Path(self.settings.outputs_place.removeprefix("file://"))
        ours = [self.settings.cache_folder, outputs, self.model_folders_at]
        self._reads = Reads(request.task, request.task_args, ours=ours)
        if (base := local_base(request)) is not None:
            self._reads.take(base)
        with self._reads:  # the task's module may read files when it is imported
            lacking = lacks_model_folder(request.task, request.task_args)
        if lacking:  # looking the sweep up is no reading of data
            self.task_args(request)
        return self._reads

    def evidence(self) -> Evidence:
        """What the last walk depended on."""
        return self._reads.evidence()

    def change_since(self, evidence: Evidence) -> str:
        """A clause that tells what does not look as it did; empty where all does."""
        return change_since(evidence)

    def publisher(self, bench: "Bench", watch: "Watcher") -> "Publisher":
        """What registers soups."""
        from stockpot.workflow.publishing.packer import Packer
        from stockpot.workflow.publishing.publish import Publisher

        page = self._flow_run
        return Publisher(
            self.tracker,
            self.store,
            self.supply,
            bench,
            self._draw,
            watch,
            Packer(self.tracker, self.supply, bench, watch, self.task_args, self.signer),
            marks={tags.FLOW_RUN: page} if page else {},
            by=f"{person()}, by flow run {page}" if page else person(),
            promised=self.settings.watch_every,
            show=self.reporter.show,
        )

    @property
    def reporter(self) -> "Reporter":
        """What tells all that is known of a version, on one page."""
        from stockpot.webpage import render
        from stockpot.workflow.reporting.reporter import Reporter

        return Reporter(self, self._draw, render, self.guarded_alias)

    @cached_property
    def _draw(self) -> "DrawnOnce":
        from stockpot.figure import DrawnOnce

        return DrawnOnce()

    def guarded_alias(self, model: str) -> str:
        """The alias of this registered model's champion: that of its policy, where one can be read."""
        from stockpot.workflow.promotion.policies import CHAMPION, read_policies

        try:
            return read_policies(self.settings.policies_file).of(model).alias
        except BadRequest:
            return CHAMPION
