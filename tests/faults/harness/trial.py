"""One trial: a sweep is souped while fault after fault strikes, until it is answered."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.faults.harness.case import KILLED, Broken, Case
from tests.faults.harness.promises import Findings, findings, require_promises
from tests.faults.harness.site import Site
from tests.faults.harness.strikes import MOST_STRIKES, Striker, drawn
from tests.faults.harness.wires import creates

MOST_COMMANDS = MOST_STRIKES + 4
UNFORESEEN = '"error": "Unexpected"'


@dataclass(frozen=True)
class Undisturbed:
    """What a request finds that nothing strikes, and how many messages it sends on each wire."""

    findings: Findings
    messages: Counter[str]


@dataclass
class Told:
    """How a trial went."""

    seed: int
    strikes: list[str]
    seconds: float = 0.0
    commands: list[int] = field(default_factory=list)
    """Exit codes."""
    hits: list[str] = field(default_factory=list)
    """The faults that came to pass."""
    ends: list[int] = field(default_factory=list)
    """The exit code of the command that each of them struck."""
    broken: str = ""
    """What was not kept, and all that the commands said; empty where all was."""


def undisturbed(site: Site) -> Undisturbed:
    """Ask once, with a helper beside, and count. Raises Broken."""
    case = Case(site, "undisturbed", with_helper=True)
    return counted(case, Striker(case))


def counted(case: Case, striker: Striker) -> Undisturbed:
    """Ask once, and count. Raises Broken."""
    messages: Counter[str] = Counter()

    def count(wire: str, message: str, when: str) -> None:
        if when == "before":
            messages.update([wire] + ["creates"] * creates(message))

    with case.prepared():
        striker.listen(count)
        code = case.ask()
        striker.listen(None)
        if code:
            raise Broken(case.said())
        known = findings(case.outcome())
        require_promises(case, striker, known)
    return Undisturbed(known, messages)


def run(site: Site, known: Undisturbed, seed: int, only: str | None = None) -> Told:
    """One trial, to its end. `only`: this fault in place of those that the seed draws."""
    strikes = [one for one in drawn(seed, only) if site.has_disk or one.fault != "fill the disk"]
    needs_helper = any(strike.fault in {"kill the helper", "kill both"} for strike in strikes)
    case = Case(site, f"trial-{seed}", with_helper=seed % 2 == 1 or needs_helper)
    return tried(case, Striker(case, strikes), known, seed)


def tried(case: Case, striker: Striker, known: Undisturbed, seed: int) -> Told:
    """How this case went under these strikes."""
    told = Told(seed, [str(strike) for strike in striker.left])
    begun = time.monotonic()
    with case.prepared():
        try:
            _walk(case, striker, known, told)
            require_promises(case, striker, known.findings)
        except Broken as error:
            went = f"{told.strikes}, of which came to pass: {striker.hits}; exit codes {case.codes}"
            told.broken = f"{error}\n{went}\n{case.said()}"
        finally:
            striker.heal()
    told.seconds = time.monotonic() - begun
    told.commands, told.hits = case.codes, striker.hits
    return told


def _walk(case: Case, striker: Striker, known: Undisturbed, told: Told) -> None:
    """Ask, and ask again, until all candidates are in the answer."""
    for _ in range(MOST_COMMANDS):
        before = len(striker.hits)
        striker.arm(known.messages)
        code = case.ask()
        striker.heal()
        hits = striker.hits[before:]
        told.ends += [code] * len(hits)
        # A run whose weights did not arrive is left out, and asked for again the next time.
        if code == 0 and not case.outcome()["report"]["exclusions"]:
            return
        if code and not hits:
            raise Broken(f"a command that nothing struck ended with {code}")
        if UNFORESEEN in case.said():
            raise Broken("a command met what nobody foresaw")
        of_the_disk = "fill the disk" in hits and "No space" in case.said()
        if code not in {0, KILLED, *case.told} and not of_the_disk:
            raise Broken(f"a command ended with {code}")
    raise Broken(f"no answer after {MOST_COMMANDS} commands")
