"""What people ask for in MLflow is answered by a flow, on a real Prefect and a real MLflow."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import save_file

from stockpot.entities import Ask
from stockpot.errors import BadRequest
from stockpot.testing.tiny import weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
POLICIES = """
[model.tiny]
task = "stockpot.testing.tiny:TinyTask"
task_args = { kind = "dense", n = 80 }
"""


def test_the_flow_moves_the_champion_to_the_candidate_that_passes_once(
    prefect: None, mlflow_uri: str, home: Path, tmp_path: Path
) -> None:
    from stockpot_flows.gate_versions import gate_versions

    client = MlflowClient(mlflow_uri)
    client.create_registered_model("tiny")
    save_file(weights(spread=0.0), tmp_path / "weights.safetensors")
    client.create_model_version("tiny", source=tmp_path.as_uri())
    client.set_registered_model_alias("tiny", "candidate", "1")
    none = gate_versions(return_state=True)
    assert none.message == f"there are no policies yet: {home}/policies.toml is not there"
    home.mkdir(exist_ok=True)
    (home / "policies.toml").write_text(POLICIES)
    assert gate_versions(return_state=True).message == "1 version judged"
    assert client.get_model_version_by_alias("tiny", "champion").version in {1, "1"}
    assert gate_versions(return_state=True).message == "0 versions judged"


def test_where_a_person_cannot_be_asked_nothing_moves_and_that_is_told(
    prefect: None, mlflow_uri: str, home: Path, tmp_path: Path
) -> None:
    from stockpot_flows.approve_version import ask_person
    from stockpot_flows.gate_versions import gate_versions

    home.mkdir()
    (home / "policies.toml").write_text(f'{POLICIES}confirm = "prefect"\n')
    client = MlflowClient(mlflow_uri)
    client.create_registered_model("tiny")
    save_file(weights(spread=0.0), tmp_path / "weights.safetensors")
    client.create_model_version("tiny", source=tmp_path.as_uri())
    client.set_registered_model_alias("tiny", "candidate", "1")
    state = gate_versions(return_state=True)
    assert state.message == "0 versions judged; 1 version could not be, as the log tells"
    with pytest.raises(BadRequest, match="Prefect has no deployment approve-version/approve") as told:
        ask_person(Ask("models:/tiny/1", "tag", name="one"))
    assert "prefect --no-prompt deploy --all" in str(told.value)
    assert set(client.get_registered_model("tiny").aliases) == {"candidate"}
