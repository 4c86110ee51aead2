"""Lineage over many ingredient edges, on SQLite and PostgreSQL: one line of JSON, in seconds.

    python -m tests.benchmarks.descent FOLDER [--edges 100000] [--rounds 5]

Half of the edges are of registered soups, half of recipes that searches only tried. `down`: the store's
answers about a checkpoint that a hundred chains of soups of soups, ten deep, hold: a thousand rows. `up`:
about a soup of six such chains, of almost as many rows. Each is all that `stockpot lineage` asks the store.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from sqlalchemy import create_engine, insert, text
from tests.store.conftest import own_server

from stockpot.entities import Digest, Recipe, digest_of_bytes
from stockpot.store import SqlStore, upgrade
from stockpot.store.tables import CandidateRow, IngredientRow, RecipeRow, VersionRow

HELD = 16
"""Ingredients of each soup."""
DEPTH, CHAINS, TOP = 10, 100, 6
ROOT = digest_of_bytes(b"root")


def named(*parts: object) -> Digest:
    """A checkpoint."""
    return digest_of_bytes(" ".join(map(str, parts)).encode())


def soups(edges: int) -> Iterator[tuple[Digest | None, list[Digest]]]:
    """The soup's own checkpoint, None where it was only tried, and what it holds."""
    registered = edges // HELD // 2
    chains = min(CHAINS, registered // DEPTH)
    for chain in range(chains):
        below = ROOT
        for level in range(DEPTH):
            fresh = [named("fresh", chain, level, number) for number in range(HELD - 1)]
            yield named("soup", chain, level), [below, *fresh]
            below = named("soup", chain, level)
    yield named("top"), [named("soup", chain, DEPTH - 1) for chain in range(min(TOP, chains))]
    for number in range(registered - chains * DEPTH):
        yield named("other", number), [named("pool", number, place) for place in range(HELD)]
    for number in range(registered):
        tried = [ROOT] if number < 2 * CHAINS else []
        yield None, [*tried, *(named("tried", number, place) for place in range(HELD - len(tried)))]


def plant(url: str, edges: int) -> None:
    """Fill the tables."""
    recipes, ingredients, versions, candidates = [], [], [], []
    for number, (soup, held) in enumerate(soups(edges)):
        recipe = Recipe.mean(held)
        recipes.append({"digest": recipe.digest, "document": recipe})
        ingredients += [
            {"recipe": recipe.digest, "position": place, "checkpoint": one, "coefficient": 1 / len(held)}
            for place, one in enumerate(held)
        ]
        if soup is None:
            continue
        place = {"model": "bench", "version": str(number), "run_id": f"run {number}", "seen_at": 0.0}
        versions.append({"recipe": recipe.digest, "checkpoint": soup, **place})
        candidates += [
            {"run_id": f"run of {one}", "path": "model.safetensors", "checkpoint": one, "sweep": "bench"}
            for one in held
        ]
    engine = create_engine(url)
    with engine.begin() as connection:
        filled = ((RecipeRow, recipes), (IngredientRow, ingredients), (VersionRow, versions))
        for table, rows in (*filled, (CandidateRow, candidates)):
            connection.execute(insert(table), rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    engine.dispose()


def asked(store: SqlStore, start: Digest) -> int:
    """All that a lineage asks the store. Returns the number of blends."""
    up, down = store.blends([start], down=False), store.blends([start], down=True)
    met = {digest for blend in (*up, *down) for digest in (blend.soup, blend.ingredient)} | {start}
    store.known_versions(met)
    store.found(met)
    return len(up) + len(down)


def seconds(work: Callable[[], int], rounds: int) -> list[float]:
    """Of each round, after one that fills caches."""
    assert work()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return found


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """Both kinds, with the store's schema."""
    with ExitStack() as stack:
        postgresql, _ = stack.enter_context(own_server())
        urls = {"SQLite": f"sqlite:///{folder}/stockpot.db", "PostgreSQL": postgresql}
        for url in urls.values():
            upgrade(url)
        yield urls


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edges", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    told = {}
    with databases(given.folder) as urls:
        for kind, url in urls.items():
            plant(url, given.edges)
            with closing(SqlStore(url)) as store:
                told[kind] = {
                    way: {
                        "rows": asked(store, start),
                        "seconds": seconds(lambda start=start: asked(store, start), given.rounds),  # type: ignore[misc]  # a default
                    }
                    for way, start in (("down", ROOT), ("up", named("top")))
                }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
