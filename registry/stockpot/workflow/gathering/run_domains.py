"""What runs tell of the domain of their data."""

from collections.abc import Iterable, Mapping, Sequence

from stockpot.entities import Run, SoupRequest, tags
from stockpot.entities.domain import ALL, labels
from stockpot.entities.request import INPUTS

Datasets = Mapping[str, Sequence[str]]
"""By run, the names of those that it was trained on."""


def told_by(run: Run, request: SoupRequest, datasets: Datasets) -> str:
    """A label, several with commas, or ``*``; empty where the run tells nothing."""
    if request.domain_from == INPUTS:
        return ",".join(datasets.get(run.run_id, ()))
    kind, _, name = (request.domain_from or f"tags.{tags.DOMAIN}").partition(".")
    return (run.params if kind == "params" else run.tags).get(name, "").strip()


def domains_of_runs(runs: Iterable[Run], request: SoupRequest, datasets: Datasets) -> Mapping[str, str]:
    """What each run tells, by its id. Among runs that tell some, one that tells none counts as one of all
    data. Empty where no run tells any.
    """
    told = {run.run_id: told_by(run, request, datasets) for run in runs}
    if not any(labels(text) for text in told.values()):
        return {}
    return {run: text if labels(text) else ALL for run, text in told.items()}
