"""``make demo-domains``: a sweep across domains of text, and what averaging gives, within them and across.

It asks without Prefect, which `make demo` shows: two flows would take most of a minute of five.
"""

import argparse
from pathlib import Path

from stockpot.cli import printing
from stockpot.cli.watching import watched
from stockpot.demo.command import asked, say, say_where, settle
from stockpot.demo.domains.plan import DomainsConfig
from stockpot.demo.domains.sweep import FULL, data_path, train_sweep
from stockpot.demo.domains.texts import UNSEEN, told
from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.entities.domain import ALL
from stockpot.entities.tags import DOMAIN

HOME = Path(".stockpot") / "demo-domains"
COMMAND = "make demo-domains"
QUESTIONS = {
    "Of the branches, each trained on one domain:": f"tags.`{DOMAIN}` != '{ALL}'",
    "Of all runs, with those on all data, one of which computed as much as all branches together:": None,
}
"""Which runs each is about, as MLflow's filter."""


def run(home: Path = HOME, config: DomainsConfig = FULL) -> list[SoupOutcome]:
    """Train the sweep unless it is there, ask both questions of it, and say where to look."""
    home = settle(home)
    parent = watched(lambda watch: train_sweep(home, watch, config))
    say(told(data_path(home)))
    sizes = config.model
    outcomes = []
    for question, only in QUESTIONS.items():
        say("", question)
        request = SoupRequest(
            model="texts",
            sweep=parent,
            filter=only,
            base=parent,  # its weights are the start
            task="stockpot.demo.domains.task:NextByte",
            task_args={
                "data": str(data_path(home)),
                "width": str(sizes.width),
                "depth": str(sizes.depth),
                "context": str(sizes.context),
            },
            shifts=(UNSEEN,),
        )
        outcomes.append(asked(request, flow=False, command=COMMAND))
    say_where(home, *outcomes)
    return outcomes


if __name__ == "__main__":
    with printing.errors_told(as_json=False):
        argparse.ArgumentParser(prog=COMMAND, description=__doc__).parse_args()
        run()
