"""The gate and a promotion as people type them, on a real MLflow, of versions that Stockpot did not make."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from safetensors.torch import save_file

from stockpot import calls
from stockpot.cli import main
from stockpot.errors import BadRequest, GateFailed
from stockpot.person import person
from stockpot.testing.tiny import weights
from stockpot.watching import Silent

POLICIES = """
[model.tiny]
task = "stockpot.testing.tiny:TinyTask"
task_args = { kind = "dense", n = 80 }
shifts = ["shifted"]
margin = -5
"""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def client(mlflow_uri: str, home: Path, tmp_path: Path) -> MlflowClient:
    """A good version, which is champion, the same once more, and a poor one."""
    home.mkdir()
    (home / "policies.toml").write_text(POLICIES)
    client = MlflowClient(mlflow_uri)
    client.create_registered_model("tiny")
    for number, tensors in enumerate([weights(spread=0.0)] * 2 + [weights(seed=9, spread=2.0)], start=1):
        folder = tmp_path / f"logged-{number}"
        folder.mkdir()
        save_file(tensors, folder / "weights.safetensors")
        client.create_model_version("tiny", source=folder.as_uri())
    client.set_registered_model_alias("tiny", "champion", "1")
    return client


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def champion(client: MlflowClient) -> str:
    return str(client.get_model_version_by_alias("tiny", "champion").version)


def test_the_gate_judges_and_moves_nothing(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = run(capsys, "gate", "models:/tiny/2")
    assert code == 0
    assert "models:/tiny/2 against models:/tiny/1, for champion: passed" in told
    code, told, err = run(capsys, "gate", "models:/tiny/3")
    assert (code, champion(client)) == (11, "1")
    assert "for champion: failed" in told
    assert "models:/tiny/3 may not be champion\n  - score: -" in err
    code, told, _ = run(capsys, "gate", "models:/tiny/3", "--json")
    document: Any = json.loads(told)
    assert (code, document["verdict"], document["champion"]["uri"]) == (11, "failed", "models:/tiny/1")
    assert document["checks"][0]["name"] == "bytes"


def test_a_promotion_moves_the_alias_once_and_says_so_the_second_time(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("promote", "models:/tiny/2", "--to", "champion", "--reason", "newer data")
    code, told, _ = run(capsys, *words)
    assert (code, champion(client)) == (0, "2")
    assert "champion of tiny moved from models:/tiny/1 to models:/tiny/2" in told
    code, told, _ = run(capsys, *words, "--json")
    document = json.loads(told)
    assert (code, document["moved"], document["decision"]) == (0, False, None)
    assert "champion already" in document["told"]


def test_a_promotion_that_fails_moves_nothing_unless_a_person_answers_for_it(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("promote", "models:/tiny/3", "--reason", "newer data")
    code, told, err = run(capsys, *words)
    assert (code, champion(client)) == (11, "1")
    assert "champion of tiny stays with models:/tiny/1" in told
    assert "--override WHY" in err
    code, told, _ = run(capsys, *words, "--override", "the old one leaks")
    assert (code, champion(client)) == (0, "3")
    assert "overridden: the old one leaks" in told
    code, told, _ = run(capsys, "audit", "tiny", "--verify", "--json")
    (audited,) = json.loads(told)
    kinds = [(entry["kind"], entry["reason"]) for entry in audited["entries"]]
    assert kinds[1:] == [("decision", "newer data"), ("decision", "newer data"), ("move", "newer data")]
    assert (code, audited["verification"]["standing"]) == (0, "anchored")
    code, told, _ = run(capsys, "audit", "tiny")
    assert "overridden" in told


def test_what_is_asked_for_in_vain_is_said_with_its_mend(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    words = ("promote", "models:/tiny/2", "--reason", "newer data")
    for changed, why in (
        (("gate", "models:/tiny/77"), "no models:/tiny/77"),
        ((*words, "--to", "staging"), "guards the alias champion, not staging"),
        (("promote", "models:/tiny/2", "--reason", " "), "--reason is empty"),
        ((*words, "--policies", "nowhere.toml"), "nowhere.toml cannot be read"),
    ):
        code, _, err = run(capsys, *changed)
        assert code == 3
        assert why in err
    assert champion(client) == "1"
    (home / "policies.toml").write_text(POLICIES.replace("model.tiny", "model.tine"))
    code, _, err = run(capsys, *words)
    assert code == 3
    assert "no policy for the model 'tiny': there are tine: did you mean tine?" in err


def test_who_sets_the_alias_for_candidates_in_mlflow_is_answered_once(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.set_registered_model_alias("tiny", "candidate", "2")
    code, told, _ = run(capsys, "watch", "--gate")
    assert (code, champion(client)) == (0, "2")
    assert "models:/tiny/2, alias candidate in MLflow: champion of tiny moved from models:/tiny/1" in told
    client.set_registered_model_alias("tiny", "champion", "3")
    _, told, _ = run(capsys, "watch", "--gate", "--json")
    (one,) = json.loads(told)["answered"]
    assert (one["ask"]["uri"], one["promotion"], champion(client)) == ("models:/tiny/3", None, "3")
    failed = [check["name"] for check in one["decision"]["checks"] if check["outcome"] == "failed"]
    assert failed == ["score", "shift shifted"]


def test_programs_promote_as_people_do(client: MlflowClient) -> None:
    failed = calls.promote("models:/tiny/3", reason="newer data", by="a pipeline", watch=Silent())
    with pytest.raises(GateFailed):
        failed.require_moved()
    assert calls.gate("models:/tiny/2", watch=Silent()).lets_pass
    assert calls.promote("models:/tiny/2", reason="newer data", watch=Silent()).moved
    assert champion(client) == "2"
    with pytest.raises(BadRequest, match="--by is empty"):
        calls.promote("models:/tiny/2", reason="why", by="")


def test_a_person_is_known_by_git_or_by_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[user]\nname = Ada Lovelace\nemail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert person().startswith("Ada Lovelace <ada@example.org> on ")
    config.write_text("")
    monkeypatch.setenv("LOGNAME", "ada")
    assert person().startswith("ada on ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert person().startswith("ada on ")
