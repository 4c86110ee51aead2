"""A person's word in Prefect's UI: real server, worker and MLflow; forms are answered as the UI does it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from safetensors.torch import save_file
from tests.flows.prefect_site import PREFECT, Site, awaited, below, prefect_site

from stockpot import calls
from stockpot.entities import TrailKind
from stockpot.entities.trail import UNKNOWN
from stockpot.testing.tiny import weights
from stockpot.wiring import Workplace
from stockpot.workflow.promotion.asking import Answered, answer
from stockpot.workflow.promotion.policies import read_policies
from stockpot.workflow.promotion.watching import look

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PATIENCE = 600
"""Seconds for a flow run, whose process loads Prefect, MLflow and torch, on cores that others use."""
POLICY = """
[model.{model}]
task = "stockpot.testing.tiny:TinyTask"
task_args = {{ kind = "dense", n = 80 }}
margin = -20
confirm = "prefect"
"""
MODELS = ("moved", "refused", "forgotten")


@dataclass
class Page:
    """Prefect's UI, by the calls that it makes, and MLflow's."""

    site: Site
    mlflow: MlflowClient

    def call(self, path: str, question: Any = None, method: str = "POST") -> Any:
        """Again where the server's database was locked: then it answers 503, and Prefect's UI says so."""
        url = f"{self.site.variables['PREFECT_API_URL']}/{path}"

        def taken() -> httpx.Response | None:
            reply = httpx.request(method, url, json=question, trust_env=False, timeout=60)
            return None if reply.status_code == 503 else reply

        reply = awaited(taken, f"an answer to {path}")
        return reply.raise_for_status().json() if reply.content else None

    def runs(self, model: str) -> list[Any]:
        """Those that ask a person about a version of this model, the oldest first."""
        wanted = {"deployments": {"name": {"any_": ["approve"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[Any] = self.call("flow_runs/filter", wanted)
        return [run for run in found if run["parameters"]["uri"].startswith(f"models:/{model}/")]

    def form(self, model: str, after: str = "") -> tuple[str, str]:
        """The text of the form that the last run waits with, once it does; and the name of that state.
        `after`: the name of an earlier one, which was answered.

        Not before its process is gone: Prefect 3.8.8 ends a worker with a limit that is given a run which it
        has still. A person who reads and types is slower than that.
        """

        def shown() -> tuple[str, str] | None:
            for run in self.runs(model)[-1:]:
                state = run["state"]
                assert state["type"] not in {"COMPLETED", "FAILED", "CRASHED"}, state["message"]
                if state["type"] == "PAUSED" and state["id"] != after:
                    key = state["state_details"]["run_input_keyset"]["description"]
                    held = self.call(
                        f"flow_runs/{run['id']}/input/filter", {"prefix": key, "limit": 1, "exclude_keys": []}
                    )
                    return (str(json.loads(held[0]["value"])), state["id"]) if held else None
            return None

        found = awaited(shown, f"the form about {model}", PATIENCE)
        worker = self.site.processes[-1].pid
        awaited(lambda: None if below(worker) else True, "the end of the process that asked")
        return found

    def say(self, model: str, **word: object) -> str:
        """What Prefect makes of an answer to the last run."""
        run = self.runs(model)[-1]
        return str(self.call(f"flow_runs/{run['id']}/resume", {"run_input": word})["status"])

    def end(self, model: str) -> str:
        """How the last run ended, once it has."""

        def ended() -> str | None:
            state = self.runs(model)[-1]["state"]
            is_final = state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
            return f"{state['type']}: {state['message']}" if is_final else None

        return awaited(ended, f"the end about {model}", PATIENCE)

    def champion(self, model: str) -> str | None:
        aliases = self.mlflow.get_registered_model(model).aliases
        return str(aliases["champion"]) if "champion" in aliases else None

    def point(self, model: str, alias: str, version: str | None) -> None:
        """Move an alias by hand."""
        if version is None:
            self.mlflow.delete_registered_model_alias(model, alias)
        else:
            self.mlflow.set_registered_model_alias(model, alias, version)


@pytest.fixture(scope="module")
def page(migrated_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp("asking")
    (folder / "mlflow.db").write_bytes(migrated_mlflow.read_bytes())
    (folder / "home").mkdir()
    (folder / "home" / "policies.toml").write_text("".join(POLICY.format(model=model) for model in MODELS))
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    for model in MODELS:
        client.create_registered_model(model)
        for name in ("one", "two"):
            (folder / model / name).mkdir(parents=True)
            save_file(weights(spread=0.0), folder / model / name / "weights.safetensors")
            client.create_model_version(model, source=(folder / model / name).as_uri())
    with pytest.MonkeyPatch.context() as patch, prefect_site(folder / "prefect") as site:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.setenv(name, uri)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        patch.setenv("STOCKPOT_HOME", str(folder / "home"))
        site.deploy(folder)
        site.start_worker("one", limit=2)
        with temporary_settings({PREFECT_API_URL: site.variables["PREFECT_API_URL"]}):
            yield Page(site, client)


def looked(model: str) -> tuple[Answered, ...]:
    """What a look at this model finds, as the flow `gate` takes one; its process takes a while to begin."""
    from stockpot_flows.approve_version import ask_person

    with Workplace() as place:
        policies = read_policies(place.settings.policies_file)
        look(place, models=[model])
        found = answer(place, policies, place.promoter, ask_person)
        return tuple(one for one in found if one.ask.uri.startswith(f"models:/{model}/"))


def decided(model: str) -> list[tuple[str, str]]:
    """Who decided, and why, but for the gate's own word on what was moved by hand."""
    (trail,) = calls.audit(model)
    entries = [one for one in trail.entries if one.kind is TrailKind.DECISION]
    return [(one.by, one.reason) for one in entries if one.by != UNKNOWN]


def test_a_yes_moves_the_alias_once_and_counts_for_what_was_shown_last(page: Page) -> None:
    page.point("moved", "candidate", "1")
    page.site.run(*PREFECT, "deployment", "run", "gate-versions/gate", "--watch")
    told, first = page.form("moved")
    assert "models:/moved/1 as champion: passed" in told
    assert looked("moved") == ()
    assert len(page.runs("moved")) == 1, "it is asked once, however often somebody looks"
    assert page.say("moved", promote=True, who=" ", reason="") == "REJECT"
    worker = page.site.processes[-1]
    worker.kill()  # nothing of the run is in it
    worker.wait()
    page.site.start_worker("two", limit=2)

    page.point("moved", "champion", "2")
    assert page.say("moved", promote=True, who="Ada", reason="it is the first") == "ACCEPT"
    told, second = page.form("moved", after=first)
    assert "in place of models:/moved/2" in told
    assert page.champion("moved") == "2"

    page.point("moved", "champion", None)  # as at the first form, which was answered with yes
    assert page.say("moved", promote=False, who="Ada", reason="two is better") == "ACCEPT"
    told, _ = page.form("moved", after=second)
    assert "in place of" not in told
    assert page.champion("moved") is None

    assert page.say("moved", promote=True, who="Ada", reason="two is gone") == "ACCEPT"
    assert page.say("moved", promote=False, who="Bo", reason="too late") == "ABORT"
    assert page.end("moved") == "COMPLETED: champion of moved moved from nobody to models:/moved/1"
    assert (page.champion("moved"), looked("moved")) == ("1", ())
    assert len(page.runs("moved")) == 1
    assert decided("moved") == [("Ada", "two is gone")]


def test_a_no_is_kept_and_who_cancels_is_asked_no_more_unless_he_retries(page: Page) -> None:
    page.point("refused", "candidate", "1")
    assert looked("refused") == ()
    page.form("refused")
    page.say("refused", promote=False, who="Bo", reason="not before May")
    assert page.end("refused") == "COMPLETED: champion of refused stays with nobody"
    assert (looked("refused"), len(page.runs("refused"))) == ((), 1)
    assert decided("refused") == [("Bo", "not before May")]

    page.point("refused", "candidate", "2")
    assert looked("refused") == ()
    told, form = page.form("refused")
    assert "models:/refused/2" in told
    run = page.runs("refused")[-1]["id"]
    page.site.run(*PREFECT, "flow-run", "cancel", run)
    assert page.end("refused").startswith("CANCELLED")
    for _ in range(2):
        (left,) = looked("refused")
        assert left.fault.startswith("nobody is asked any more")
    assert len(page.runs("refused")) == 2

    page.site.run(*PREFECT, "flow-run", "retry", run)  # as the fault's mend says
    told, _ = page.form("refused", after=form)
    assert "models:/refused/2" in told
    page.mlflow.delete_model_version("refused", "2")
    assert page.say("refused", promote=True, who="Ada", reason="seen") == "ACCEPT"
    assert page.end("refused").startswith("COMPLETED: models:/refused/2 was answered meanwhile, or nobody")
    assert (page.champion("refused"), len(decided("refused"))) == (None, 1)


def test_an_ask_that_nobody_answers_in_time_is_asked_three_times_and_then_told(page: Page) -> None:
    from stockpot_flows.approve_version import TRIES

    page.point("forgotten", "candidate", "1")
    deployment = page.call("deployments/name/approve-version/approve", method="GET")["id"]
    page.call(f"deployments/{deployment}", {"parameters": {"seconds": 1}}, method="PATCH")
    for number in range(TRIES):
        assert looked("forgotten") == ()
        assert len(page.runs("forgotten")) == number + 1
        assert page.end("forgotten") == "FAILED: The flow was paused and never resumed."
    for _ in range(2):
        (left,) = looked("forgotten")
        assert left.fault.endswith("ended as Failed: The flow was paused and never resumed.")
    assert (len(page.runs("forgotten")), page.champion("forgotten")) == (TRIES, None)
    page.call(f"deployments/{deployment}", {"parameters": {}}, method="PATCH")
    page.point("forgotten", "candidate", "2")  # another ask
    assert looked("forgotten") == ()
    assert "models:/forgotten/2" in page.form("forgotten")[0]
