"""``make demo``: a real sweep on real data, and the flow on it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stockpot.calls import soup
from stockpot.cli import printing, terminal
from stockpot.cli.watching import watched
from stockpot.demo.data import SHIFTS
from stockpot.demo.sweep import data_path, tracking_uri, train_sweep
from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.errors import PrefectUnreachable

HOME = Path(".stockpot") / "demo"
NO_FLOW = "--no-flow"


def run(home: Path = HOME, *, flow: bool = True) -> SoupOutcome:
    """Train the sweep unless it is there, soup it, and say where to look. `flow`: as a Prefect flow."""
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = tracking_uri(home)
    os.environ["STOCKPOT_HOME"] = str(home)
    request = SoupRequest(
        partial=True,  # one of its runs never ended, as happens
        model="digits",
        sweep=watched(lambda watch: train_sweep(home, watch)),
        task="arrays",
        task_args={"data": str(data_path(home)), "model": "stockpot.demo.model:make_digits_net"},
        shifts=tuple(SHIFTS),
    )
    try:
        outcome = watched(lambda watch: soup(request, flow=flow, watch=watch))
    except PrefectUnreachable as error:
        raise PrefectUnreachable(
            error.what, mend=f"run the demo without it: make demo ARGS={NO_FLOW}"
        ) from error
    printing.show_outcome(outcome, as_json=False)
    _say_where(home, outcome)
    return outcome


def arguments(told: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line: what `run` takes by name."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(NO_FLOW, action="store_false", dest="flow", help="run the walk without Prefect")
    return parser.parse_args(told)


def _say_where(home: Path, outcome: SoupOutcome) -> None:
    programs = Path(sys.executable).parent
    lines = [
        "",
        f"The sweep, its MLflow and Stockpot's store lie in {home}. To look further:",
        f"  {programs}/mlflow server --port 5000 --backend-store-uri {tracking_uri(home)}",
        *(
            f"  STOCKPOT_HOME={home} MLFLOW_TRACKING_URI={tracking_uri(home)} "
            f"{programs}/stockpot show {soup.uri}"
            for soup in outcome.soups[:1]
        ),
    ]
    # Whole lines, however narrow the terminal: commands are copied.
    terminal.out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    with printing.errors_told(as_json=False):
        run(**vars(arguments()))
