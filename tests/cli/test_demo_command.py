"""`make demo`, where Prefect's own server does not start."""

import re
import subprocess
from pathlib import Path

import pytest

from stockpot.demo import __main__ as demo
from stockpot.demo import command
from stockpot.entities import SoupRequest
from stockpot.errors import NothingToSoup, PrefectUnreachable

ROOT = Path(__file__).parents[2]


def test_where_prefect_fails_the_demo_names_a_mend_that_works_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walk(_: SoupRequest, *, flow: bool, watch: object) -> None:
        raise PrefectUnreachable("too late", mend="--no-flow") if flow else NothingToSoup("walked")

    monkeypatch.setattr(command, "soup", walk)
    monkeypatch.setattr(demo, "train_sweep", lambda *_: "parent")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "STOCKPOT_HOME"):
        monkeypatch.setenv(name, "")
    with pytest.raises(PrefectUnreachable, match="too late") as caught:
        demo.run(tmp_path)
    mend = re.search("make demo .*", caught.value.mend)
    assert mend is not None
    # Where make runs the tests, another one tells more lines than these.
    told = subprocess.run(
        [*mend[0].split(), "--dry-run"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    (line,) = [line for line in told.stdout.splitlines() if "stockpot.demo " in line]
    called = line.partition("stockpot.demo ")[2].split()
    with pytest.raises(NothingToSoup, match="walked"):
        demo.run(tmp_path, **vars(command.arguments(demo.COMMAND, demo.__doc__, called)))
