"""The services of `docker/compose.yaml` without an engine: each by its own command and healthcheck.

All that is Python runs here, on a real PostgreSQL and a store that speaks S3. A sweep becomes a version.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto.server import ThreadedMotoServer
from sqlalchemy import create_engine, make_url, text
from tests.flows.prefect_site import Site, awaited, free_port
from tests.store.conftest import own_server

from stockpot.documents import to_document
from stockpot.entities import SoupRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE: Mapping[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
PORTS = {"postgres": 5432, "objects": 8333, "mlflow": 5000, "prefect": 4200, "webhooks": 4300, "worker": 8080}
"""On which each service listens within its own container."""
PLANT = """
import sys
from mlflow import MlflowClient
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(4)}
print(plant_sweep(MlflowClient(), "sweeps", runs))
"""
STORED = """
import boto3
found = boto3.client("s3").list_objects_v2(Bucket="mlflow")
print("\\n".join(each["Key"] for each in found["Contents"]))
"""


class Services:
    """Containers have names, each its own ports and its own /data: here all share one machine."""

    def __init__(self, site: Site, folder: Path, ports: Mapping[str, int]) -> None:
        self._site = site
        self._folder = folder
        self._ports = ports

    def variables(self, name: str) -> dict[str, str]:
        """What this service's processes find in their environment."""
        home = self._folder / name
        home.mkdir(exist_ok=True)
        told = {key: self._here(value) for key, value in COMPOSE["services"][name]["environment"].items()}
        told["STOCKPOT_OUTPUTS"] = ""  # s3fs is in the image alone: it asks for an older botocore than moto
        return {**told, "HOME": str(home), "STOCKPOT_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}

    def log(self, name: str) -> str:
        """What this service has told."""
        return (self._site.folder / f"{name}.log").read_text()

    def run(self, name: str, *command: str) -> str:
        """Its command, or another in its place, to the end; what it prints."""
        words = command or tuple(self._here(word) for word in COMPOSE["services"][name]["command"])
        environment = {**os.environ, **self._site.variables, **self.variables(name)}
        done = subprocess.run(
            ["sh", DOCKER / "with-secrets", *words],
            env=environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}"
        return done.stdout

    def start(self, name: str) -> None:
        """Its command, until it is healthy by its own healthcheck."""
        service = COMPOSE["services"][name]
        words = [self._here(word) for word in service["command"]]
        process = self._site.start(name, "sh", str(DOCKER / "with-secrets"), *words, **self.variables(name))
        _, *check = (self._here(word) for word in service["healthcheck"]["test"])

        def healthy() -> bool | None:
            assert process.poll() is None, self.log(name)
            return subprocess.run(check, capture_output=True, check=False).returncode == 0 or None

        awaited(healthy, name)

    def _here(self, told: str) -> str:
        """Of a text of the file, with this machine's addresses."""
        for name, port in PORTS.items():
            told = re.sub(rf"\b{name}:{port}\b", f"127.0.0.1:{self._ports[name]}", told)
            told = re.sub(rf"(127\.0\.0\.1:|--port=){port}\b", rf"\g<1>{self._ports[name]}", told)
        told = re.sub(r"\$\{(\w+):-(.*?)\}", lambda found: self._site.variables.get(found[1], found[2]), told)
        told = told.replace("@postgres/", f"@127.0.0.1:{self._ports['postgres']}/")
        return told.replace("/run/secrets", str(self._folder / "secrets"))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """PostgreSQL and the object store are up; all others are the test's to start."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(DOCKER / "make-secrets", folder)
    subprocess.run(["sh", folder / "make-secrets"], check=True)
    ports = {name: free_port() for name in PORTS}
    objects = ThreadedMotoServer(ip_address="127.0.0.1", port=ports["objects"], verbose=False)
    site = Site(
        folder,
        {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "SECRETS_FOLDER": str(folder / "secrets"),
            "PREFECT_WORKER_WEBSERVER_PORT": str(ports["worker"]),
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        },
    )
    objects.start()
    try:
        with own_server(ports["postgres"]) as (url, _):
            engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:  # what the image of PostgreSQL does when it is new
                connection.execute(text("CREATE ROLE stockpot SUPERUSER LOGIN"))
                connection.execute(text("CREATE DATABASE stockpot OWNER stockpot"))
                for statement in COMPOSE["configs"]["databases"]["content"].split(";\n")[:-1]:
                    connection.execute(text(statement))
            engine.dispose()
            yield Services(site, folder, ports)
            site.close()
    finally:
        site.close()
        objects.stop()


def test_the_services_become_healthy_in_their_order_and_a_sweep_becomes_a_version(services: Services) -> None:
    services.run("buckets")
    services.run("buckets")  # as after a restart
    services.start("mlflow")
    services.start("prefect")
    services.run("migration")
    services.run("deployments")
    services.run("deployments")
    services.start("worker")
    services.start("webhooks")
    sweep = services.run("worker", sys.executable, "-c", PLANT).split()[-1]
    request = SoupRequest(
        model="birds",
        task="stockpot.testing.tiny:TinyTask",
        task_args={"kind": "dense", "n": "80"},
        sweep=sweep,
        margin=-100.0,
    )
    parameters = json.dumps({"request": to_document(request)})
    ask = ("prefect", "deployment", "run", "soup-sweep/soup", "--params", parameters, "--watch")
    try:
        assert "Completed" in services.run("worker", *ask)
    except AssertionError as error:
        raise AssertionError(services.log("worker")) from error
    shown = json.loads(services.run("worker", "show", "models:/birds@challenger", "--json"))
    assert shown["version"]["name"] == "birds"
    awaited(
        lambda: "birds: the alias challenger is on version" in services.log("webhooks") or None, "a webhook"
    )
    stored = services.run("buckets", sys.executable, "-c", STORED)
    assert "model.safetensors" in stored
    assert "sqlite" not in services.variables("worker")["STOCKPOT_STORE_URL"]
