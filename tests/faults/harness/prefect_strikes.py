"""What strikes Prefect's side, drawn by a seed. Prefect is not imported: commands begin with what is here."""

from random import Random

from tests.faults.harness.strikes import MOST_STRIKES, Strike

SOUP, HELP = "soup-sweep", "help-sweep"
PREFECT_FAULTS = {
    "kill the worker": 4,
    "kill the worker and the run": 4,
    "kill the run": 2,
    "kill the helper's run": 3,
    "kill Prefect": 4,
    "cut Prefect": 2,
    "kill the parent": 1,  # which follows, and no more
    "kill MLflow": 1,
    "stop PostgreSQL": 1,  # Prefect's database, too
}
"""Each with how often it is drawn."""
WAITS = ("Scheduled", "Pending", "Submitting")
"""What a flow run is called that has no process yet."""
NEEDS_PROCESS = {"kill the run", "kill the worker and the run", "kill the helper's run"}


def drawn(seed: int, only: str | None = None) -> tuple[list[Strike], list[str]]:
    """The strikes of this seed, one after the other, and the ways of asking."""
    draw = Random(seed)  # noqa: S311 - the same each time is what is wanted
    strikes = []
    for place in range(draw.randint(1, MOST_STRIKES)):
        (fault,) = draw.choices([*PREFECT_FAULTS], [*PREFECT_FAULTS.values()])
        strikes.append(_moment(draw, only or fault, place))
    ways = [draw.choice(["submit", "submit", "scan"]), *(draw.choice(["submit", "plain"]) for _ in range(8))]
    return strikes, ways


def _moment(draw: Random, fault: str, place: int) -> Strike:
    flow = HELP if fault == "kill the helper's run" else draw.choice([SOUP, SOUP, HELP])
    states = ["Running"] if fault in NEEDS_PROCESS else [*WAITS, "Running"]
    state, wire = draw.choice(states), draw.choice(["prefect", "store", "mlflow", "creates"])
    share, when, becomes = draw.random() / (1 + place), draw.choice(["before", "after"]), draw.random() < 0.5
    if becomes:
        return Strike(fault, f"{flow} {state}", 0.0, "after", "")
    return Strike(fault, wire, share, when, "")
