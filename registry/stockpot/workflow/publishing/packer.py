"""A soup as MLflow serves it: packaged, uploaded, downloaded again and compared."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from stockpot.entities import Adapter, Candidate, Packaged, Publication, Recipe, SoupRequest
from stockpot.errors import Incompatible, RegistryConflict
from stockpot.prose import counted
from stockpot.soup.joined_adapter import TOLERANCE
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.publishing.claim import Claim
from stockpot.workflow.publishing.publication import FIGURE, with_note
from stockpot.workflow.publishing.transfer import differences, require_same

if TYPE_CHECKING:
    from stockpot.ports import Bench, Signer, Tracker, Watcher

REQUIREMENTS_NAMED = 5
EXAMPLES = 7
"""Examples in the input that a registered model is exported with, where no ingredient brings one."""


@dataclass(frozen=True)
class Packer:
    """Packages soups for MLflow. Holds the adapters; keeps no state."""

    tracker: "Tracker"
    supply: Supply
    bench: "Bench"
    watch: "Watcher"
    task_args: Callable[[SoupRequest], Mapping[str, str]] = attrgetter("task_args")
    """The arguments that a request's task is made with."""
    signer: "Signer | None" = None
    """None where nothing is signed."""

    def rehearse(self, request: SoupRequest, recipe: Recipe) -> None:
        """Package the recipe's first ingredient as a soup is packaged, and keep nothing of it.

        Raises what packaging a soup raises, and BadCheckpoint where this candidate is at fault.
        """
        candidate = self.supply.candidate(recipe.checkpoints[0])
        first = Recipe.mean([candidate.checkpoint.digest])
        with self.supply.building(first) as (_, file):
            package = file.parent / "package"
            self._package(request, first, file, package, candidate, model_id=None)
            if faults := differences(package, file):
                raise RegistryConflict(
                    f"{request.task} cannot be registered: its exported model holds other weights",
                    faults=faults,
                    mend="look at what the task's model does with its weights when it is exported",
                )

    def _package(
        self,
        request: SoupRequest,
        recipe: Recipe,
        file: Path,
        into: Path,
        like: Candidate,
        *,
        model_id: str | None,
    ) -> Packaged:
        return self.tracker.package(
            self.bench.module_with(recipe),
            file,
            self.bench.example(request.select_on, EXAMPLES),
            into,
            model_id=model_id,
            like=like,
            architecture=(request.task, self.task_args(request)),
        )

    def upload(
        self, model_id: str, publication: Publication, soup: Path, request: SoupRequest, claim: Claim
    ) -> Publication:
        """Package, upload, download again and compare. Returns the publication with what packaging found."""
        like = next((c for c in publication.ingredients if c.source.model_id), publication.ingredients[0])
        package, returned = soup.parent / "package", soup.parent / "returned"
        packaged = self._package(request, publication.recipe, soup, package, like, model_id=model_id)
        for name, content in publication.files.items():
            if not name.startswith(FIGURE):
                (package / name).write_bytes(content)
        if request.adapter is Adapter.KEEP:
            publication = with_note(publication, self._keep_adapter(publication, soup, package / "adapter"))
        if self.signer is not None:
            self.signer.sign(package)
        claim.renew()  # whoever was overtaken meanwhile changes nothing
        self.tracker.upload(model_id, package)
        require_same(package, self.tracker.download(model_id, returned), soup, publication)
        if packaged.left_out:
            lines = ", ".join(shorten(line, 60) for line in packaged.left_out[:REQUIREMENTS_NAMED])
            self.watch.say(
                f"not passed on, since the soup's model does not need it: "
                f"{counted(len(packaged.left_out), 'requirement')} of run {like.run.name}: {lines}"
            )
        if packaged.instead:
            self.watch.say(f"not registered as run {like.run.name} was logged: {packaged.instead}")
        if not packaged.kind.startswith("pyfunc"):
            return publication
        note = (
            f"Registered as code plus safetensors, since the model cannot be exported ({packaged.kind}). "
            "Loading it needs the module that defines the model, and what the task's constructor reads "
            "unless the task has `rebuilt_from`."
        )
        return with_note(publication, note)

    def _keep_adapter(self, publication: Publication, soup: Path, into: Path) -> str:
        """Write the soup as one adapter, if it is one. Returns what the version's page says of that."""
        try:
            self.supply.join(publication.recipe, publication.ingredients, soup, into)
        except Incompatible as error:
            shutil.rmtree(into, ignore_errors=True)
            why = "; ".join([error.what, *error.faults])
            self.watch.say(f"no adapter is kept beside the merged model: {why}")
            return f"No adapter lies beside the merged model: {why}."
        return (
            "The folder adapter holds the same soup as one LoRA adapter, whose rank is the sum of its "
            "ingredients' ranks: peft.PeftModel.from_pretrained(BASE, FOLDER) loads it. Base plus adapter "
            "was compared with the merged model: numbers differ by less than "
            f"{TOLERANCE:g} of their tensor's largest, of 16-bit ones by less than two of their steps."
        )
