"""What `docker/` holds, as far as it can be tried without an engine for containers."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from alembic import command
from alembic.script import ScriptDirectory
from cryptography.fernet import Fernet
from sqlalchemy import make_url
from tests.store.conftest import own_server

from stockpot.settings import Settings
from stockpot.store import schema, upgrade

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
OLDER = {"boto3", "botocore"}
"""s3fs asks for older ones than the tests' moto, which is in no image."""
RUNBOOK = (DOCKER / "RUNBOOK.md").read_text()
COMPOSE: Mapping[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_the_image_gets_every_file_that_it_copies() -> None:
    kept = (ROOT / ".dockerignore").read_text()
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
        if not word.startswith("--")
    ]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in kept


def test_each_image_ends_as_the_user_who_is_nobody() -> None:
    stages = (DOCKER / "Dockerfile").read_text().split("\nFROM ")
    targets = {name: stage for stage in stages for name in ("cpu", "cuda") if f" AS {name}\n" in stage}
    assert {name: re.findall(r"^USER (.*)", stage, re.MULTILINE) for name, stage in targets.items()} == {
        "cpu": ["10001"],
        "cuda": ["10001"],
    }


def test_the_runbooks_commands_name_services_and_pass_by_the_secrets() -> None:
    """What `exec` runs in a container has not gone through its entrypoint, which puts passwords in."""
    runs = re.findall(r"compose\.yaml exec (?:-T )?(\S+) (\S+)", RUNBOOK)
    assert len(runs) > 3
    for service, program in runs:
        assert service in COMPOSE["services"]
        assert service == "postgres" or program in ("prefect", "with-secrets"), program


def test_the_runbooks_addition_for_signatures_gives_a_worker_its_key() -> None:
    block = RUNBOOK.split("## Signatures")[1].split("```yaml\n")[1].split("```")[0]
    addition = yaml.safe_load(block)
    assert addition["services"].keys() <= COMPOSE["services"].keys()
    for service in addition["services"].values():
        assert set(service["secrets"]) == addition["secrets"].keys()
        ((variable, place),) = service["environment"].items()
        assert variable.removeprefix("STOCKPOT_").lower() in Settings.model_fields
        assert place.removeprefix("/run/secrets/") in service["secrets"]
    assert "./rules:/rules:ro" in COMPOSE["services"]["worker"]["volumes"], "where its policies find the key"


@pytest.mark.slow
def test_a_backup_is_restored_over_a_newer_schema(tmp_path: Path) -> None:
    """By the commands of the runbook, as they stand there."""
    block = RUNBOOK.split("## Back up\n\n```sh\n")[1].split("```")[0]
    back_up, restore = block.replace("docker compose -f docker/compose.yaml exec -T postgres ", "").split(
        "\n", 1
    )
    with own_server() as (url, _):
        host = make_url(url).query["host"]
        environment = {**os.environ, "PGHOST": str(host)}

        def run(command: str) -> None:
            subprocess.run(["sh", "-ec", command], cwd=tmp_path, env=environment, check=True)

        run("createuser --username=postgres --superuser stockpot; createdb --username=stockpot stockpot")
        store = f"postgresql://stockpot@/stockpot?host={host}"
        first = ScriptDirectory(str(ROOT / "alembic")).get_base()
        assert first is not None
        with schema.connected(store, writes=True) as connection:
            command.upgrade(schema._config(connection), first)
        run(back_up)
        upgrade(store)
        run(restore)
        assert schema.current(store) == first
        assert upgrade(store) == schema.head()


def _pins(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", file.read_text(), flags=re.MULTILINE))


def test_the_image_holds_what_was_tested() -> None:
    """Run `docker/lock.sh` after a change of constraints.txt."""
    tested = _pins(ROOT / "constraints.txt")
    locked = _pins(DOCKER / "requirements.lock") | _pins(DOCKER / "cuda.lock")
    assert {"mlflow", "prefect", "sqlalchemy", "torch"} <= locked.keys()
    others = {n: v for n, v in locked.items() if n in tested and n not in OLDER and tested[n] != v}
    assert others == {}


def test_every_file_of_the_image_has_a_hash() -> None:
    for name in ("requirements.lock", "cuda.lock"):
        text = (DOCKER / name).read_text()
        entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
        assert entries
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_nothing_of_compose_is_open_to_others_or_more_powerful_than_it_must_be() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert not service.get("privileged"), name
    assert not re.search(r"PASSWORD:|://[^{]*:[^{/]*@", (DOCKER / "compose.yaml").read_text())


def test_each_service_of_compose_gets_the_secrets_that_its_addresses_name() -> None:
    for name, service in COMPOSE["services"].items():
        environment = service.get("environment", {})
        named = {match for text in environment.values() for match in re.findall(r"\{(\w+)\}", text)}
        named |= {Path(text).name for text in environment.values() if text.startswith("/run/secrets/")}
        assert named <= set(service.get("secrets", ())), name
    assert set(COMPOSE["secrets"]) == {"database", "objects", "objects.json", "webhooks", "webhook_key"}


def test_secrets_are_drawn_once_and_lie_where_only_their_owner_looks(tmp_path: Path) -> None:
    program = tmp_path / "make-secrets"
    program.write_bytes((DOCKER / "make-secrets").read_bytes())

    def draw() -> dict[str, bytes]:
        subprocess.run(["sh", program], check=True)
        return {file.name: file.read_bytes() for file in (tmp_path / "secrets").iterdir()}

    drawn = draw()
    assert drawn.keys() == set(COMPOSE["secrets"])
    assert draw() == drawn
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    key = json.loads(drawn["objects.json"])["identities"][0]["credentials"][0]["secretKey"]
    assert f"aws_secret_access_key = {key}\n" in drawn["objects"].decode()
    for name in ("database", "webhooks"):
        assert re.fullmatch(r"[0-9a-f]{48}", drawn[name].decode()), "it stands in addresses as it is"
    assert Fernet(drawn["webhook_key"].strip()).encrypt(b"a secret of a webhook")


def _with_secrets(folder: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", DOCKER / "with-secrets", *command],
        env={"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_secret_stands_in_the_address_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "database").write_text("hush&*")
    told = _with_secrets(
        tmp_path, "printenv", "STOCKPOT_STORE_URL", STOCKPOT_STORE_URL="postgresql://me:{database}@db/s"
    )
    assert told.stdout == "postgresql://me:hush&*@db/s\n"
    plain = _with_secrets(tmp_path, "printenv", "STOCKPOT_STORE_URL", STOCKPOT_STORE_URL="sqlite:///s.db")
    assert plain.stdout == "sqlite:///s.db\n"


def test_a_secret_that_is_missing_is_named_and_nothing_runs(tmp_path: Path) -> None:
    told = _with_secrets(tmp_path, "echo", "ran", MLFLOW_BACKEND_STORE_URI="postgresql://me:{database}@db/m")
    assert (told.returncode, told.stdout) == (3, "")
    assert "MLFLOW_BACKEND_STORE_URI names the secret database" in told.stderr


def test_what_is_no_program_is_a_command_of_stockpot(tmp_path: Path) -> None:
    stockpot = tmp_path / "stockpot"
    stockpot.write_text('#!/bin/sh\necho "stockpot $*"\n')
    stockpot.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert _with_secrets(tmp_path, "soup", "--help", PATH=path).stdout == "stockpot soup --help\n"


def test_the_pool_for_kubernetes_gives_each_job_its_gpu_and_runs_none_twice() -> None:
    template = json.loads((DOCKER / "pools" / "kubernetes-gpu.json").read_text())
    job = template["job_configuration"]["job_manifest"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["backoffLimit"] == 0
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "{{ gpus }}"
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


@pytest.mark.slow
def test_prefect_takes_the_pool_for_kubernetes(prefect: None) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    template = json.loads((DOCKER / "pools" / "kubernetes-gpu.json").read_text())
    with get_client(sync_client=True) as api:
        api.create_work_pool(WorkPoolCreate(name="k8s", type="kubernetes", base_job_template=template))
        assert api.read_work_pool("k8s").base_job_template == template


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
    ],
)
def test_linters_find_nothing(command: list[str]) -> None:
    program, *arguments = command
    linted = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=DOCKER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
