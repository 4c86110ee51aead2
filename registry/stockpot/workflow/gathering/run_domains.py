"""What runs tell of the domain of their data."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from stockpot.entities import Run, SoupRequest, tags
from stockpot.entities.domain import ALL, labels
from stockpot.entities.request import INPUTS
from stockpot.prose import counted, listed

Datasets = Mapping[str, Sequence[str]]
"""By run, the names of those that it was trained on."""

USUAL = ("domain", "dataset", "dataset_name", "corpus", "subset", "language", "lang")
"""Parameters in which training scripts log what data a run saw."""


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


def hint_of_domains(runs: Sequence[Run], request: SoupRequest, datasets: Callable[[], Datasets]) -> str:
    """A sentence where runs tell domains, or tell in another place what may be the domain of their data; else
    empty. `datasets`: asked only where the tag tells nothing.
    """
    if told := domains_of_runs(runs, replace(request, domain_from=None), {}):
        if {label for text in told.values() for label in labels(text)} == {ALL}:
            return ""  # all of all data
        counts = Counter(told.values())
        each = listed([f"{text} ({counted(number, 'run')})" for text, number in counts.items()])
        return f"runs tell domains in {tags.DOMAIN}: {each}; a task that tells each example's makes use of it"
    found = [(INPUTS, datasets())]
    for name in USUAL:
        logged = {run.run_id: (run.params[name],) for run in runs if run.params.get(name, "").strip()}
        found.append((f"params.{name}", logged))
    for place, by_run in found:
        values = sorted({value for told in by_run.values() for value in told})
        if len({*map(frozenset, by_run.values())}) < 2:
            continue  # all alike, if of several
        if 1 < len(values) < len(runs) and by_run.keys() >= {run.run_id for run in runs}:
            return (
                f"runs were trained on different data, by {place}: {listed(values)}. If those are domains, "
                f"and the task tells each example's, --domain-from {place} has each count alike"
            )
    return ""
