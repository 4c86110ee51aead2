"""Rows of what MLflow and Prefect take part in: listing a long sweep, and the orchestration of a flow."""

from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.measuring import Scale, measured
from tests.benchmarks.table import Goal, Row

PAGING = "MLflow's own paging, which keeps nothing"
OUTSIDE = "evaluation and averaging"


def listing(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """A long sweep."""
    found = measured("listing", "--runs", scale.runs, "--rounds", scale.few)
    peaks = found["peak_mib"]
    for way, figures in found["ratios"].items():
        work = f"list {scale.runs:,} runs, {way}"
        yield Row(work, PAGING, "about its time", (*figures,), "x")
        yield Row(
            work, f"{PAGING}: memory", "about its memory", (peaks[way] / peaks["mlflow"],), "x its peak"
        )


def scanning(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """Finished sweeps."""
    found = measured("scanning", "--sweeps", scale.finished, "--size", 8, "--rounds", scale.few)
    work = f"scan for {scale.finished:,} finished sweeps of 8"
    yield Row(f"{work}, the first time", PAGING, Goal("<=", 1.2, "x"), (*found["first"],), "x")
    yield Row(f"{work}, 20 of them new", PAGING, "what is new alone", (*found["later"],), "x")


def watching(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """Aliases of many models."""
    found = measured("watching", "--models", scale.watched, "--rounds", scale.repeats)
    work = f"look at the aliases of {scale.watched} models of 10 versions"
    bare = "the bare MLflow calls that it needs"
    yield Row(f"{work}, none moved", bare, Goal("<=", 2, "x"), (*found["quiet"],), "x")
    yield Row(f"{work}, {found['some']} moved", bare, Goal("<=", 2, "x"), (*found["moved"],), "x")


def descent(scratch: Path, scale: Scale) -> Iterable[Row]:
    """What the store tells of a lineage."""
    found = measured("descent", scratch, "--edges", scale.edges, "--rounds", scale.repeats)
    for database, ways in found.items():
        for way, one in ways.items():
            work = f"lineage {way}, {one['rows']:,} rows of {scale.edges:,} ingredients, {database}"
            figures = tuple(1000 * seconds for seconds in one["seconds"])
            yield Row(work, "seconds alone", Goal("<=", 50, "ms"), figures, "ms")


def workers(scratch: Path, scale: Scale) -> Iterable[Row]:
    """A ranking and a measuring on real process workers of Prefect."""

    def seconds(number: int) -> float:
        sizes = ("--seconds", scale.long_sleep, "--candidates", scale.helped)
        return float(
            measured("workers", scratch / str(number), "--workers", number, *map(str, sizes))["seconds"]
        )

    alone = seconds(1)
    for number in scale.workers:
        work = f"{number} process workers rank {scale.helped} candidates, and measure all on 1 more split"
        yield Row(work, f"one worker, over {number}", Goal(">=", 0.9), (alone / seconds(number),), "x")


def triggers(scratch: Path, scale: Scale) -> Iterable[Row]:
    """What Stockpot adds to Prefect's own latency on an idle worker."""
    found = measured("triggers", scratch / "site", "--rounds", scale.repeats)

    def more(name: str, empty: str) -> tuple[float, ...]:
        return tuple(ours - none for ours, none in zip(found[name], found[empty], strict=True))

    yield Row(
        "from the announcement of a sweep to its first evaluation",
        "two empty flows, by the same trigger",
        Goal("<=", 2, "s"),
        more("announced", "empty"),
        "s more",
    )
    yield Row(
        "a flow run whose request is answered",
        "an empty flow run",
        Goal("<=", 1, "s"),
        more("lost", "nothing"),
        "s more",
    )


def webhooks(scratch: Path, scale: Scale) -> Iterable[Row]:
    """Deliveries that arrive at once."""
    found = measured(
        "webhooks", scratch / "served", "--at-once", scale.deliveries, "--rounds", 4 * scale.repeats
    )
    work = f"{scale.deliveries} webhook deliveries at once, 99 % of them answered"
    yield Row(work, "the clock", Goal("<=", 50, "ms"), (*found["p99"],), "ms")


def orchestration(scratch: Path, scale: Scale) -> Iterable[Row]:
    """A 24-candidate sweep: all that is neither evaluation nor averaging.

    Imports included in the command; through the flow, they are done before.
    """
    plain: list[dict[str, float]] = []
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    again: list[dict[str, float]] = []
    sweep = scratch / "sweep"
    measured("orchestration", "prepare", sweep)
    for repeat in range(scale.few):
        prefect = scratch / f"prefect-{repeat}"
        home = {"STOCKPOT_HOME": str(scratch / f"plain-{repeat}")}
        plain.append(measured("orchestration", "plain", sweep, f"model-plain-{repeat}", **home))
        for kept, which in ((cold, "first"), (warm, "second")):
            fresh = {"STOCKPOT_HOME": str(scratch / f"{which}-{repeat}"), "PREFECT_HOME": str(prefect)}
            kept.append(measured("orchestration", "flow", sweep, f"model-{which}-{repeat}", **fresh))
        again.append(measured("orchestration", "flow", sweep, f"model-second-{repeat}", **fresh))
    for figures in again:
        assert figures["evaluations"] == figures["downloads"] == figures["averages"] == 0, figures
    yield Row(
        "`stockpot soup` of a 24-candidate sweep, imports included",
        OUTSIDE,
        Goal("<=", 12, "s"),
        tuple(figures["rest"] for figures in plain),
        "s more",
    )
    work = "24-candidate sweep, flow"
    limits = Goal("<=", 30, "s"), Goal("<=", 15, "s")
    for which, kept, goal in zip(("cold", "warm"), (cold, warm), limits, strict=True):
        yield Row(f"{work}, {which} Prefect home", OUTSIDE, goal, tuple(f["rest"] for f in kept), "s more")
    yield Row(
        f"{work}, the same request again",
        "the first time",
        "no evaluation, download, average",
        tuple(a["took"] / w["took"] for a, w in zip(again, warm, strict=True)),
        "x its time",
    )
