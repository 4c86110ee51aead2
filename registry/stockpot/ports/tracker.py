"""What Stockpot asks of MLflow."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stockpot.entities import (
    Candidate,
    Digest,
    Experiment,
    LoggedSoup,
    ModelVersion,
    Packaged,
    Publication,
    RegisteredModel,
    Registration,
    Run,
    Schema,
    SweepSelector,
    WeightsSource,
)
from stockpot.ports.serving import Served

if TYPE_CHECKING:
    from torch import nn


class Tracker(Protocol):
    """MLflow, or what stands in for it. Errors are TrackingError and BadRequest, and nothing else.
    `weights`, `head` and `fetch` may be called from several threads at once.

    Each ``create_`` method makes exactly one call that creates something, sent once, never retried
    inside, and what it creates is found by the ``find_`` method beside it as soon as it exists.
    All other methods may be repeated at will. Stockpot's own runs and models carry the tag
    ``stockpot.role``.
    """

    def servers(self) -> tuple[str, ...]:
        """Where runs are kept and where versions are, and by which software, each in a clause without
        credentials; one where that is the same place. Asks both. Makes nothing, no database that is not
        there either: raises TrackingError for that.
        """
        ...

    def runs(self, selector: SweepSelector) -> Iterator[Run]:
        """Every run of the sweep, page by page; neither the parent itself nor Stockpot's own runs. By start
        time then run id; of a parent all runs below it, in whichever experiment, perhaps level by level.
        Raises UnknownSweep for a parent or an experiment that does not exist, and BadRequest for a filter
        that MLflow refuses.
        """
        ...

    def born(self) -> int:
        """When its oldest experiment was made, deleted or not, in milliseconds since the epoch: what tells
        this MLflow from others that share a store. 0 where none is shown to us.
        """
        ...

    def experiments(self) -> tuple[Experiment, ...]:
        """Every active experiment, by id."""
        ...

    def select_runs(
        self,
        experiment_ids: Sequence[str],
        *,
        ended_since: int | None = None,
        unfinished: bool = False,
        run_ids: Collection[str] | None = None,
        tag: str | None = None,
        filter: str | None = None,  # noqa: A002 - as in SweepSelector
    ) -> Iterator[Run]:
        """Every active run in these experiments that is not Stockpot's own and meets all that is given, page
        by page: ended at this time or later (milliseconds since the epoch; also where it was resumed since),
        runs or is scheduled, has one of these ids, has this tag (not empty), meets an MLflow filter. Raises
        BadRequest for a filter that MLflow refuses.
        """
        ...

    def runs_named(self, run_ids: Collection[str]) -> Iterator[tuple[Run, bool]]:
        """The runs of these ids in no order, Stockpot's own and deleted ones too, each with whether it is
        deleted; without those that this MLflow does not have.
        """
        ...

    def runs_on(self, dataset: str) -> tuple[str, ...]:
        """The ids of the runs that logged a dataset with this digest among their inputs, in whichever
        experiment, deleted ones too; without Stockpot's own. In order.
        """
        ...

    def datasets(self, run_ids: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """By run, the names of the datasets that it logged among its inputs, in order: of those whose context
        names training, where there are such. Without runs that logged none.
        """
        ...

    def runs_tagged(self, tag: str) -> tuple[Run, ...]:
        """The runs that have this tag (not empty), in whichever experiment, deleted ones too; without
        Stockpot's own. By id.
        """
        ...

    def tag_run(self, run_id: str, tag: str, value: str) -> None:
        """Set a tag of a run, in place of what it held. Raises UnknownSweep or NotPermitted."""
        ...

    def parent(self, selector: SweepSelector) -> Run | None:
        """The sweep's parent run as it is now; None where the sweep has none. Raises UnknownSweep."""
        ...

    def weights(self, run: Run) -> tuple[WeightsSource, ...]:
        """Every weights file that the run logged, as artifact or inside a LoggedModel, by path. Raises
        BadCheckpoint where its artifacts are too many to be looked through, or cannot be listed although
        those of other runs can, and OtherLibrary where all that it logged are models that by their cards
        (``MLmodel``, or the tag of MLflow 2) are of other libraries than torch.
        """
        ...

    def head(self, source: WeightsSource, length: int) -> bytes | None:
        """The first `length` bytes of a weights file, all of a shorter one; None where the artifact store
        hands out no part of a file, or not this one. Never transfers the rest.
        """
        ...

    def companions(self, source: WeightsSource) -> tuple[WeightsSource, ...]:
        """The other files of the LoggedModel that holds the weights; where none does, those of their folder.
        For `head` and `fetch`. Raises BadCheckpoint as `weights` does.
        """
        ...

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        """Download a weights file into this folder. Returns its path there: always a regular file, of the
        length that was listed. Of weights that were cut, all files that are there, beside the path of their
        index. Raises BadCheckpoint for what is wrong with this file alone: it is gone, a
        link, or of another length.
        """
        ...

    def prove_writable(self, model: str, experiment_id: str) -> None:
        """Make sure that runs, artifacts and versions of `model` may be written. Leaves nothing behind: no
        run, no model, no tag, and no artifact where the store lets us delete one; else one line of text,
        always at the same place. Raises BadModelName or NotPermitted.
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

    def fail(self, run_id: str) -> None:
        """End the soup's run as failed, until it is recorded. Asks once, and does not wait for long."""
        ...

    def package(
        self,
        module: "nn.Module",
        weights: Path,
        example: "Any",
        into: Path,
        *,
        model_id: str | None,
        like: Candidate,
        architecture: tuple[str, Mapping[str, str]],
    ) -> Packaged:
        """Write an MLflow model folder: `module` (holding the soup's weights) exported, and the soup's
        canonical file as ``model.safetensors``. Signature and input example are those of `like` where they
        say no more than what is inferred from `example`; requirements are never an ingredient's. Outputs of
        the saved model agree with the module's at batch sizes 1 and 7. Where the module cannot be exported,
        the folder rebuilds it from `architecture`, a task's reference and arguments.
        Writes into this folder only. `model_id`: None for a folder that is not kept.
        """
        ...

    def package_together(
        self, models: Iterable[tuple["nn.Module", Any, Path]], prior: Sequence[float], into: Path
    ) -> None:
        """Write an MLflow model folder of language models that answer together, as a pyfunc: from ids, int64
        ``[n, t]``, to the logarithms of the probabilities of the token behind each, float32 ``[n, t,
        vocabulary]``. Each counts by its `prior` times how likely it found the ids so far, all but the first
        one. Needs nothing of ours where it is loaded; registers nothing, and asks no server.

        `models`: one after the other, modules from ids to logits, each with ids of some examples and the
        canonical file of its weights. Raises Incompatible where one cannot be exported. Writes into this new
        folder, and beside it for a while.
        """
        ...

    def has_model(self, version: ModelVersion) -> bool:
        """Whether the version's LoggedModel is there. One that a person deleted is not; one that we may not
        see counts as there.
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

    def reconcile(self, model: str, recipe: Digest) -> ModelVersion | None:
        """The version of this soup: the lowest, where there are several.

        The others are tagged ``stockpot.duplicate_of`` with its number. They come from processes that share
        no store, or from a call that arrived after it was given up.
        """
        ...

    def create_version(self, run_id: str, model_id: str, publication: Publication) -> ModelVersion:
        """Create the model version, with description and tags; before it the registered model, where there is
        none.
        """
        ...

    def note_version(self, version: ModelVersion) -> None:
        """Note on the version's run, for good, that it was registered: MLflow deletes versions without a
        trace. A run that is deleted or gone takes no note.
        """
        ...

    def noted_versions(self, recipe: Digest, experiment_ids: Iterable[str]) -> tuple[str, ...]:
        """The URIs of all versions that were noted on this soup's runs in these experiments; also of versions
        and runs that were deleted since.
        """
        ...

    def may_have_made(self, registration: Registration) -> bool:
        """Whether that registration can be of this MLflow: it knows the soup's run, deleted or not, or
        has an experiment that is older than the registration. One store may be used with several.
        """
        ...

    def describe(self, version: ModelVersion, publication: Publication) -> None:
        """Show another publication of the same soup on the version's page: its description and tags. Its
        files go beside those of the soup's run.
        """
        ...

    def put_file(self, run_id: str, path: str, content: bytes) -> None:
        """Write a file among a run's artifacts, in place of an earlier one of that path; also where the run
        was deleted. Raises BadRequest for a run that is gone, and NotPermitted.
        """
        ...

    def edit_description(self, version: ModelVersion, edit: Callable[[str], str]) -> None:
        """Replace a version's description by what `edit` makes of it, whoever wrote it. Raises BadRequest for
        a version that is gone.
        """
        ...

    def soup_versions(self) -> tuple[ModelVersion, ...]:
        """Every version that is tagged with a recipe, of whichever registered model, by name and number;
        perhaps without its aliases. Copies and duplicates are among them.
        """
        ...

    def versions_tagged(self, tag: str, value: str) -> tuple[ModelVersion, ...]:
        """Every version that has this tag with this value, whoever made it, by name and number; perhaps
        without its aliases.
        """
        ...

    def versions_of(self, run_id: str) -> tuple[ModelVersion, ...]:
        """Every version that was registered from this run or from a model of it, whoever did that and
        whatever tags it has, by name and number; perhaps without its aliases. Copies are among them.
        """
        ...

    def soup_runs(self) -> tuple[Run, ...]:
        """Every run of a soup that is not deleted, in whichever experiment, oldest first."""
        ...

    def soup_models(self) -> tuple[LoggedSoup, ...]:
        """Every LoggedModel of a soup that is not deleted, in whichever experiment, oldest first; without
        those that stand for an ingredient.
        """
        ...

    def delete_model(self, model_id: str) -> None:
        """Delete a LoggedModel. MLflow keeps its artifacts until `mlflow gc`."""
        ...

    def tag_version(self, version: ModelVersion, tag: str, value: str) -> None:
        """Set a tag of a version, in place of what it held, and change nothing else. Raises BadRequest for a
        version that is gone.
        """
        ...

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Name the alias in the version's tag ``stockpot.alias``, which stays, beside others that it was
        given, and point it there.
        """
        ...

    def point_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias at a version, and tag nothing. Raises BadRequest for a version that is not there, or
        an alias that MLflow refuses.
        """
        ...

    def schema(self, version: ModelVersion) -> Schema | None:
        """The signature of any registered version, whoever made it; None where it has none. Raises BadRequest
        or BadCheckpoint where its card (``MLmodel``) cannot be read.
        """
        ...

    def flavours(self, version: ModelVersion) -> tuple[str, ...]:
        """MLflow's flavours that the version can be loaded as, by its card, in order; none where it has none.
        Raises BadRequest as `schema` does.
        """
        ...

    def registered_models(self) -> tuple[RegisteredModel, ...]:
        """Every registered model with its aliases, by name, in one question for a thousand. Of several pages,
        one that appears or vanishes meanwhile may hide another.
        """
        ...

    def registered_model(self, name: str) -> RegisteredModel | None:
        """The registered model of this name, if there is one."""
        ...

    def anchor_trail(self, model: str, digest: Digest) -> None:
        """Tag a registered model with ``stockpot.trail``. Raises BadRequest where there is none."""
        ...

    def version(self, uri: str) -> ModelVersion:
        """Resolve ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``. Raises BadRequest for one that does
        not exist or is not of that form.
        """
        ...

    def version_weights(self, version: ModelVersion) -> tuple[WeightsSource, ...]:
        """The weights files of any registered version, whoever made it, by path: for `head` and `fetch`."""
        ...

    def served(self, folder: Path) -> AbstractContextManager[Served]:
        """The model in a folder, as MLflow serves it (``pyfunc``), in a process of its own that is given none
        of our variables and ends with the block. It runs whatever code the model brings, as this user.
        """
        ...

    def loaded(self, version: ModelVersion) -> tuple[str, ...]:
        """The paths of the files that MLflow loads of any registered version, in order: those that its card
        (``MLmodel``) names among its flavors, and all in folders named there. Empty without a card. Raises
        BadRequest or BadCheckpoint where that cannot be read.
        """
        ...

    def download_version(self, version: ModelVersion, into: Path) -> Path:
        """Download all artifacts of any registered version, whoever made it. Returns the folder that holds
        them, and nothing else. Raises BadRequest for a version that is gone, and NotArrived where a file did
        not come whole.
        """
        ...

    def link(self, version: ModelVersion) -> str | None:
        """Where a browser shows the version; None without a server."""
        ...

    def run_link(self, run: Run) -> str | None:
        """Where a browser shows the run; None without a server."""
        ...
