"""The look at aliases as a flow, on a real Prefect and a real MLflow."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from stockpot.entities import Seen, TrailKind
from stockpot.wiring import Workplace
from stockpot.workflow.trails import append

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_flow_tells_what_moved_and_what_made_it_look(prefect: None, mlflow_uri: str, home: Path) -> None:
    from stockpot_flows.watch_models import watch_models

    home.mkdir()
    client = MlflowClient(mlflow_uri)
    client.create_registered_model("birds")
    client.create_model_version("birds", source="file:///nowhere")
    with Workplace() as place:
        append(place, "birds", TrailKind.DECISION, {"verdict": "passed"}, by="anna")
    client.set_registered_model_alias("birds", "champion", "1")
    told = watch_models(seen=Seen.WEBHOOK, return_state=True)
    assert told.message == "1 model watched, 1 alias moved"
    assert watch_models(return_state=True).message == "1 model watched, 0 aliases moved"
    with Workplace() as place:
        (watch,) = place.store.watches()
        *_, move = place.store.trail(watch.trail)
    assert (move.kind, move.fact["seen"]) == (TrailKind.MOVE, Seen.WEBHOOK)
