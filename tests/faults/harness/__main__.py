"""`make faults`: many trials, in pieces. What is done is kept in a file; the next call goes on from there."""

import argparse
import json
import platform
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults.harness.site import fault_site
from tests.faults.harness.strikes import FAULTS
from tests.faults.harness.trial import Told, run, undisturbed

PIECE = 50
"""Trials on one site: MLflow's listings grow with each."""


def main() -> None:
    """Run the trials that are missing, and print how often which fault ended how."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="how many there shall be in all")
    parser.add_argument("--file", type=Path, default=Path(".faults/trials.jsonl"), help="what is done")
    parser.add_argument("--seed", type=int, help="repeat this trial alone, and keep nothing")
    parser.add_argument("--fault", choices=FAULTS, help="in place of all faults that are drawn")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with us
    if asked.seed is not None:
        (told,) = _piece([asked.seed], asked.fault)
        raise SystemExit(bool(told.broken))
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    done = _done(asked.file)
    left = sorted({*range(asked.trials)} - {told.seed for told in done})
    for begin in range(0, len(left), PIECE):
        for told in _piece(left[begin : begin + PIECE], asked.fault):
            done.append(told)
            with asked.file.open("a") as file:
                file.write(json.dumps(asdict(told)) + "\n")
    _print_table(done)
    raise SystemExit(any(told.broken for told in done))


def _piece(seeds: Sequence[int], fault: str | None) -> Iterator[Told]:
    with fault_site(Path(tempfile.mkdtemp(prefix="faults-"))) as site:
        known = undisturbed(site)
        for seed in seeds:
            told = run(site, known, seed, fault)
            print(_line(told), flush=True)
            yield told


def _line(told: Told) -> str:
    hits = ", ".join(told.hits) or "nothing came to pass"
    end = (
        f"BROKEN, to repeat it: make faults ARGS='--seed {told.seed}'\n{told.broken}"
        if told.broken
        else "kept"
    )
    return f"{told.seed}: {hits}; exit codes {told.commands}; {told.seconds:.0f} s; {end}"


def _done(file: Path) -> list[Told]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Told(**json.loads(line)) for line in lines]


def _print_table(done: Sequence[Told]) -> None:
    """By fault: how often it came to pass, and in how many trials of those a promise was broken."""
    hits = Counter(hit for told in done for hit in told.hits)
    ends = Counter((hit, code) for told in done for hit, code in zip(told.hits, told.ends, strict=True))
    broken = Counter(hit for told in done if told.broken for hit in {*told.hits})
    print(f"\n{len(done)} trials, {hits.total()} faults, on {platform.machine()}\n")
    print(
        "| fault | came to pass | the command answered all the same | it was killed | it ended with an error "
        "| promises broken |\n|---|---|---|---|---|---|"
    )
    for fault in FAULTS:
        codes = Counter({code: number for (hit, code), number in ends.items() if hit == fault})
        errors = hits[fault] - codes[0] - codes[-9]
        print(f"| {fault} | {hits[fault]} | {codes[0]} | {codes[-9]} | {errors} | {broken[fault]} |")


if __name__ == "__main__":
    main()
