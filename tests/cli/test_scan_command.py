"""Rules, scans and announcements as people type them, on a real MLflow."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from mlflow import MlflowClient

from stockpot import calls
from stockpot.announcing import announce
from stockpot.cli import main
from stockpot.entities import Job, JobState
from stockpot.watching import Silent
from stockpot.wiring import Workplace

RULES = """
[[rule]]
name = "tiny"
experiments = ["sweeps"]
since = 1970-01-01
[rule.request]
model = "tiny"
task = "unheard-of"
[[rule]]
name = "tagged"
experiments = ["swe*"]
only_tagged = true
[rule.request]
model = "tagged"
task = "unheard-of"
"""


@pytest.fixture
def client(mlflow_uri: str, experiment: str, home: Path) -> MlflowClient:
    assert experiment == "sweeps"
    home.mkdir()
    (home / "rules.toml").write_text(RULES)
    return MlflowClient(mlflow_uri)


def sweep(client: MlflowClient, *, ends: bool = True) -> str:
    """A parent and two runs below it, of which one may not end; the parent's id."""
    found = client.get_experiment_by_name("sweeps")
    assert found is not None
    parent: str = client.create_run(found.experiment_id, run_name="[bold]sweep").info.run_id
    for number in range(2):
        below = client.create_run(found.experiment_id, tags={"mlflow.parentRunId": parent}).info.run_id
        if ends or number:
            client.set_terminated(below)
    client.set_terminated(parent)
    return parent


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, told, _ = run(capsys, *words, "--json")
    assert code == 0
    return json.loads(told)


def test_a_sweep_that_fails_stops_no_other_and_is_tried_again_later(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps, unfinished = {sweep(client), sweep(client)}, sweep(client, ends=False)
    client.create_run("0", tags={"stockpot.role": "soup"})
    dry = document(capsys, "scan", "--dry-run")
    standings = {one["sweep"]: one["standing"] for one in dry["sightings"]}
    assert standings == {**dict.fromkeys(sweeps, "due"), unfinished: "unfinished"}
    assert Workplace().store.job_records() == ()
    code, told, err = run(capsys, "scan")
    assert code == 3
    assert told.startswith("3 sweeps to look at, 2 asked for\n")
    assert "[bold]sweep" in told
    assert told.count("'unheard-of'") == 2
    assert err.count("has no answer") == 2
    records = Workplace().store.job_records()
    assert {(one.state, one.attempts) for one in records} == {(JobState.FAILED, 1)}
    assert {one.request and one.request.sweep for one in records} == sweeps
    assert "1 discrepancy between the store and MLflow: stockpot reconcile tells of them" in told
    again = document(capsys, "scan")
    looked = {(one["sweep"], one["standing"]) for one in again["sightings"]}
    assert (looked, again["notes"]) == ({(parent, "failed") for parent in sweeps}, [])
    assert document(capsys, "scan")["sightings"] == []


class AtEachSweep(Silent):
    """Does something before a scan works on a sweep."""

    def __init__(self, act: Callable[[str], object]) -> None:
        self._act = act

    def say(self, message: str) -> None:
        if message.startswith("the sweep ") and message.endswith(", for tiny"):
            self._act(message.split()[2].rstrip(","))


def test_scans_that_overlap_leave_to_each_other_what_one_is_at_and_count_no_attempt(
    client: MlflowClient,
) -> None:
    sweeps, store = {sweep(client), sweep(client)}, Workplace().store
    found, go_on = Event(), Event()

    def pause(_: str) -> None:
        found.set()
        assert go_on.wait(120)

    def take(parent: str) -> None:
        """As a third scan that is a moment quicker."""
        (record,) = store.job_records(sweeps=[parent])
        store.take_lease(f"{Job.LEASES}{record.name}", owner="h/1/x", seconds=600)

    with ThreadPoolExecutor(1) as other:
        first = other.submit(calls.scan, watch=AtEachSweep(pause))
        assert found.wait(120)
        _, second = calls.scan(watch=AtEachSweep(take))
        assert {one.sweep for one in second} == sweeps, "the first scan has come to none of them"
        assert [one.exit_code for one in second] == [0, 0]
        assert all(one.fault.startswith("another process works on this very") for one in second)
        for record in store.job_records():
            assert record.lease is not None
            store.release_lease(record.lease.name, owner="h/1/x")
        assert [(one.state, one.attempts) for one in store.job_records()] == [(JobState.WAITING, 0)] * 2
        go_on.set()
        assert [one.exit_code for one in first.result()[1]] == [3, 3]
    assert [(one.state, one.attempts) for one in store.job_records()] == [(JobState.FAILED, 1)] * 2


def test_rules_check_tells_what_each_would_match_and_changes_nothing(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(client)
    tagged = sweep(client, ends=False)
    client.set_tag(tagged, "stockpot.soup", "yes")
    code, told, _ = run(capsys, "rules", "check")
    assert code == 0
    assert "1 sweep of rule 'tiny' would be rule 'tagged''s too: the first one counts" in told
    found = document(capsys, "rules", "check")
    stages = [[one["stage"] for one in rule["sweeps"]] for rule in found["rules"]]
    assert stages == [["finished", "unfinished"], []]
    assert "rule 'tagged' matches nothing: sweeps holds no sweep with the tag stockpot.soup" in found["notes"]
    place = Workplace()
    assert place.store.sweeps_due(["tiny", "tagged"]) == ()
    assert place.store.job_records() == ()


def test_rules_that_match_everything_or_name_nothing_are_doubted(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sweep(client)
    file = tmp_path / "other.toml"
    request = '[rule.request]\nmodel = "m"\ntask = "t"\n'
    every, none = (
        '[[rule]]\nname = "every"\nexperiments = "*"\n',
        '[[rule]]\nname = "none"\nexperiments = "x"\n',
    )
    file.write_text(f'{every}since = "2100-01-01"\n{request}{none}{request}')
    found = document(capsys, "rules", "check", "--rules", str(file))
    assert [one["stage"] for one in found["rules"][0]["sweeps"]] == ["earlier"]
    assert any("matches every sweep of every experiment" in note for note in found["notes"])
    assert any("'none' names no experiment: there is none like x" in note for note in found["notes"])


def test_a_file_of_rules_that_is_missing_or_wrong_is_told_with_its_mend(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for words in (["scan"], ["rules", "check"]):
        code, _, err = run(capsys, *words, "--rules", str(tmp_path / "nowhere.toml"))
        assert code == 3
        assert "nowhere.toml cannot be read: No such file or directory" in err
    (tmp_path / "home" / "rules.toml").write_text(RULES.replace("task", "taks").replace("since", "filter"))
    code, _, err = run(capsys, "scan")
    assert code == 3
    assert "rule 'tiny': request: taks is unknown: did you mean task?" in err
    assert "rule 'tiny': filter must be a text, got datetime.date(1970, 1, 1)" in err


def test_a_filter_that_mlflow_refuses_names_its_rule(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    sweep(client)
    (home / "rules.toml").write_text(RULES.replace("since = 1970-01-01", 'filter = "nonsense"', 1))
    code, _, err = run(capsys, "rules", "check")
    assert code == 3
    assert "rule 'tiny': filter 'nonsense'" in err


def test_a_sweep_is_announced_once_and_asked_for_whatever_its_age(
    client: MlflowClient,
    capsys: pytest.CaptureFixture[str],
    home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (home / "rules.toml").write_text(RULES.replace("since = 1970-01-01", "since = 2100-01-01", 1))
    parent = sweep(client)
    first, again = (document(capsys, "announce", parent) for _ in range(2))
    assert first == again, "the tag stays, and so does the event's name while nothing has changed"
    assert client.get_run(parent).data.tags["stockpot.soup"] == first["tag"]
    assert first["notes"] == []
    assert [one["rule"] for one in document(capsys, "scan", "--dry-run")["sightings"]] == ["tiny"]
    named = document(capsys, "announce", parent, "--rule", "tagged")
    assert json.loads(named["tag"])["rule"] == "tagged"
    assert document(capsys, "announce", parent, "--rule", "tagged")["tag"] == named["tag"]
    assert [one["rule"] for one in document(capsys, "scan", "--dry-run")["sightings"]] == ["tagged"]
    unfinished = document(capsys, "announce", running := sweep(client, ends=False))
    assert unfinished["notes"] == ["1 run of the sweep not ended: the soup waits for that"]
    told = run(capsys, "announce", running)[1]
    assert f"- {unfinished['notes'][0]}" in told
    assert [line for line in caplog.records if line.name == "stockpot"] == [], "people are told once"
    assert announce(running).notes == (caplog.messages[-1],), "programs by their log, too"
    for below in client.search_runs(["1"], f"tags.mlflow.parentRunId = '{running}'"):
        client.set_terminated(below.info.run_id)
    assert document(capsys, "announce", running)["event"] != unfinished["event"], (
        "Prefect's trigger fires anew"
    )


def test_a_tag_that_a_person_has_set_stays(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    parent = sweep(client)
    client.set_tag(parent, "stockpot.soup", "please")
    assert document(capsys, "announce", parent)["tag"] == "please"
    assert client.get_run(parent).data.tags["stockpot.soup"] == "please"


def test_an_alias_in_mlflow_asks_for_the_sweep_of_the_versions_run(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    rules = RULES.replace("since = 1970-01-01", "since = 2100-01-01", 1)
    (home / "rules.toml").write_text(
        rules.replace("only_tagged = true", 'only_tagged = true\nalias = "soup-this"')
    )
    parent = sweep(client)
    below = client.search_runs(["1"], f"tags.mlflow.parentRunId = '{parent}'")[0].info.run_id
    client.create_registered_model("tagged")
    made = client.create_model_version("tagged", f"runs:/{below}/model", run_id=below)
    assert document(capsys, "scan", "--dry-run")["sightings"] == []
    client.set_registered_model_alias("tagged", "soup-this", made.version)
    (found,) = document(capsys, "scan", "--dry-run")["sightings"]
    assert (found["sweep"], found["rule"]) == (parent, "tagged")
    assert found["detail"] == "models:/tagged@soup-this is models:/tagged/1"
    checked = document(capsys, "rules", "check")["rules"]
    assert [[one["sweep"] for one in rule["sweeps"]] for rule in checked] == [[], [parent]]


def test_what_is_no_sweep_is_not_announced(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    parent = sweep(client)
    below = client.search_runs(["1"], f"tags.mlflow.parentRunId = '{parent}'")[0].info
    bare = client.create_run(below.experiment_id).info.run_id
    for run_id, fault in (
        (below.run_id, f"stockpot announce {parent}"),
        (bare, "has no runs below it"),
        ("nobody", "no run 'nobody'"),
    ):
        code, _, err = run(capsys, "announce", run_id)
        assert code == 3
        assert fault in err
    assert "stockpot.soup" not in client.get_run(below.run_id).data.tags
