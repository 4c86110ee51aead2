"""Soups that are signed and carry their proofs, from the registration to a stranger who verifies them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import pytest
from tests.contracts.signing_keys import private_pem, public_of, write_pair

from stockpot import calls
from stockpot.cli import main
from stockpot.entities import Decision, PublishedSoup, SoupRequest, tags
from stockpot.errors import BadRequest, RegistryConflict
from stockpot.ports.signing import SIGNATURE
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.publishing.proofs import CARD, MATERIALS, STATEMENT
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # five minutes and more where others work beside it
SECURITY = (Path(__file__).parents[2] / "SECURITY.md").read_text()
POLICY = """
[model.tiny]
task = "stockpot.testing.tiny:TinyTask"
task_args = {{ kind = "dense", n = 80 }}
signed_by = "{key}"
"""


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def request_(tiny_sweep: SoupRequest) -> SoupRequest:
    return replace(tiny_sweep, methods=("greedy",), margin=-20.0)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A key and its public one; the first is known to whoever registers."""
    private, public = write_pair(tmp_path / "keys")
    monkeypatch.setenv("STOCKPOT_SIGNING_KEY", str(private))
    return private, public


def registered(request: SoupRequest) -> PublishedSoup:
    (found,) = walk(request, Workplace(), in_turn, Silent()).soups
    return found


def artifacts(client: "MlflowClient", soup: PublishedSoup) -> Path:
    version = client.get_model_version("tiny", soup.uri.rpartition("/")[2])
    model = client.get_logged_model(version.tags["stockpot.logged_model"])
    return Path(urlparse(model.artifact_location).path)


def judged(uri: str, key: Path, home: Path) -> str:
    (home / "policies.toml").write_text(POLICY.format(key=key))
    decision: Decision = calls.gate(uri, watch=Silent())
    return next(f"{check.outcome}: {check.told}" for check in decision.checks if check.name == "signature")


def stranger(soup: PublishedSoup, folder: Path, public: Path) -> "subprocess.CompletedProcess[str]":
    """What SECURITY.md tells to do, word for word but for the version."""
    (block,) = re.findall(r"```sh\n(mlflow artifacts.*?)```", SECURITY, re.DOTALL)
    folder.mkdir()
    (folder / "public.pem").write_bytes(public.read_bytes())
    found = {k: v for k, v in os.environ.items() if not k.startswith("STOCKPOT")}
    found["PATH"] = f"{Path(sys.executable).parent}:{found['PATH']}"
    script = f"set -e\n{block.replace('models:/birds/3', soup.uri)}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=found, capture_output=True, text=True, check=False
    )


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(arguments)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_a_soup_is_signed_when_it_is_registered_and_a_stranger_and_the_gate_verify_it(
    request_: SoupRequest,
    client: "MlflowClient",
    keys: tuple[Path, Path],
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    soup = registered(request_)
    public = keys[1]
    there = artifacts(client, soup)
    assert {"MLmodel", "model.safetensors", "stockpot.json", SIGNATURE} <= {
        file.name for file in there.iterdir()
    }
    assert stranger(soup, tmp_path / "first", public).returncode == 0
    assert judged(soup.uri, public, home).startswith("passed: all its files are signed with the key ")
    found = told(capsys, "verify", soup.uri, "--key", str(public))
    assert found["signature_checked"]
    mlflow.pyfunc.load_model(soup.uri)  # by the server's own folder, to which MLflow adds a file
    assert judged(soup.uri, public, home).startswith("passed")

    (there / CARD).write_text("another card")
    assert judged(soup.uri, public, home) == "failed: its files are not those that were signed: README.md"
    refused = stranger(soup, tmp_path / "second", public)
    assert (refused.returncode, "README.md" in refused.stderr) == (1, True)

    other = write_pair(tmp_path / "others")[1]
    assert judged(soup.uri, other, home).startswith("failed: it is signed with another key, ")


def test_what_was_registered_without_a_key_is_signed_later_and_anew_with_another_one(
    request_: SoupRequest,
    client: "MlflowClient",
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    soup = registered(request_)
    private, public = write_pair(tmp_path / "first")
    assert judged(soup.uri, public, home) == "failed: it is not signed: it holds no model.sig"
    assert told(capsys, "verify", soup.uri)["key"] is None
    with pytest.raises(SystemExit, match="3"):
        main(["sign", soup.uri])
    assert "export STOCKPOT_SIGNING_KEY=" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="8"):
        main(["verify", soup.uri, "--key", str(public)])
    assert "is not signed" in capsys.readouterr().err

    secret = tmp_path / "password"
    secret.write_text("hunter2 and more\n")
    locked = tmp_path / "second" / "signing.pem"
    locked.parent.mkdir()
    locked.write_bytes(private_pem(password=b"hunter2 and more"))
    names = []
    for key, its in ((private, public), (locked, public_of(locked, b"hunter2 and more"))):
        monkeypatch.setenv("STOCKPOT_SIGNING_KEY", str(key))
        run("sign", soup.uri)
        assert judged(soup.uri, its, home).startswith("passed")
        names.append(told(capsys, "verify", soup.uri)["key"])
        monkeypatch.setenv("STOCKPOT_SIGNING_PASSWORD_FILE", str(secret))
    assert judged(soup.uri, public, home).startswith(
        f"failed: it is signed with another key, {names[1][:12]}"
    )

    (artifacts(client, soup) / "model.sig").write_bytes(b"{")
    with pytest.raises(SystemExit, match="8"):
        main(["verify", soup.uri])
    damaged = " ".join(capsys.readouterr().err.split())
    assert f"{soup.uri}: its model.sig is no signature" in damaged
    assert f"stockpot sign {soup.uri}" in damaged

    weights = artifacts(client, soup) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(SystemExit, match="8"):
        main(["sign", soup.uri])
    assert "is not signed: its model.safetensors is sha256:" in capsys.readouterr().err


def test_a_key_that_cannot_sign_ends_a_request_before_anything_is_evaluated(
    request_: SoupRequest, client: "MlflowClient", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_SIGNING_KEY", str(tmp_path / "nothing.pem"))
    place = Workplace()
    with pytest.raises(BadRequest, match=r"nothing\.pem, from STOCKPOT_SIGNING_KEY, cannot be read"):
        walk(request_, place, in_turn, Silent())
    assert client.search_model_versions("name='tiny'") == []
    assert place.store.registrations() == ()


@pytest.mark.parametrize("left", [SIGNATURE, "loaded_by_nobody.py"])
def test_files_that_an_earlier_attempt_left_are_in_no_version_that_is_signed(
    request_: SoupRequest,
    client: "MlflowClient",
    keys: tuple[Path, Path],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: str,
) -> None:
    place = Workplace()
    upload = place.tracker.upload

    def killed(model_id: str, folder: Path) -> None:
        (folder / left).touch()
        upload(model_id, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(place.tracker, "upload", killed)
    with pytest.raises(KeyboardInterrupt):
        walk(request_, place, in_turn, Silent())
    if left == SIGNATURE:
        monkeypatch.delenv("STOCKPOT_SIGNING_KEY")
    with pytest.raises(RegistryConflict, match="left files that belong to no signature now") as raised:
        registered(request_)
    assert raised.value.faults == (left,)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (model,) = client.search_logged_models(experiments, "tags.`stockpot.role` = 'soup'")
    assert model.name in raised.value.mend
    client.delete_logged_model(model.model_id)
    if left != SIGNATURE:
        assert judged(registered(request_).uri, keys[1], home).startswith("passed")
    else:
        assert registered(request_).uri


def test_another_request_takes_up_what_an_earlier_one_left_and_signs_it(
    request_: SoupRequest,
    keys: tuple[Path, Path],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Workplace()
    upload = place.tracker.upload

    def killed(model_id: str, folder: Path) -> None:
        upload(model_id, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(place.tracker, "upload", killed)
    with pytest.raises(KeyboardInterrupt):
        walk(request_, place, in_turn, Silent())
    soup = registered(replace(request_, margin=-30.0))  # the same soup, of another report
    assert judged(soup.uri, keys[1], home).startswith("passed")
    assert stranger(soup, tmp_path / "stranger", keys[1]).returncode == 0


def test_proofs_lie_beside_a_soup_stay_as_they_were_and_are_compared(
    request_: SoupRequest,
    client: "MlflowClient",
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    soup = registered(request_)
    there = artifacts(client, soup)
    proofs = {name: (there / name).read_bytes() for name in (CARD, MATERIALS, STATEMENT)}
    run("verify", soup.uri, "--out", str(tmp_path / "proof"))
    assert {file.name: file.read_bytes() for file in (tmp_path / "proof").iterdir()} == proofs

    again = registered(replace(request_, report_on="shifted", shifts=()))  # another card would tell of it
    assert again.uri == soup.uri
    assert "on shifted" in str(client.get_model_version("tiny", "1").description)
    assert {name: (there / name).read_bytes() for name in proofs} == proofs
    place = urlparse(client.get_run(soup.run_id).info.artifact_uri).path
    assert {name: Path(place, name).read_bytes() for name in proofs} == proofs
    assert "beside it tell of that" in told(capsys, "verify", soup.uri)["documents"]

    client.set_model_version_tag("tiny", "1", tags.MODEL, "elsewhere")  # a person may, and the bytes stay
    assert "beside it tell of that" in told(capsys, "verify", soup.uri)["documents"]
    digest = client.get_model_version("tiny", "1").tags[tags.CHECKPOINT]
    client.delete_model_version_tag("tiny", "1", tags.CHECKPOINT)
    with pytest.raises(SystemExit, match="8"):
        main(["verify", soup.uri])
    error = capsys.readouterr().err
    assert f"its tag {tags.CHECKPOINT} is missing" in error
    assert f"set it to {digest} again" in error
    client.set_model_version_tag("tiny", "1", tags.CHECKPOINT, digest)

    harm: dict[str, Callable[[Path], object]] = {
        f"{CARD} is another": lambda file: (file / CARD).write_bytes(b"---"),
        f"{STATEMENT} is missing": lambda file: (file / STATEMENT).unlink(),
    }
    for done in harm.values():
        done(there)
    with pytest.raises(SystemExit, match="8"):
        main(["verify", soup.uri])
    error = capsys.readouterr().err
    assert all(fault in error for fault in harm)
    for name in proofs:
        (there / name).unlink(missing_ok=True)
    assert told(capsys, "verify", soup.uri)["documents"] == "no documents lie beside it"
