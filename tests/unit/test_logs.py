"""The log for programs: each line an object, whoever wrote it."""

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stockpot.calls import sweeps
from stockpot.cli import main
from stockpot.cli.watching import watched
from stockpot.entities import Job, SoupRequest, digest_of_bytes
from stockpot.errors import TRACEBACK, BadRequest
from stockpot.logs import LOG, working_on, write_json
from stockpot.watching import Lines
from stockpot.workflow.scanning.findings import Asked

Told = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """The lines so far. Loggers are theirs again in the end."""
    monkeypatch.setenv("STOCKPOT_LOG", "json")
    loggers = [logging.root, *map(logging.getLogger, tuple(logging.root.manager.loggerDict))]
    before = [(logger, tuple(logger.handlers)) for logger in loggers]
    level = LOG.level
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    for logger, handlers in before:
        logger.handlers[:] = handlers
    LOG.setLevel(level)
    LOG.propagate = True
    logging.captureWarnings(capture=False)


def test_a_line_tells_when_who_and_what_is_worked_on(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_STORE_URL", "postgresql://me:hush@db/stockpot")
    another = logging.getLogger("another.library")
    another.addHandler(logging.StreamHandler())
    another.propagate = False
    write_json()
    write_json()
    with working_on(model="birds", sweep=None, job="sha256:1"):
        watched(lambda watch: watch.say("rank:\n begins"))
        another.warning("no answer\nfrom postgresql://me:hush@db/stockpot")
    logging.getLogger("third").warning("besides")
    ours, theirs, third = told()
    assert ours.pop("time").endswith("+00:00")
    about = {"model": "birds", "job": "sha256:1"}
    assert ours == {"level": "INFO", "logger": "stockpot", "message": "rank:\\n begins", **about}
    assert theirs["message"] == "no answer\nfrom postgresql://***@db/stockpot"
    assert (theirs["level"], theirs["logger"], theirs["model"]) == ("WARNING", "another.library", "birds")
    assert "model" not in third


def test_threads_tell_what_the_process_works_on_unless_that_is_several_things(told: Told) -> None:
    write_json()
    with working_on(model="one"), ThreadPoolExecutor(1) as threads:
        threads.submit(LOG.info, "by a thread").result()
        with working_on(model="two"):
            LOG.info("of two")
            threads.submit(LOG.info, "by a thread").result()
            with working_on(model="two"):
                LOG.info("of two")
        with working_on(model="one"):
            threads.submit(LOG.info, "by a thread").result()
    assert [line.get("model") for line in told()] == ["one", "two", None, "two", "one"]


def test_each_line_of_a_scan_tells_which_sweep_it_is_about(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise BadRequest("no split")

    monkeypatch.setattr(sweeps, "soup", fails)
    write_json()
    request = SoupRequest(model="m", task="t", sweep="1f0c")
    asked = Asked(request, Job(digest_of_bytes(b"job"), request), 0)
    assert sweeps._done(asked, Lines(LOG.info)).exit_code == BadRequest.exit_code
    about = ("m", "1f0c", asked.job.name)
    assert [(line["model"], line["sweep"], line["job"]) for line in told()] == [about] * 2


def test_an_error_is_a_line_with_its_mend_and_results_stay_as_they_are(
    told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(SystemExit, match="3"):
        main(["soup", "--model", "m", "--task", "t", "--sweep", "s", "--helpers", "1", "--json"])
    (line,) = told()
    assert (line["level"], line["error"], line["mend"]) == ("ERROR", "BadRequest", "add --submit")
    assert line["message"] == "--helpers is for a run on workers"
    assert line["traceback"].endswith(line["message"] + "\nTo mend it: add --submit")
    with pytest.raises(SystemExit, match="0"):
        main(["task", "list"])
    assert "arrays  stockpot.tasks" in capsys.readouterr().out


def test_another_word_is_told_with_those_that_can_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_LOG", "xml")
    with pytest.raises(SystemExit, match="3"):
        main(["task", "list"])
    assert "STOCKPOT_LOG=xml: Input should be 'text' or 'json'" in capsys.readouterr().err
