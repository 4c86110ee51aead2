"""`make faults`: many trials, in pieces. What is done is kept in a file; the next call goes on from there."""

import argparse
import json
import platform
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.faults.harness import trial
from tests.faults.harness.prefect_strikes import PREFECT_FAULTS
from tests.faults.harness.site import fault_site
from tests.faults.harness.strikes import FAULTS
from tests.faults.harness.trial import Told

PIECE = 50
"""Trials on one site: MLflow's listings grow with each."""
KINDS = {"command": FAULTS, "prefect": PREFECT_FAULTS}
"""What is asked, and the faults that are drawn: a command of its own, with a helper beside it; or workers of
Prefect, by a command or a scan.
"""


def main() -> None:
    """Run the trials that are missing, and print how often which fault ended how."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="command", help="what is asked, and struck")
    parser.add_argument("--trials", type=int, default=1000, help="how many there shall be in all")
    parser.add_argument("--first", type=int, default=0, help="begin at this one: several can run at once")
    parser.add_argument("--file", type=Path, help="what is done; by default .faults/KIND.jsonl")
    parser.add_argument("--seed", type=int, help="repeat this trial alone, and keep nothing")
    parser.add_argument("--fault", help="in place of all faults that are drawn")
    asked = parser.parse_args()
    faults = KINDS[asked.kind]
    if asked.fault not in {None, *faults}:
        parser.error(f"--fault: of the kind {asked.kind} there are: {', '.join(faults)}")
    file = asked.file or Path(f".faults/{asked.kind}.jsonl")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with us
    if asked.seed is not None:
        (told,) = _piece([asked.seed], asked.kind, asked.fault)
        raise SystemExit(bool(told.broken))
    file.parent.mkdir(parents=True, exist_ok=True)
    left = sorted({*range(asked.first, asked.trials)} - {told.seed for told in _done(file)})
    for begin in range(0, len(left), PIECE):
        for told in _piece(left[begin : begin + PIECE], asked.kind, asked.fault):
            with file.open("a") as kept:
                kept.write(json.dumps(asdict(told)) + "\n")
    done = _done(file)
    _print_table(done, faults)
    raise SystemExit(any(told.broken for told in done))


def _piece(seeds: Sequence[int], kind: str, fault: str | None) -> Iterator[Told]:
    with _trials(kind) as run:
        for seed in seeds:
            told = run(seed, fault)
            print(_line(told, kind), flush=True)
            yield told


@contextmanager
def _trials(kind: str) -> Iterator[Callable[[int, str | None], Told]]:
    """What runs a trial, by its seed and its only fault, on a site that all of them share."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    if kind == "prefect":
        # Here, since each command imports this module, and reads where its Prefect is when it imports that.
        from tests.faults.harness import handing
        from tests.faults.harness.workers import workers_site

        with workers_site(folder) as workers:
            yield partial(handing.run, workers, handing.undisturbed(workers))
    else:
        with fault_site(folder) as site:
            yield partial(trial.run, site, trial.undisturbed(site))


def _line(told: Told, kind: str) -> str:
    hits = ", ".join(told.hits) or "nothing came to pass"
    repeat = f"make faults ARGS='--kind {kind} --seed {told.seed}'"
    end = f"BROKEN, to repeat it: {repeat}\n{told.broken}" if told.broken else "kept"
    return f"{told.seed}: {hits}; exit codes {told.commands}; {told.seconds:.0f} s; {end}"


def _done(file: Path) -> list[Told]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Told(**json.loads(line)) for line in lines]


def _print_table(done: Sequence[Told], faults: Collection[str]) -> None:
    """By fault: how often it came to pass, and in how many trials of those a promise was broken."""
    hits = Counter(hit for told in done for hit in told.hits)
    ends = Counter((hit, code) for told in done for hit, code in zip(told.hits, told.ends, strict=True))
    broken = Counter(hit for told in done if told.broken for hit in {*told.hits})
    print(f"\n{len(done)} trials, {hits.total()} faults, on {platform.machine()}\n")
    print(
        "| fault | came to pass | the command answered all the same | it was killed | it ended with an error "
        "| promises broken |\n|---|---|---|---|---|---|"
    )
    for fault in faults:
        codes = Counter({code: number for (hit, code), number in ends.items() if hit == fault})
        errors = hits[fault] - codes[0] - codes[-9]
        print(f"| {fault} | {hits[fault]} | {codes[0]} | {codes[-9]} | {errors} | {broken[fault]} |")


if __name__ == "__main__":
    main()
