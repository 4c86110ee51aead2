"""What holds after each answer, whatever happened before it: in MLflow, in the store and on the disk."""

import hashlib
import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.faults.harness import counting
from tests.faults.harness.case import Broken, Case
from tests.faults.harness.command import LEASE_SECONDS
from tests.faults.harness.strikes import Striker

LATE = {"hold the message", "suspend the parent"}
"""After those a call may land when another process has looked already: that is settled, not prevented."""
ENSEMBLE = "greedy ensemble"


@dataclass(frozen=True)
class Findings:
    """What is the same whoever asks, when, and under whichever salt."""

    rows: Any
    steps: dict[str, Any]
    """By method."""
    soups: dict[str, str]
    """Checkpoint by recipe."""
    untold: tuple[str, ...] = field(default=(), compare=False)
    """Why it lacks a row, where it says so."""


def findings(outcome: Any) -> Findings:
    """Of a command's answer."""
    report = outcome["report"]
    steps = {
        selection["method"]: [[step["recipe"], step["score"], step["kept"]] for step in selection["steps"]]
        for selection in report["selections"]
    }
    soups = {soup["recipe"]: soup["checkpoint"] for soup in outcome["soups"]}
    untold = tuple(note for note in report["notes"] if note.startswith("no row"))
    return Findings(report["rows"], steps, soups, untold)


def require_promises(case: Case, striker: Striker, known: Findings) -> None:
    """Raises Broken. `known`: what an undisturbed request found."""
    case.settle()
    outcome = case.outcome()
    found = findings(outcome)
    if "fill the disk" in striker.hits and any(ENSEMBLE in why for why in found.untold):
        # Outputs that had no room are evaluated again for no row. All else is as ever.
        known = replace(known, steps={name: steps for name, steps in known.steps.items() if name != ENSEMBLE})
    if found != known:
        raise Broken(f"another answer: {json.dumps(outcome, indent=1)}")
    if not any(soup["aliases"] for soup in outcome["soups"]):
        raise Broken("nobody holds the alias")
    versions = _versions(case, striker, known)
    outs = _commands(
        case,
        ("reconcile", "--model", case.name, "--yes", "--json"),
        ("reconcile", "--model", case.name, "--yes", "--json"),
        ("prune", "--older-than", "36500", "--yes", "--json"),
        *(
            ("rebuild", f"models:/{case.name}/{number}", "--out", str(case.folder / number), "--json")
            for number in versions
        ),
    )
    if outs[1] != []:
        raise Broken(f"a second reconcile finds {outs[1]}, the first one {outs[0]}")
    for (number, held), rebuilt in zip(versions.items(), outs[3:], strict=True):
        if rebuilt["digest"] != held:
            raise Broken(f"version {number} holds {held}, and rebuilt it is {rebuilt['digest']}")
    _require_scores(case, striker)
    _require_tidiness(case)


def _versions(case: Case, striker: Striker, known: Findings) -> dict[str, str]:
    """The digest of the file that was uploaded, by the number of each version that is no duplicate."""
    held: dict[str, str] = {}
    recipes = []
    for version in case.client.search_model_versions(f"name='{case.name}'"):
        if "stockpot.duplicate_of" in version.tags:
            if not LATE & {*striker.hits}:
                raise Broken(f"version {version.version} was created twice")
            continue
        model = str(version.source).rpartition("/")[2]
        file = case.site.folder / "a" / case.experiment / "models" / model / "artifacts" / "model.safetensors"
        held[str(version.version)] = f"sha256:{_digest(file)}"
        recipes.append(version.tags["stockpot.recipe"])
        tagged = version.tags["stockpot.checkpoint"]
        expected = known.soups.get(recipes[-1], tagged)
        if not held[str(version.version)] == tagged == expected:
            raise Broken(f"version {version.version} holds other weights than {tagged}, {expected}")
    if len(set(recipes)) != len(recipes):
        raise Broken(f"several versions of one soup: {recipes}")
    if not known.soups.keys() <= set(recipes):
        raise Broken(f"versions are missing: {recipes} are there, and not all of {[*known.soups]}")
    return held


def _commands(case: Case, *commands: tuple[str, ...]) -> list[Any]:
    """Each to its end; what they print, as JSON."""
    found = []
    for command in commands:
        folder = case.folder / "command"
        if case.ended(case.begin(*command, prints_to=folder.name)):
            raise Broken(f"{command} failed: {(folder / 'err').read_text()}")
        found.append(json.loads((folder / "out").read_text()))
        shutil.rmtree(folder)
    return found


def _require_scores(case: Case, striker: Striker) -> None:
    now = case.scores()
    if not now:
        raise Broken("the store holds no scores at all")
    if lost := [key for key, value in striker.acknowledged.items() if now.get(key) != value]:
        raise Broken(f"committed scores are gone or others: {lost}")
    held = "SELECT name FROM stockpot_leases WHERE until > extract(epoch FROM now()) + :lease"
    if for_ever := case.site.rows(held, lease=2 * LEASE_SECONDS):
        raise Broken(f"leases that nobody can take over: {for_ever}")
    repeated = counting.repeated(case.folder / "tally")
    if repeated > striker.lost_evaluations:
        raise Broken(f"{repeated} evaluations were made twice, and {striker.lost_evaluations} lost at most")


def _require_tidiness(case: Case) -> None:
    """No hidden, temporary or torn file; nothing half done in MLflow."""
    cache = case.folder / "home" / "cache"
    places = [*cache.rglob(".*"), *(case.folder / "tmp").iterdir(), *(case.folder / "cwd").iterdir()]
    if places:
        raise Broken(f"left behind: {places}")
    for file in cache.glob("*.safetensors"):
        if _digest(file) != file.stem:
            raise Broken(f"a torn file: {file}")
    experiment = case.client.get_experiment(case.experiment)
    if any(tag.startswith("stockpot") for tag in experiment.tags):
        raise Broken(f"tags are left at the experiment: {experiment.tags}")
    for run in case.client.search_runs([case.experiment]):
        if run.info.status != "FINISHED":
            raise Broken(f"the run {run.info.run_name} is {run.info.status}")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
