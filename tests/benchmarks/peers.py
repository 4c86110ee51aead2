"""`make bench-peers`: the linear merge of mergekit and of FusionBench against ours, side by side.

Each peer gets a virtual environment of its own, with the torch that we pin. One that cannot be installed or
run is a row that says why. All tools average the same files, page-cached, in turn, one process per figure:
`core` is the merge, imports aside; `whole` the process from start to end. Ours syncs what it wrote to the
disk, theirs do not; `known` hashes nothing, as they; `hashed` checks every input and names the output.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from stockpot.entities import Recipe, WeightsFormat
from stockpot.soup import CheckpointCache, build

HERE = Path(__file__).parent
PEERS = {"mergekit": "mergekit", "fusion_bench": "fusion_bench"}  # and the package on PyPI
OURS = ("known", "hashed")
GOALS = {"mergekit core": ">= 2 x", "mergekit whole": ">= 8 x"}
COUNT, HIDDEN, MIDDLE, VOCABULARY = 8, 768, 2048, 256
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def shapes(megabytes: int) -> dict[str, tuple[int, ...]]:
    """A Llama of about this size in fp32 whose weight is all in its layers."""
    layer: dict[str, tuple[int, ...]] = {f"self_attn.{kind}_proj.weight": (HIDDEN, HIDDEN) for kind in "qkvo"}
    layer |= {f"mlp.{kind}_proj.weight": (MIDDLE, HIDDEN) for kind in ("gate", "up")}
    layer |= {"mlp.down_proj.weight": (HIDDEN, MIDDLE)}
    layer |= {f"{kind}_layernorm.weight": (HIDDEN,) for kind in ("input", "post_attention")}
    layers = max(1, round(megabytes * 250_000 / (4 * HIDDEN**2 + 3 * HIDDEN * MIDDLE)))
    ends: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    return ends | {f"model.layers.{n}.{name}": shape for n in range(layers) for name, shape in layer.items()}


def prepare(folder: Path, megabytes: int) -> None:
    """The inputs: in the cache, and the same files again as a Hugging Face folder each."""
    cache = CheckpointCache(folder / "cache")
    tensors = shapes(megabytes)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MIDDLE,
        "num_hidden_layers": sum(name.endswith("q_proj.weight") for name in tensors),
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    names, models = [], []
    for seed in range(COUNT):
        generator = torch.Generator().manual_seed(seed)
        made = {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in tensors.items()}
        save_file(made, folder / "logged")
        names.append(cache.ingest(folder / "logged", WeightsFormat.SAFETENSORS)[0].digest)
        model = folder / f"hf-{seed}"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(config))
        (model / "model.safetensors").hardlink_to(cache.path(names[-1]))
        models.append({"model": str(model), "parameters": {"weight": 1.0}})
    (folder / "logged").unlink()
    soup = build(Recipe.mean(names), cache).digest
    cache.path(soup).unlink()
    (folder / "names.json").write_text(json.dumps([*names, soup]))
    # JSON is YAML.
    (folder / "mergekit.yaml").write_text(
        json.dumps({"merge_method": "linear", "models": models, "dtype": "float32"})
    )


def install(peer: str, environment: Path) -> str:
    """Put the peer into an environment of its own. Returns why not, or nothing."""
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    pins = (HERE.parents[1] / "constraints.txt").read_text().splitlines()
    pinned = next(pin for pin in pins if pin.startswith("torch=="))
    steps = ([sys.executable, "-m", "venv", str(environment)], [*pip, pinned], [*pip, PEERS[peer]])
    for step in [] if environment.exists() else steps:
        try:
            run(step)
        except RuntimeError as error:
            shutil.rmtree(environment, ignore_errors=True)
            return f"cannot be installed: {error}"
    return ""


def run(command: list[str]) -> str:
    """What it prints. Raises RuntimeError with its last line of complaint."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OFFLINE)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200])
    return done.stdout


def measured(tool: str, folder: Path, environments: Path) -> dict[str, float]:
    """Seconds of its core and of its whole command."""
    out = folder / "out"
    python = sys.executable if tool in OURS else str(environments / tool / "bin" / "python")
    script = [python, str(HERE / "peer_merges.py"), tool, str(folder), str(out)]
    start = time.perf_counter()
    printed = run(script)
    figures = {"core": json.loads(printed.splitlines()[-1])["core"], "whole": time.perf_counter() - start}
    _remove_results(folder, out)
    if tool == "mergekit":  # it has a command of its own
        command = str(environments / tool / "bin" / "mergekit-yaml")
        start = time.perf_counter()
        run([command, str(folder / "mergekit.yaml"), str(out), "--no-copy-tokenizer", "--quiet"])
        figures["whole"] = time.perf_counter() - start
        _remove_results(folder, out)
    return figures


def _remove_results(folder: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    *_, soup = json.loads((folder / "names.json").read_text())
    (folder / "cache" / f"{soup.removeprefix('sha256:')}.safetensors").unlink(missing_ok=True)


def rows(peer: str, folder: Path, environments: Path, repeats: int, work: str) -> list[str]:
    """The peer's rows of the table."""
    if fault := install(peer, environments / peer):
        return [f"| {work} | {peer} | | not measured: {fault} | |"]
    try:
        turns = [
            {tool: measured(tool, folder, environments) for tool in (peer, *OURS)} for _ in range(repeats + 1)
        ]
    except RuntimeError as error:
        return [f"| {work} | {peer} | | not measured: {error} | |"]
    lines = []
    for part in ("core", "whole"):
        for ours in OURS:
            figures = [turn[peer][part] / turn[ours][part] for turn in turns[1:]]  # the first warms up
            lines.append(
                f"| {work}, {ours} | {peer} {part} | {GOALS.get(f'{peer} {part}', '')} "
                f"| {statistics.median(figures):.2f} x faster | {min(figures):.2f} to {max(figures):.2f} |"
            )
    return lines


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=536, help="of each averaged checkpoint")
    parser.add_argument("--environments", type=Path, help="a folder to keep the peers' environments in")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stockpot-peers-") as scratch:
        folder = Path(scratch)
        environments = (chosen.environments or folder / "environments").absolute()
        environments.mkdir(parents=True, exist_ok=True)
        prepare(folder, chosen.megabytes)
        print("| work | against | goal | median | spread |\n|---|---|---|---|---|", flush=True)
        for peer in PEERS:
            work = f"average {COUNT} x {chosen.megabytes} MB fp32"
            print(*rows(peer, folder, environments, chosen.repeats, work), sep="\n", flush=True)


if __name__ == "__main__":
    main()
