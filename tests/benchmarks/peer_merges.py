"""One merge by one tool, in that tool's own environment: prints the seconds of its core, imports aside.

    TOOL FOLDER OUT     TOOL: mergekit, fusion_bench, known, hashed. OUT: a folder that is not there yet

Imports nothing of Stockpot unless it is the tool: peers have environments of their own. See `peers.py`.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path


def mergekit(folder: Path, out: Path) -> float:
    """What `mergekit-yaml` calls."""
    # By name, since it is not installed where this file is checked.
    config, merge, options = (import_module(f"mergekit.{name}") for name in ("config", "merge", "options"))
    document = json.loads((folder / "mergekit.yaml").read_text())
    recipe = config.MergeConfiguration.model_validate(document)
    start = time.perf_counter()
    merge.run_merge(recipe, str(out), options.MergeOptions(copy_tokenizer=False, quiet=True))
    return time.perf_counter() - start


def fusion_bench(folder: Path, out: Path) -> float:
    """What its SimpleAverageAlgorithm does with state dicts: one after another, then one division."""
    from safetensors.torch import load_file, save_file

    theirs = import_module("fusion_bench.utils.state_dict_arithmetic")
    first, *others = sorted(folder.glob("hf-*/model.safetensors"))
    out.mkdir()
    start = time.perf_counter()
    total = load_file(first)
    for other in others:
        total = theirs.state_dict_add(total, load_file(other))
    save_file(theirs.state_dict_div(total, len(others) + 1), out / "model.safetensors")
    return time.perf_counter() - start


def stockpot(folder: Path, *, hashing: bool) -> float:
    """By recipe, into the cache that the inputs are in."""
    import stockpot.soup.one_pass  # noqa: F401 - an import like the others
    from stockpot.entities import Recipe
    from stockpot.soup import CheckpointCache, build

    *names, soup = json.loads((folder / "names.json").read_text())
    start = time.perf_counter()
    build(Recipe.mean(names), CheckpointCache(folder / "cache"), known=None if hashing else soup)
    return time.perf_counter() - start


def main() -> None:
    """Run the named tool."""
    tool, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if tool in {"mergekit", "fusion_bench"}:
        core = {"mergekit": mergekit, "fusion_bench": fusion_bench}[tool](folder, out)
    else:
        core = stockpot(folder, hashing=tool == "hashed")
    print(json.dumps({"core": core}))


if __name__ == "__main__":
    main()
