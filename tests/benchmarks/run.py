"""`make bench`: one table of ratios, each measured side by side in one run. The README quotes it.

Seconds, MiB and counts are given where a promise is made in them. Every figure is the median of its repeats,
the spread their least and greatest; without a spread it is one measurement, or a count, the same every time.
Beside it stands what the release had that was measured last (`make bench ARGS=--save` keeps one: a file
per release in `tests/benchmarks/results`). A row whose median misses its goal says so.

The large averages want 25 GB of disk (where TMPDIR says) and as much memory, or they are not page-cached.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks import averaging_rows, evaluation_rows, flow_rows, results
from tests.benchmarks.measuring import FULL, QUICK, Scale
from tests.benchmarks.table import Row, head

PARTS: dict[str, Callable[[Path, Scale], Iterable[Row]]] = {
    "averaging": averaging_rows.averaging,
    "reading": averaging_rows.reading,
    "shards": averaging_rows.shards,
    "imports": averaging_rows.imports,
    "hot-swap": evaluation_rows.hot_swap,
    "interval": evaluation_rows.interval,
    "comparisons": evaluation_rows.comparisons,
    "by-domain": evaluation_rows.by_domain,
    "early-rejection": evaluation_rows.early_rejection,
    "recalling": evaluation_rows.recalling,
    "speculation": evaluation_rows.speculation,
    "sharing": evaluation_rows.sharing,
    "whole-command": evaluation_rows.whole_command,
    "trainer-sweep": evaluation_rows.trainer_sweep,
    "selection": evaluation_rows.selection,
    "listing": flow_rows.listing,
    "scanning": flow_rows.scanning,
    "watching": flow_rows.watching,
    "descent": flow_rows.descent,
    "orchestration": flow_rows.orchestration,
    "workers": flow_rows.workers,
    "triggers": flow_rows.triggers,
    "webhooks": flow_rows.webhooks,
}


def measure(names: Sequence[str], scratch: Path, *, quick: bool) -> Iterator[Row]:
    """The rows of these parts, in order. Quick ones run side by side: their figures mean nothing anyway."""
    scale = QUICK if quick else FULL

    def part(name: str) -> Iterator[Row]:
        (scratch / name).mkdir()
        try:
            yield from PARTS[name](scratch / name, scale)
        except subprocess.CalledProcessError as error:
            yield Row(
                name, "", "", (), "", f"failed: {' '.join(map(str, error.cmd[2:]))}, {error.returncode}"
            )

    if not quick:
        for name in names:
            yield from part(name)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # or they get in each other's way
    with ThreadPoolExecutor(len(names)) as pool:
        for rows in pool.map(lambda name: list(part(name)), names):
            yield from rows


def main() -> None:
    """Measure, print the table, and keep it if that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--save", action="store_true", help="keep the figures for the installed version")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="folder of kept releases")
    chosen = parser.parse_args()
    if chosen.save and (chosen.only or chosen.quick) and chosen.results == results.FOLDER:
        parser.error("a release is kept whole and in full size: --save goes without --only and --quick")
    kept = results.newest(chosen.results)
    print(f"Here: {results.described(results.machine())}")
    if kept:
        print(f"{kept.version}: {results.described(kept.machine)}")
    print(f"\n{head(kept.version if kept else None)}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as folder:
        for row in measure(chosen.only or list(PARTS), Path(folder), quick=chosen.quick):
            print(row.line(kept.medians.get(row.key) if kept else None), flush=True)
            rows.append(row)
    missed = sum(row.over for row in rows)
    print(f"\n{missed} of {len(rows)} rows miss their goal.")
    if failed := [row.work for row in rows if row.note.startswith("failed")]:
        sys.exit(f"failed: {', '.join(failed)}; nothing is kept")
    if chosen.save:
        print(f"Kept in {results.save(rows, chosen.results)}.")


if __name__ == "__main__":
    main()
