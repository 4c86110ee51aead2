"""What guards an alias, for `stockpot doctor`: the file of policies, and MLflow's webhooks of ours."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.diagnosis import Diagnosis, looked
from stockpot.errors import TrackingError
from stockpot.prose import counted, listed, near

if TYPE_CHECKING:
    from stockpot.entities import RegisteredModel
    from stockpot.workflow.promotion.policies import Policy

POLICIES, WEBHOOKS = "policies", "webhooks"
REGISTER = "stockpot serve --register URL"
ADMIN = "look as a user who may list MLflow's webhooks, an admin"


def policies(file: Path, *, answers: bool) -> Iterator[Diagnosis]:
    """Look at a file of policies, and at each of them: its model and aliases, where MLflow answers, and
    whether its task loads.
    """
    from stockpot.wiring import open_tracker
    from stockpot.workflow.promotion.policies import read_policies

    if not file.exists() and not os.environ.get("STOCKPOT_POLICIES"):
        yield Diagnosis.ok(POLICIES, f"{file}: none yet, no alias is guarded")
        return
    read = read_policies(file)
    yield Diagnosis.ok(POLICIES, f"{file}: {counted(len(read.models), 'policy', 'policies')}")
    there = {model.name: model for model in open_tracker().registered_models()} if answers else None
    for model, policy in read.models.items():
        yield from looked(POLICIES, partial(_policy, model, policy, there))


def _policy(
    model: str, policy: "Policy", there: "Mapping[str, RegisteredModel] | None"
) -> Iterator[Diagnosis]:
    from stockpot.evaluation import all_seeded
    from stockpot.signing import KeyVerifier
    from stockpot.tasks.loading import lacks_model_folder, load_task

    if there is not None and model not in there:
        yield Diagnosis.warning(
            POLICIES,
            f"{model}: MLflow has no registered model of that name{near(model, there)}",
            mend="correct the table's name, or register a version",
        )
    if policy.keys:
        KeyVerifier().require(policy.keys)
    task = f"its task {policy.task} loads"
    if lacks_model_folder(policy.task, policy.task_args):
        task = f"its task {policy.task} is loaded with a model of the version's own sweep"
    else:
        with all_seeded():
            load_task(policy.task, policy.task_args)
    known = there[model].aliases if there is not None and model in there else {}
    told = [
        f"{alias} is version {known[alias]}" if alias in known else f"nobody has {alias} yet"
        for alias in (policy.alias, policy.candidate)
    ]
    yield Diagnosis.ok(POLICIES, f"{model}: {task}; {', '.join(told)}")


def webhooks() -> Iterator[Diagnosis]:
    """Look at what MLflow delivers to receivers of ours. It does not tell whether anything arrived."""
    from stockpot.tracking import MlflowTracker
    from stockpot.tracking.mlflow_webhooks import subscriptions
    from stockpot.webhooks.changes import EVENTS

    try:
        found = subscriptions(MlflowTracker().client)
    except TrackingError as error:  # of MLflow's own users only an admin may ask
        yield Diagnosis.warning(WEBHOOKS, f"which there are is not known: {error.what}", mend=ADMIN)
        return
    if not found:
        yield Diagnosis.ok(WEBHOOKS, "none: what moves is found by the scheduled looks")
    for one in found:
        told = f"{one.name}: MLflow delivers to {one.url}"
        lacks = sorted({*EVENTS} - {*one.events})
        twins = sum(other.url == one.url for other in found) - 1
        if not one.active:
            told, mend = (
                f"{one.name}: somebody has disabled it, and nothing goes to {one.url}",
                "enable it in MLflow",
            )
        elif lacks:
            told, mend = f"{told}, but not {listed(lacks)}", REGISTER
        elif twins:
            told, mend = f"{told}, as {counted(twins, 'other')} does: each delivers everything", REGISTER
        else:
            yield Diagnosis.ok(WEBHOOKS, told)
            continue
        yield Diagnosis.warning(WEBHOOKS, told, mend=mend)
