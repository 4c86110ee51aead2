"""The flow that looks at the aliases of all models, every few minutes and when a webhook says so."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from stockpot.entities import Seen
from stockpot.errors import telling_no_secrets
from stockpot.settings import begin_log
from stockpot.watching import Lines
from stockpot.wiring import Workplace
from stockpot.workflow.promotion.watching import look, sentence


@flow(name="watch-models", flow_run_name="watch")
def watch_models(seen: Seen = Seen.POLL) -> State[Any]:
    """Write down which aliases moved since somebody looked last, and in which time nobody did.

    Args:
        seen: What made us look.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    begin_log()
    with telling_no_secrets():
        with Workplace(watch=Lines(get_run_logger().info)) as place:
            found = look(place, promised=place.settings.watch_every, seen=seen)
        for note in found.notes:
            get_run_logger().info(note)
        return Completed(message=sentence(found))
