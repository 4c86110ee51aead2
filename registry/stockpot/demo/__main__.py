"""``make demo``: a real sweep on real data, and the flow on it."""

from pathlib import Path

from stockpot.cli import printing
from stockpot.cli.watching import watched
from stockpot.demo.command import arguments, asked, say_where, settle
from stockpot.demo.data import SHIFTS
from stockpot.demo.sweep import data_path, train_sweep
from stockpot.entities import SoupOutcome, SoupRequest

HOME = Path(".stockpot") / "demo"
COMMAND = "make demo"


def run(home: Path = HOME, *, flow: bool = True) -> SoupOutcome:
    """Train the sweep unless it is there, soup it, and say where to look. `flow`: as a Prefect flow."""
    home = settle(home)
    request = SoupRequest(
        partial=True,  # one of its runs never ended, as happens
        model="digits",
        sweep=watched(lambda watch: train_sweep(home, watch)),
        task="arrays",
        task_args={"data": str(data_path(home)), "model": "stockpot.demo.model:make_digits_net"},
        shifts=tuple(SHIFTS),
    )
    outcome = asked(request, flow=flow, command=COMMAND)
    say_where(home, outcome)
    return outcome


if __name__ == "__main__":
    with printing.errors_told(as_json=False):
        run(**vars(arguments(COMMAND, __doc__)))
