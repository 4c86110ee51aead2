"""What averaging gives within domains and across them: the study of `make demo-domains`, for several seeds.

Per seed a start, its branches to four domains under four settings each, and runs on all data are trained, by
the demo's own code on this machine's text; every recipe is scored by Stockpot's evaluator. The searches are
plain loops here, so that they are a second opinion on the product's. All choices are made on the split
`validation`; the table has losses on `test` and on the unseen domain, in nats per byte: the mean over seeds,
and the least and the greatest. The text is the same for all seeds, so the spread is that of training alone.

What is trained is kept in the folder, and a study that was interrupted goes on from there.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from safetensors.torch import load

from stockpot.demo.domains.plan import DomainsConfig, PlannedRun, Sizes, all_data, base, branches
from stockpot.demo.domains.task import NextByte
from stockpot.demo.domains.texts import DOMAINS, UNSEEN, TextsConfig, told, write_texts
from stockpot.demo.domains.training import train, train_all
from stockpot.entities import Digest, Recipe, Score, Trial, digest_of_bytes
from stockpot.evaluation import TorchBench
from stockpot.statistics.comparison import compare
from stockpot.testing.checkpoints import MadeCheckpoints

QUICK = DomainsConfig(
    TextsConfig(validation=6, test=8, train=10, windows=2),
    Sizes(width=16, depth=1, context=32),
    base_steps=20,
    steps=4,
    batch=8,
    rates=(1e-3, 3e-3),
)
"""To see that everything runs."""
Examples = tuple[float, ...]
Value = Callable[[Recipe], float]
MIXTURE, WORST = "mixture", "worst"
MIXED, SINGLE = "greedy on the mixture", "best single"
ROUTED, OWN_BEST = "specialists, routed", "best run per domain, routed"
OWN_SCORES = "greedy per domain by its own score, then the mean"
GROUPED, UNIFORM = "grouped, greedy on the mixture", "uniform"
BASE, ALL_DATA = "base", "all data, the sweep's compute"


@dataclass(frozen=True)
class Trained:
    """One seed's runs: what each is called, and its checkpoint."""

    start: Digest
    branches: Mapping[str, tuple[Digest, ...]]
    """By domain."""
    all_data: tuple[Digest, ...]
    """Each with one branch's compute."""
    whole_sweep: Digest
    """On all data, with all branches' compute."""


class Pool:
    """One seed's runs, and what any recipe of them scores, each example by itself and once."""

    def __init__(self, folder: Path, config: DomainsConfig, data: Path) -> None:
        self._files: dict[Digest, Path] = {}
        sizes = {name: str(value) for name, value in vars(config.model).items()}
        self.task = NextByte(str(data), **sizes)
        self.bench = TorchBench(
            self.task,
            identity=("stockpot.demo.domains.task:NextByte", "1"),
            task_args=sizes,
            checkpoints=MadeCheckpoints(lambda digest: load(self._files[digest].read_bytes())),
            device="cpu",
        )
        self.runs = self._trained(folder, config, data)
        self.examples = cache(self._examples)

    def value(self, domain: str | None = None) -> Value:
        """What selection looks at: the mean over the held-out split, or over its examples of one domain."""
        places = self.places("validation", domain)
        return lambda recipe: _mean(self.examples(recipe, "validation"), places)

    def places(self, split: str, domain: str | None = None) -> list[int]:
        """Where the examples of this domain are; of all without one. All domains have equally many."""
        labels = self.task.domains(split)
        return [place for place, label in enumerate(labels) if domain in {None, label}]

    def _examples(self, recipe: Recipe, split: str) -> Examples:
        (outcome,) = self.bench.evaluator(split).evaluate([Trial(recipe)])
        assert isinstance(outcome, Score)
        return tuple(outcome.examples)

    def _trained(self, folder: Path, config: DomainsConfig, data: Path) -> Trained:
        start = base(config)
        branched, everything = list(branches(config)), list(all_data(config))
        begun = self._kept(folder, start)
        if begun is None:
            begun = self._keep(folder, start, train(start, config.model, data).weights)
        runs = [*branched, *everything]
        left = [run for run in runs if self._kept(folder, run) is None]
        if left:
            weights = self._files[begun].read_bytes()
            for run, done in zip(left, train_all(left, config.model, data, weights), strict=True):
                self._keep(folder, run, done.weights)
        digests = {run.name: self._named(folder, run) for run in runs}
        by_domain = {name: tuple(digests[r.name] for r in branched if r.domain == name) for name in DOMAINS}
        *short, long = (digests[run.name] for run in everything)
        return Trained(begun, by_domain, tuple(short), long)

    def _kept(self, folder: Path, run: PlannedRun) -> Digest | None:
        return self._named(folder, run) if _file(folder, run).is_file() else None

    def _keep(self, folder: Path, run: PlannedRun, weights: bytes) -> Digest:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{run.name}.unfinished"
        unfinished.write_bytes(weights)
        unfinished.replace(_file(folder, run))
        return self._named(folder, run)

    def _named(self, folder: Path, run: PlannedRun) -> Digest:
        file = _file(folder, run)
        digest = digest_of_bytes(file.read_bytes())
        self._files[digest] = file
        return digest


def _file(folder: Path, run: PlannedRun) -> Path:
    return folder / f"{run.name}.safetensors"


def greedy(candidates: Sequence[Digest], value: Value) -> tuple[Digest, ...]:
    """The paper's loop: best first, an ingredient stays where the value does not drop."""
    best_first = sorted(candidates, key=lambda digest: -value(Recipe.mean([digest])))
    kept = [best_first[0]]
    for digest in best_first[1:]:
        if value(Recipe.mean([*kept, digest])) >= value(Recipe.mean(kept)):
            kept.append(digest)
    return tuple(kept)


def best(candidates: Sequence[Digest], value: Value) -> Recipe:
    """The best of them alone."""
    return max((Recipe.mean([digest]) for digest in candidates), key=value)


def mean_of_means(groups: Sequence[Sequence[Digest]]) -> Recipe:
    """The mean over groups of the mean of each group, as one recipe."""
    return Recipe.linear({digest: (1, len(groups) * len(group)) for group in groups for digest in group})


def grouped(domains: Mapping[str, Sequence[Digest]], value: Value) -> Recipe:
    """Greedy on the mean of means: it starts from each domain's best run by this value, and adds to a domain
    what does not make the value drop, best first.
    """
    kept = {name: [best(runs, value).checkpoints[0]] for name, runs in domains.items()}
    owners = {digest: name for name, runs in domains.items() for digest in runs}
    for digest in sorted(owners, key=lambda digest: -value(Recipe.mean([digest]))):
        name = owners[digest]
        if digest in kept[name]:
            continue
        more = kept | {name: [*kept[name], digest]}
        if value(mean_of_means(list(more.values()))) >= value(mean_of_means(list(kept.values()))):
            kept = more
    return mean_of_means(list(kept.values()))


Row = Recipe | Mapping[str, Recipe]
"""One recipe for all, or one for each domain."""


def rows(pool: Pool) -> dict[str, Row]:
    """Each way, chosen on the held-out split."""
    runs, mixture = pool.runs, pool.value()
    everyone = [digest for group in runs.branches.values() for digest in group]
    by_domain = {name: greedy(group, pool.value(name)) for name, group in runs.branches.items()}
    return {
        BASE: Recipe.mean([runs.start]),
        SINGLE: best(everyone, mixture),
        MIXED: Recipe.mean(greedy(everyone, mixture)),
        GROUPED: grouped(runs.branches, mixture),
        UNIFORM: Recipe.uniform(everyone),
        OWN_SCORES: mean_of_means(list(by_domain.values())),
        OWN_BEST: {name: best(group, pool.value(name)) for name, group in runs.branches.items()},
        ROUTED: {name: Recipe.mean(kept) for name, kept in by_domain.items()},
        "all data, one branch's compute": best(runs.all_data, mixture),
        "all data, one branch's compute, greedy soup": Recipe.mean(greedy(runs.all_data, mixture)),
        ALL_DATA: Recipe.mean([runs.whole_sweep]),
    }


def shown(pool: Pool, row: Row, split: str) -> Examples | None:
    """What each example of a split scores; None where nobody knows which recipe to take."""
    if isinstance(row, Recipe):
        return pool.examples(row, split)
    labels = pool.task.domains(split)
    if set(labels) - set(row):
        return None
    return tuple(pool.examples(row[label], split)[place] for place, label in enumerate(labels))


def losses(pool: Pool, row: Row) -> dict[str, float | None]:
    """By column, in nats per byte."""
    test, unseen = shown(pool, row, "test"), shown(pool, row, UNSEEN)
    assert test is not None
    by_domain = {name: -_mean(test, pool.places("test", name)) for name in DOMAINS}
    return {
        MIXTURE: statistics.fmean(by_domain.values()),
        **by_domain,
        WORST: max(by_domain.values()),
        UNSEEN: None if unseen is None else -_mean(unseen, range(len(unseen))),
    }


COMPARED = (
    (ROUTED, OWN_BEST, "test"),
    (MIXED, SINGLE, "test"),
    (MIXED, BASE, "test"),
    (OWN_SCORES, MIXED, "test"),
    (GROUPED, MIXED, "test"),
    (UNIFORM, MIXED, "test"),
    (UNIFORM, MIXED, UNSEEN),
    (ALL_DATA, MIXED, "test"),
)
"""Which row against which, on which split."""


def differences(pool: Pool, ways: Mapping[str, Row]) -> Iterator[str]:
    """Gains in nats per byte with 95 % intervals over documents, in the order of `COMPARED`."""
    for after, before, split in COMPARED:
        one, other = (shown(pool, ways[name], split) or () for name in (before, after))
        groups = pool.task.groups(split)
        found = compare(split, Score(one), Score(other), groups=groups)
        yield f"{found.difference:+.3f} [{found.low:.3f}, {found.high:.3f}]"


def table(found: Sequence[Mapping[str, Mapping[str, float | None]]]) -> Iterator[str]:
    """Of each seed's losses: lines of Markdown."""
    columns = list(found[0][BASE])
    yield f"| loss, nats per byte | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for name in found[0]:
        cells = [_cell([seed[name][column] for seed in found]) for column in columns]
        yield f"| {name} | {' | '.join(cells)} |"


def _cell(figures: Sequence[float | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    if len(known) < len(figures):
        return "-"
    if len(known) == 1:
        return f"{known[0]:.3f}"
    return f"{statistics.fmean(known):.3f} ({min(known):.3f} to {max(known):.3f})"


def _mean(examples: Sequence[float], places: Sequence[int]) -> float:
    return statistics.fmean(examples[place] for place in places)


def main() -> None:
    """Train, choose, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where text and weights are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures mean nothing")
    chosen = parser.parse_args()
    config = QUICK if chosen.quick else DomainsConfig()
    folder = chosen.folder / ("quick" if chosen.quick else "full")
    data = folder / "texts.npz"
    if not data.is_file():
        write_texts(data, config.texts, config.model.context)
    print(told(data), flush=True)
    found, compared = [], []
    for seed in range(chosen.seeds):
        pool = Pool(folder / f"seed-{seed}", replace(config, seed=seed), data)
        ways = rows(pool)
        found.append({name: losses(pool, row) for name, row in ways.items()})
        compared.append(list(differences(pool, ways)))
        kept = {name: len(row.ingredients) for name, row in ways.items() if isinstance(row, Recipe)}
        print(f"seed {seed}: ingredients {kept}", flush=True)
    print("\n".join(["", *table(found), "", "| gain of | over | on | each seed |", "|---|---|---|---|"]))
    for place, (after, before, split) in enumerate(COMPARED):
        print(f"| {after} | {before} | {split} | {'; '.join(of_seed[place] for of_seed in compared)} |")


if __name__ == "__main__":
    main()
