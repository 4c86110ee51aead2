"""What the demos' commands share: a home of their own, a request, its answer, and where to look further."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stockpot.calls import soup
from stockpot.cli import printing, terminal
from stockpot.cli.watching import watched
from stockpot.demo.kept import tracking_uri
from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.errors import PrefectUnreachable

NO_FLOW = "--no-flow"


def settle(home: Path) -> Path:
    """Let MLflow and Stockpot keep everything below `home`, which is returned whole."""
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = tracking_uri(home)
    os.environ["STOCKPOT_HOME"] = str(home)
    return home


def asked(request: SoupRequest, *, flow: bool, command: str) -> SoupOutcome:
    """The request's answer, which is printed. `flow`: as a Prefect flow; `command`: what a person typed."""
    try:
        outcome = watched(lambda watch: soup(request, flow=flow, watch=watch))
    except PrefectUnreachable as error:
        raise PrefectUnreachable(
            error.what, mend=f"run the demo without it: {command} ARGS={NO_FLOW}"
        ) from error
    printing.show_outcome(outcome, as_json=False)
    return outcome


def say(*lines: str) -> None:
    """Print whole lines, however narrow the terminal: commands are copied."""
    terminal.out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def say_where(home: Path, *outcomes: SoupOutcome) -> None:
    """Print how to look further."""
    registered = [soup for outcome in outcomes for soup in outcome.registered]
    programs = Path(sys.executable).parent
    say(
        "",
        f"The sweep, its MLflow and Stockpot's store lie in {home}. To look further:",
        f"  {programs}/mlflow server --port 5000 --backend-store-uri {tracking_uri(home)}",
        *(
            f"  STOCKPOT_HOME={home} MLFLOW_TRACKING_URI={tracking_uri(home)} "
            f"{programs}/stockpot show {soup.uri}"
            for soup in registered[:1]
        ),
    )


def arguments(command: str, about: str | None, told: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line: what a demo's `run` takes by name. `about`: what its --help says of it."""
    parser = argparse.ArgumentParser(prog=command, description=about)
    parser.add_argument(NO_FLOW, action="store_false", dest="flow", help="run the walk without Prefect")
    return parser.parse_args(told)
