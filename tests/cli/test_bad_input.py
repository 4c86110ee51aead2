"""Bad input ends in a clear error: what, where, the mend, an exit code; nothing half-written."""

import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stockpot.cli import main
from stockpot.entities import SoupRequest
from stockpot.errors import BadModelName
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

TASK = ["--task", "stockpot.testing.tiny:TinyTask"]


@dataclass
class Ended:
    code: int
    out: str
    err: str


Stockpot = Callable[..., Ended]


@pytest.fixture
def stockpot(capsys: pytest.CaptureFixture[str]) -> Stockpot:
    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), " ".join(captured.out.split()), captured.err)

    return run


def _soup(*arguments: str) -> list[str]:
    return ["soup", "--model", "tiny", *arguments]


def _planned(request: SoupRequest, *arguments: str) -> list[str]:
    """A dry run on the planted sweep: evaluates nothing, and finds what is wrong all the same."""
    return _soup("--sweep", request.sweep or "", "--dry-run", *TASK, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sweep", "0" * 32], "0" * 32),
        (["--experiment", 'it\'s "gone"'], "gone"),
        (["--experiment", "sweeps", "--filter", "params.lr <"], "params.lr <"),
        (["--sweep", "x", "--experiment", "y"], "one of the two"),
        (["--sweep", "x", "--report-on", "validation"], "different splits"),
        (["--sweep", "x", "--task-arg", "kind"], "key=value"),
        (["--sweep", "x", "--task-arg", "=x"], "key=value, got =x"),
        (["--sweep", "x", "--task-arg", "n=1", "--task-arg", "n=2"], "more than one value to n"),
        (["--sweep", "x", "--method", "gredy"], "greedy"),
        (["--sweep", "x", "--points", "-1"], "points must be 0 or more, or all, got -1"),
        (["--sweep", "x", "--points", "1.5"], "points must be a whole number or 'all', got '1.5'"),
        (["--sweep", "x", "--points", "9" * 5000], "points must be a whole number or 'all'"),
        (["--sweep", "x", "--top", "1", "--by", "acc"], "top must be at least 2"),
        (["--sweep", "x", "--task", "stockpot.testing.tiny:TinyTusk"], "TinyTask"),
        (["--sweep", "x", "--task", "array"], "arrays"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    stockpot: Stockpot, experiment: str, home: Path, arguments: list[str], said: str
) -> None:
    ended = stockpot(*_soup(*TASK, *arguments, "--dry-run"))
    assert ended.code == 3, ended
    assert said in ended.err
    assert "To mend it" in ended.err


def test_a_misspelt_metric_is_told_with_the_one_that_was_meant(
    stockpot: Stockpot, tiny_sweep: SoupRequest, mlflow_uri: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'sweeps'")
    for run in client.search_runs([experiment.experiment_id]):
        client.log_metric(run.info.run_id, "val/acc", 0.5)
    ended = stockpot(*_planned(tiny_sweep, "--top", "3", "--by", "val_acc"))
    assert ended.code == 3, ended
    assert "none of the sweep's 5 finished runs logged a number as 'val_acc'" in ended.err
    assert "To mend it: --by val/acc" in ended.err


def test_wrong_usage_is_told_by_the_command_itself(stockpot: Stockpot) -> None:
    assert stockpot("soup", "--sweep", "x").code == 2


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ("score = None", 6, "score"),
        ("version = ''", 6, "version"),
        ("bounds = (1, 0)", 6, "bounds"),
        ("def examples(self, split): return []", 6, "empty"),
        ("def examples(self, split): return super().examples('test')", 3, "hold the same data"),
        ("def model(self): return 3", 6, "model()"),
        ("def __init__(self, folder): pass", 6, "folder"),
    ],
)
def test_a_task_that_breaks_its_contract_is_refused_before_anything_is_evaluated(
    stockpot: Stockpot,
    tiny_sweep: SoupRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    changes: str,
    code: int,
    said: str,
) -> None:
    module = f"faulty_{abs(hash(request.node.name))}"
    base = "from stockpot.testing.tiny import TinyTask\nclass Faulty(TinyTask):\n    "
    (tmp_path / f"{module}.py").write_text(base + changes)
    monkeypatch.chdir(tmp_path)
    ended = stockpot(*_soup("--sweep", tiny_sweep.sweep or "", "--dry-run", "--task", f"{module}:Faulty"))
    assert ended.code == code, ended
    assert said in ended.err
    assert "To mend it" in ended.err


@pytest.mark.parametrize("how", [(), ("--dry-run",)])
def test_the_sweep_is_looked_up_before_the_tasks_data_is_opened(
    stockpot: Stockpot,
    experiment: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: tuple[str, ...],
) -> None:
    (tmp_path / "unopened.py").write_text(
        "from stockpot.testing.tiny import TinyTask\n"
        "class Task(TinyTask):\n"
        "    def examples(self, split): raise AssertionError('opened')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ended = stockpot(*_soup("--sweep", "0" * 32, "--task", "unopened:Task", *how))
    assert ended.code == 3, ended
    assert "0" * 32 in ended.err


def test_an_unknown_split_is_named(stockpot: Stockpot, tiny_sweep: SoupRequest) -> None:
    ended = stockpot(*_planned(tiny_sweep, "--shift", "fog"))
    assert ended.code == 6
    assert "fog" in ended.err


def test_a_server_that_does_not_answer_is_said_at_once(
    stockpot: Stockpot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    ended = stockpot(*_soup("--sweep", "x", "--dry-run", *TASK))
    assert ended.code == 8, ended
    assert "127.0.0.1:9" in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize(("revision", "said"), [("0000", "newer"), (None, "stockpot db upgrade")])
def test_a_store_of_another_schema_is_refused_with_the_command(
    stockpot: Stockpot, tiny_sweep: SoupRequest, home: Path, revision: str | None, said: str
) -> None:
    assert stockpot("db", "upgrade").code == 0
    with closing(sqlite3.connect(home / "stockpot.db")) as database, database:
        if revision:
            database.execute("UPDATE stockpot_alembic_version SET version_num = ?", [revision])
        else:
            database.execute("DROP TABLE stockpot_alembic_version")
    ended = stockpot(*_planned(tiny_sweep))
    assert ended.code == 7, ended
    assert said in ended.err


def test_a_version_that_stockpot_did_not_make_is_no_soup(stockpot: Stockpot, experiment: str) -> None:
    for uri in ("models:/nothing/1", "models:/nothing@champion", "nothing"):
        ended = stockpot("show", uri)
        assert ended.code == 3, ended
        assert uri in ended.err


def _damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    header = struct.unpack("<Q", content[:8])[0]
    if kind == "truncated":
        path.write_bytes(content[:-7])
    elif kind == "corrupted":
        path.write_bytes(content[:8] + b"\x00" * header + content[8 + header :])
    elif kind == "oversized header":
        path.write_bytes(struct.pack("<Q", 1 << 40) + content[8:])
    elif kind == "duplicate key":
        text = content[8 : 8 + header].rstrip().decode()
        first = text.index('"0.bias"')
        entry = text[first : text.index("}", first) + 1]
        doubled = (text[:-1] + f",{entry}}}").encode()
        path.write_bytes(struct.pack("<Q", len(doubled)) + doubled + content[8 + header :])


@pytest.mark.parametrize("kind", ["truncated", "corrupted", "oversized header", "duplicate key"])
def test_damaged_weights_exclude_their_run_and_no_other(
    stockpot: Stockpot, tiny_sweep: SoupRequest, tmp_path: Path, kind: str
) -> None:
    files = sorted((tmp_path / "artifacts").rglob("model.safetensors"))
    _damage(files[0], kind)
    ended = stockpot(*_planned(tiny_sweep))
    assert ended.code == 0, ended
    assert "4 candidates" in ended.out
    assert "1 excluded run " in ended.out
    assert "unreadable weights" in ended.out
    assert str(tmp_path / "home") not in ended.out, "the local copy's name says nothing to anybody"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\a tune", r"\x1b[2J\x1b]0;owned\x07 tune"),
        ("\x9b31m tune\r\b", r"\x9b31m tune\r\x08"),
        ("tune\nerror: none", r"tune\nerror: none"),
        ("\u202eenut", r"\u202eenut"),
        ("[red]tune[/red] [/x]", "[red]tune[/red] [/x]"),
        (":100: epochs, lr:fire:\\", ":100: epochs, lr:fire:\\"),
        ("学習率 é 👩‍🔬", "学習率 é 👩‍🔬"),
    ],
)
def test_a_runs_name_is_printed_and_never_obeyed(
    stockpot: Stockpot, mlflow_uri: str, experiment: str, home: Path, name: str, shown: str
) -> None:
    ended = stockpot(*_soup("--sweep", _sweep(mlflow_uri, experiment, name, good=2), "--dry-run", *TASK))
    assert "1 excluded run " in ended.out
    told = " ".join(ended.out.split())  # a long one is broken where it has a space
    assert all(f"{shown} {seed}" in told for seed in range(3)), told
    assert all(character.isprintable() or character == "\u200d" for character in ended.out)


def test_nor_is_it_obeyed_in_an_error(
    stockpot: Stockpot, mlflow_uri: str, experiment: str, home: Path
) -> None:
    sweep = _sweep(mlflow_uri, experiment, "[red]\x1b[2J:100:", good=1)
    ended = stockpot(*_soup("--sweep", sweep, "--dry-run", *TASK))
    assert r"[red]\x1b[2J:100: 2 (" in ended.err
    assert "\x1b" not in ended.err


def _sweep(uri: str, experiment: str, name: str, *, good: int) -> str:
    """Three runs whose names begin so; only some fit the task's model."""
    from mlflow import MlflowClient

    runs = {f"{name} {seed}": weights("dense" if seed < good else "conv", seed=seed) for seed in range(3)}
    return plant_sweep(MlflowClient(uri), experiment, runs)


@pytest.mark.parametrize(("left", "said"), [(1, "one usable run"), (0, "no usable run")])
def test_a_sweep_with_nothing_to_average_says_so_and_why(
    stockpot: Stockpot, tiny_sweep: SoupRequest, tmp_path: Path, left: int, said: str
) -> None:
    for file in sorted((tmp_path / "artifacts").rglob("model.safetensors"))[left:]:
        _damage(file, "truncated")
    ended = stockpot(*_planned(tiny_sweep))
    assert ended.code == 4
    assert said in ended.err
    assert f"{5 - left} runs: unreadable weights" in ended.err


def test_runs_of_another_architecture_are_excluded_by_name_and_difference(
    stockpot: Stockpot, tiny_sweep: SoupRequest
) -> None:
    ended = stockpot(*_planned(tiny_sweep, "--task-arg", "kind=conv"))
    assert ended.code == 4
    assert all(f"tune-{seed}" in ended.err for seed in range(5))
    assert "does not fit the task's model" in ended.err


def test_a_model_name_that_mlflow_refuses_stops_before_anything_is_evaluated(
    tiny_sweep: SoupRequest, home: Path
) -> None:
    with pytest.raises(BadModelName, match="a/b:c"):
        walk(replace(tiny_sweep, model="a/b:c"), Workplace(), in_turn, Silent())
    with closing(sqlite3.connect(home / "stockpot.db")) as database:
        assert database.execute("SELECT count(*) FROM stockpot_evaluations").fetchone() == (0,)


def test_a_lost_artifact_is_told_with_its_run(
    stockpot: Stockpot, tiny_sweep: SoupRequest, tmp_path: Path
) -> None:
    shutil.rmtree(next((tmp_path / "artifacts").rglob("model.safetensors")).parent)
    ended = stockpot(*_planned(tiny_sweep))
    assert ended.code == 0
    assert "no weights" in ended.out


def test_a_dry_run_tells_candidates_bytes_and_passes_and_evaluates_nothing(
    stockpot: Stockpot, tiny_sweep: SoupRequest, home: Path
) -> None:
    ended = stockpot(*_planned(tiny_sweep, "--shift", "shifted"))
    assert ended.code == 0
    assert "5 candidates" in ended.out
    assert all(f"tune-{seed}" in ended.out for seed in range(5))
    assert "5 to rank, at most 5 to select, at most 14 to report" in ended.out
    assert ended.out.count("not read yet") == 5
    assert "5 candidates not downloaded; a run will check that all values are finite" in " ".join(
        ended.out.split()
    )
    assert not list((home / "cache").glob("*.safetensors"))
    with closing(sqlite3.connect(home / "stockpot.db")) as database:
        assert database.execute("SELECT count(*) FROM stockpot_evaluations").fetchone() == (0,)


def test_a_home_that_no_shell_has_read_is_the_users(
    stockpot: Stockpot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("STOCKPOT_HOME", "~/pot")
    assert stockpot("db", "upgrade").code == 0
    assert (tmp_path / "user" / "pot" / "stockpot.db").exists()
    assert not (tmp_path / "~").exists()


def test_a_setting_that_cannot_be_read_is_named_with_its_variable(
    stockpot: Stockpot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_CACHE_LIMIT", "ten")
    ended = stockpot("db", "current")
    assert ended.code == 3
    assert "STOCKPOT_CACHE_LIMIT=ten" in ended.err
    assert "To mend it: export STOCKPOT_CACHE_LIMIT=" in ended.err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("gone/soup.safetensors", "No such file or directory"),
        ("a-file/soup.safetensors", "Not a directory"),
        ("a-folder", "is a folder"),
        ("/dev/null", "is no regular file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_rebuild_looks_at_its_target_before_it_asks_for_anything(
    stockpot: Stockpot, target: str, said: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody serves that port
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder").mkdir()
    before = set(tmp_path.rglob("*"))
    ended = stockpot("rebuild", "models:/birds/1", "--out", str(tmp_path / target))
    assert ended.code == 3
    assert said in ended.err
    assert "To mend it" in ended.err
    assert {path for path in tmp_path.rglob("*") if home not in (path, *path.parents)} == before
