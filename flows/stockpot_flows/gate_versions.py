"""The flow that lets the gate answer what people asked for in MLflow, on a worker that has their tasks."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from stockpot.entities import Seen
from stockpot.errors import telling_no_secrets
from stockpot.prose import one_line
from stockpot.settings import begin_log
from stockpot.watching import Lines
from stockpot.wiring import Workplace
from stockpot.workflow.promotion.asking import answer, sentence
from stockpot.workflow.promotion.policies import read_policies
from stockpot.workflow.promotion.watching import look
from stockpot_flows.approve_version import ask_person


@flow(name="gate-versions", flow_run_name="gate")
def gate_versions(seen: Seen = Seen.POLL) -> State[Any]:
    """Judge the versions that somebody made candidate or approved, and move the alias to those that pass.

    Args:
        seen: What made us look.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    begin_log()
    with telling_no_secrets(), Workplace(watch=Lines(get_run_logger().info)) as place:
        file = place.settings.policies_file
        if not file.exists():  # the deployment may well come before them
            return Completed(message=f"there are no policies yet: {file} is not there")
        policies = read_policies(file)
        look(place, models=policies.models, promised=place.settings.watch_every, seen=seen)
        answered = answer(place, policies, place.promoter, ask_person)
        for one in answered:
            tell = get_run_logger().warning if one.fault else get_run_logger().info
            tell(one_line(one.told))
        return Completed(message=sentence(answered))
