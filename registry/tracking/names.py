"""What both trackers call things: tags, weights files, version URIs."""

import re
from pathlib import PurePosixPath

from registry.entities import Candidate, Publication, WeightsFormat

PARENT = "mlflow.parentRunId"
ROLE = "stockpot.role"
"""On everything that Stockpot makes: soup, ingredient or permission-check."""
MODEL = "stockpot.model"
RECIPE = "stockpot.recipe"
CHECKPOINT = "stockpot.checkpoint"
LOGGED_MODEL = "stockpot.logged_model"
"""On versions: MLflow does not tell which LoggedModel a version was made from."""
DUPLICATE_OF = "stockpot.duplicate_of"
"""On versions: the lower one that holds the same soup."""
ALIAS = "stockpot.alias"
"""On versions: the alias that was given to it, whoever has it now."""

FORMATS = {
    ".safetensors": WeightsFormat.SAFETENSORS,
    ".pt2": WeightsFormat.PT2,
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".pkl"), WeightsFormat.PICKLE),
}
VERSION_URI = re.compile(r"models:/(?P<name>[^/]+)(/(?P<version>\d+)|@(?P<alias>[\w-]+))", re.ASCII)


def weights_format(path: str) -> WeightsFormat | None:
    """What kind of weights a file of this name holds; None for other files."""
    return FORMATS.get(PurePosixPath(path).suffix.lower())


def soup_tags(publication: Publication) -> dict[str, str]:
    """The publication's tags, and those by which a soup is found."""
    keys = {
        ROLE: "soup",
        MODEL: publication.model,
        RECIPE: publication.recipe.digest,
        CHECKPOINT: publication.checkpoint,
    }
    return {**publication.tags, **keys}


def ingredient_tags(candidate: Candidate) -> dict[str, str]:
    """The tags by which the model that stands for an ingredient is found."""
    return {ROLE: "ingredient", CHECKPOINT: candidate.checkpoint.digest}
