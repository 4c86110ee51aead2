"""A real sweep across domains, for tests of whole walks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from stockpot.entities import Digest, Recipe, Register, SoupOutcome, SoupRequest, tags
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import LABELS, domain_weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

TASK = "stockpot.testing.tiny:DomainTask"
USED = LABELS[:3]


def plant_domains(client: "MlflowClient", experiment: str, like: SoupRequest) -> SoupRequest:
    """Three runs of each of three domains."""
    runs = {name: state(name) for name in (f"{domain}-{seed}" for domain in USED for seed in range(3))}
    asked = replace(like, task=TASK, task_args={"n": "300"}, shifts=(), register=Register.ALL)
    return tagged(client, experiment, asked, runs)


def tagged(
    client: "MlflowClient", experiment: str, asked: SoupRequest, runs: Mapping[str, dict[str, Tensor]]
) -> SoupRequest:
    """This request about a sweep of these runs, whose names begin with their domain."""
    sweep = plant_sweep(client, experiment, runs)
    for run in client.search_runs([client.get_run(sweep).info.experiment_id], "run_name != 'sweep'"):
        if run.info.run_name in runs:
            client.set_tag(run.info.run_id, tags.DOMAIN, run.info.run_name.rpartition("-")[0])
    return replace(asked, sweep=sweep)


def state(name: str) -> dict[str, Tensor]:
    """Of the run of this name."""
    domain, _, seed = name.rpartition("-")
    return domain_weights(domain, seed=int(seed), spread=0.05 * (1 + int(seed) % 3))


def walked(request: SoupRequest) -> SoupOutcome:
    """By a plain walk, in a workplace of its own."""
    return walk(request, Workplace(), in_turn, Silent())


def published_loop(checkpoints: Sequence[Digest], value: Callable[[Recipe], float]) -> tuple[Digest, ...]:
    """What greedy keeps: the best one, then in their order each that does not make the average worse.

    Source: Wortsman et al., "Model soups" (2022), recipe 1.
    """
    first, *others = sorted(checkpoints, key=lambda one: -value(Recipe.mean([one])))
    kept = [first]
    for one in others:
        if value(Recipe.mean([*kept, one])) >= value(Recipe.mean(kept)):
            kept.append(one)
    return tuple(kept)
