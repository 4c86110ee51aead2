"""The walls: what the use cases ask of the world. Each docstring is a contract that the suites in
`registry.testing` hold every adapter to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from registry.entities import (
    Candidate,
    Digest,
    EvaluationProtocol,
    IngestedSource,
    ModelVersion,
    Outcome,
    Publication,
    Recipe,
    Registration,
    Run,
    Score,
    Selection,
    SweepSelector,
    Trial,
    WeightsSource,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Task(Protocol):
    """What a user writes: one class that says how a model is scored.

    ``__init__`` takes the ``--task-arg key=value`` pairs as keyword arguments, all strings. Optional
    methods and attributes, looked up by name:

    - ``digest(split) -> str``: names the split's content; without it every example is hashed once.
    - ``groups(split) -> Sequence[Hashable]``: the origin of each example, where several examples
      share one (crops of an image, sentences of a document); intervals resample origins.
    - ``inputs(batch)``: the model's input, for the registered model's signature; without it the
      batch itself, or its first element where the batch is a tuple or list.
    - ``batch_size``: examples in a batch; 256 without it.
    """

    version: str
    """Change it whenever the scores would change. A hash of the defining module joins it."""
    bounds: tuple[float, float] | None
    """The least and the greatest score of one example; None where there is none."""

    def model(self) -> "nn.Module":
        """The architecture. Its weights do not matter: they are replaced."""
        ...

    def examples(self, split: str) -> "Sequence[Any]":
        """A map-style dataset (``len`` and ``[i]``) in a fixed order.

        Raises KeyError or ValueError for a split that does not exist.
        """
        ...

    def collate(self, examples: "list[Any]") -> "Any":
        """Make a batch of fixed shape: tensors in a tuple, list or dict, or one tensor."""
        ...

    def predict(self, model: "nn.Module", batch: "Any") -> "Tensor":
        """The model's outputs, first dimension: examples."""
        ...

    def score(self, outputs: "Tensor", batch: "Any") -> "Tensor":
        """One score per example, shape ``[examples]``; higher is better."""
        ...


class Evaluator(Protocol):
    """Scores recipes on one split under one protocol.

    The same recipe always gets the same score under the same protocol. A Bound is returned only for
    a trial with a threshold, and only when the full score could not have met it.
    """

    @property
    def protocol(self) -> EvaluationProtocol:
        """Under which every outcome of this evaluator was measured."""
        ...

    def evaluate(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order.

        Raises BadTask when the task breaks its contract, naming the recipe and the example;
        Incompatible when the weights do not fit the task's model.
        """
        ...


class SelectionMethod(Protocol):
    """A search for a recipe, as a pure state machine: no I/O, no clock, no randomness.

    ``ask`` is repeatable: without a ``tell`` in between it returns the same trials. Outcomes are told
    in the order of the asked trials, each once.
    """

    name: str

    @property
    def most_soups(self) -> int:
        """At most this many trials of two or more ingredients are asked for: for plans and progress."""
        ...

    def ask(self) -> Sequence[Trial]:
        """The trials wanted now; empty when the search is over."""
        ...

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Report the outcome of the next asked trial. Raises ValueError for any other."""
        ...

    def result(self) -> Selection:
        """The search so far: its best recipe and every step. Raises ValueError before any outcome."""
        ...


class Store(Protocol):
    """Stockpot's own memory. Every method is one atomic transaction, durable when it returns, and safe
    to call from several threads and processes at once. Methods raise StoreError, and nothing else.
    """

    def ingested(self, uri: str) -> IngestedSource | None:
        """What reading this weights file found, if it was read before."""
        ...

    def remember_ingested(self, ingested: IngestedSource) -> None:
        """Remember what reading a file found; a newer reading of the same URI replaces an older one."""
        ...

    def score(self, recipe: Digest, protocol: Digest) -> Score | None:
        """The committed evaluation of this recipe under this protocol, if there is one."""
        ...

    def commit_score(self, recipe: Recipe, protocol: EvaluationProtocol, score: Score) -> Score:
        """Commit an evaluation. The first one wins: returns the committed one, whoever committed it.

        NaN scores and signed zeros come back bit-identical.
        """
        ...

    def commit_selection(self, selection: Selection, protocol: EvaluationProtocol) -> None:
        """Keep the record of a search. Committing an identical one again changes nothing."""
        ...

    def selections(self, recipe: Digest) -> tuple[Selection, ...]:
        """The searches that ended in this recipe, oldest first."""
        ...

    def recipe(self, digest: Digest) -> Recipe | None:
        """The recipe of this name, if an evaluation, selection or registration brought it in."""
        ...

    def claim_registration(
        self, model: str, recipe: Recipe, *, owner: str, now: float, until: float, dead: str | None = None
    ) -> Registration:
        """Create the row for this soup if there is none, and try to become its owner.

        Succeeds when nobody owns it, when `owner` already does, when the claim ran out before `now`,
        or when its owner is `dead`. Returns the row as it is afterwards: the claim succeeded exactly
        when its ``owner`` is `owner`. Times are seconds since the epoch.
        """
        ...

    def advance_registration(self, registration: Registration) -> None:
        """Write the row's state and ids. Raises StoreError unless ``registration.owner`` still owns it,
        or when a REGISTERED row would become anything else.
        """
        ...

    def release_registration(self, model: str, recipe: Digest, *, owner: str) -> None:
        """Give the claim up; nothing happens if `owner` does not hold it."""
        ...

    def registration(self, model: str, recipe: Digest) -> Registration | None:
        """The row for this soup, if there is one."""
        ...

    def registrations(self, model: str) -> tuple[Registration, ...]:
        """All rows of a registered model, by recipe digest."""
        ...


class Tracker(Protocol):
    """MLflow, or what stands in for it. Errors are TrackingError and BadRequest, and nothing else.

    Each ``create_`` method makes exactly one call that creates something, sent once, never retried
    inside, and what it creates is found by the ``find_`` method beside it as soon as it exists.
    All other methods may be repeated at will. Stockpot's own runs and models carry the tag
    ``stockpot.role``.
    """

    def runs(self, selector: SweepSelector) -> Iterator[Run]:
        """Every run of the sweep, all pages, by start time then run id; neither the parent itself nor
        Stockpot's own runs. Raises UnknownSweep for a parent or an experiment that does not exist, and
        BadRequest for a filter that MLflow refuses.
        """
        ...

    def weights(self, run: Run) -> tuple[WeightsSource, ...]:
        """Every weights file that the run logged, as artifact or inside a LoggedModel, by path."""
        ...

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        """Download a weights file into this folder. Returns its path there: always a regular file."""
        ...

    def prove_writable(self, model: str, experiment_id: str) -> None:
        """Make sure that runs, artifacts and versions of `model` may be written, creating the registered
        model if there is none. Leaves nothing else visible. Raises BadModelName or NotPermitted.
        """
        ...

    def find_run(self, publication: Publication) -> str | None:
        """The id of the soup's run, found by model name and recipe."""
        ...

    def create_run(self, publication: Publication) -> str:
        """Create the soup's run, nested under the sweep's parent if there is one."""
        ...

    def find_ingredient_model(self, candidate: Candidate) -> str | None:
        """The LoggedModel that stands for this ingredient: the one that holds the weights, else one that
        was created for the purpose.
        """
        ...

    def create_ingredient_model(self, candidate: Candidate) -> str:
        """Create a LoggedModel, without artifacts, that stands for an ingredient whose run logged bare
        weights; its source run is the ingredient's run.
        """
        ...

    def find_model(self, run_id: str, publication: Publication) -> str | None:
        """The LoggedModel of the soup, whether its artifacts arrived or not."""
        ...

    def create_model(self, run_id: str, publication: Publication) -> str:
        """Create the soup's LoggedModel, an output of its run, still without artifacts."""
        ...

    def record(
        self, run_id: str, model_id: str, ingredient_models: Sequence[str], publication: Publication
    ) -> None:
        """Write lineage (ingredients in, soup out), parameters, measurements linked to their datasets and
        to the LoggedModel, and files; end the run.
        """
        ...

    def package(
        self,
        module: "nn.Module",
        weights: Path,
        example: "Any",
        into: Path,
        *,
        model_id: str,
        like: Candidate,
        architecture: tuple[str, Mapping[str, str]],
    ) -> str:
        """Write an MLflow model folder: `module` (holding the soup's weights) exported, and the soup's
        canonical file as ``model.safetensors``. Signature, requirements and input example are those of
        `like`, else inferred from `example`. Outputs of the saved model agree with the module's at
        batch sizes 1 and 7. Returns "pt2", or "pyfunc: <why>" where the module cannot be exported:
        then the folder rebuilds it from `architecture`, a task's reference and arguments.
        Writes into this folder only.
        """
        ...

    def read_file(self, model_id: str, path: str) -> bytes:
        """The content of one of a LoggedModel's artifacts. Raises BadRequest where there is none."""
        ...

    def upload(self, model_id: str, folder: Path) -> None:
        """Upload the folder's files as the LoggedModel's artifacts and mark it ready."""
        ...

    def download(self, model_id: str, into: Path) -> Path:
        """Download all artifacts of a LoggedModel. Returns the folder that holds them."""
        ...

    def find_version(self, model: str, recipe: Digest) -> ModelVersion | None:
        """The version of this soup: the lowest, where there are several."""
        ...

    def create_version(self, run_id: str, model_id: str, publication: Publication) -> ModelVersion:
        """Create the model version, with description and tags."""
        ...

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias at a version."""
        ...

    def version(self, uri: str) -> ModelVersion:
        """Resolve ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``. Raises BadRequest for one that does
        not exist or is not of that form.
        """
        ...

    def link(self, version: ModelVersion) -> str | None:
        """Where a browser shows the version; None without a server."""
        ...


class Progress(Protocol):
    """Told how far a long stage has come. Never fails, never slows the work down."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins; `total` steps are expected."""
        ...

    def advance(self, stage: str) -> None:
        """One step of the stage is done."""
        ...

    def say(self, message: str) -> None:
        """One line worth reading."""
        ...


MakeMethod = Callable[..., SelectionMethod]
"""An entry point of ``stockpot.selection_methods``: called with the contenders and ``accept=``."""

TaskArgs = Mapping[str, str]
