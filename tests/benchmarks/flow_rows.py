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


def orchestration(scratch: Path, scale: Scale) -> Iterable[Row]:
    """A 24-candidate sweep through the flow, imports done: all that is neither evaluation nor averaging."""
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    again: list[dict[str, float]] = []
    sweep = scratch / "sweep"
    measured("orchestration", "prepare", sweep)
    for repeat in range(scale.few):
        prefect = scratch / f"prefect-{repeat}"
        for kept, home in ((cold, "first"), (warm, "second")):
            fresh = {"STOCKPOT_HOME": str(scratch / f"{home}-{repeat}"), "PREFECT_HOME": str(prefect)}
            kept.append(measured("orchestration", "flow", sweep, f"model-{home}-{repeat}", **fresh))
        again.append(measured("orchestration", "flow", sweep, f"model-second-{repeat}", **fresh))
    for figures in again:
        assert figures["evaluations"] == figures["downloads"] == figures["averages"] == 0, figures
    work = "24-candidate sweep, flow"
    limits = Goal("<=", 30, "s"), Goal("<=", 15, "s")
    for home, kept, goal in zip(("cold", "warm"), (cold, warm), limits, strict=True):
        yield Row(f"{work}, {home} Prefect home", OUTSIDE, goal, tuple(f["rest"] for f in kept), "s more")
    yield Row(
        f"{work}, the same request again",
        "the first time",
        "no evaluation, download, average",
        tuple(a["flow"] / w["flow"] for a, w in zip(again, warm, strict=True)),
        "x its time",
    )
