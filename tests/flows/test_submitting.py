"""What a flow run on workers says of its end, and what the command makes of it."""

import json
import math

import pytest

from stockpot.calls import submit
from stockpot.cli import main
from stockpot.documents import to_document
from stockpot.entities import Accept, Dtype, SoupRequest
from stockpot.errors import BadRequest, BadTask, Busy, NothingToSoup, StockpotError
from stockpot.testing.listener import Listener
from stockpot_flows.submitting import as_raised

REQUEST = SoupRequest(model="m", task="t", sweep="s")


@pytest.mark.parametrize(
    "error",
    [
        NothingToSoup("only one run", mend="log more"),
        BadTask("it breaks", faults=["first", "second"], mend="look"),
        Busy("another process\nis at it"),
    ],
)
def test_an_error_of_ours_is_read_from_what_prefect_keeps_of_it(error: StockpotError) -> None:
    read = as_raised(f"Flow run encountered an exception: {type(error).__name__}: {error}")
    assert type(read) is type(error)
    assert str(read) == str(error)
    assert read.exit_code == error.exit_code


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Flow run encountered an exception: KeyError: 'x'",
        "Flow run process exited with non-zero status code -9.",
        "TRACEBACK: a name in the module of errors that is none",
        "Sequence: neither",
    ],
)
def test_what_is_no_error_of_ours_is_read_as_none(message: str) -> None:
    assert as_raised(message) is None


def test_what_is_handed_over_arrives_as_the_request_that_it_was() -> None:
    from stockpot_flows.soup_sweep import soup_sweep

    request = SoupRequest(
        model="m",
        task="t",
        sweep="s",
        task_args={"n": "1"},
        margin="-1%",
        accept=Accept.BETTER,
        dtype=Dtype.FLOAT32,
        max_seconds=math.inf,
        shifts=("fog",),
    )
    sent = json.loads(json.dumps({"request": to_document(request), "helpers": 2}))
    assert soup_sweep.validate_parameters(sent) == {"request": request, "helpers": 2}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--submit", "--no-flow"], "leave out --flow and --no-flow"),
        (["--submit-to", "soup-sweep/large", "--flow"], "leave out --flow and --no-flow"),
        (["--helpers", "2"], "add --submit"),
        (["--submit", "--helpers", "-1"], "give a number from 0 on"),
        (["--submit"], "export PREFECT_API_URL="),
    ],
)
def test_options_that_contradict_each_other_are_told(
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("nobody")))
    with pytest.raises(SystemExit, match="3"):
        main(["soup", "--model", "m", "--task", "t", "--sweep", "s", *options])
    assert told in capsys.readouterr().err


def test_a_deployment_that_prefect_does_not_know_is_told_with_the_command_that_makes_it(
    prefect: None, tiny_sweep: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    with pytest.raises(BadRequest, match="has no deployment soup-sweep/nowhere") as caught:
        submit(tiny_sweep, deployment="soup-sweep/nowhere", watch=Listener())
    assert "prefect --no-prompt deploy --all" in caught.value.mend
