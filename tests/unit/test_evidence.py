"""What an answer depended on: a request that is repeated by another process is answered from it."""

import importlib.metadata
import json
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from stockpot.evidence import Reads, change_since

NO_FILE = "the task names no file among its arguments, so that what it read is not known"
WALKED_THEN_ASKED = """
import os, sys
from stockpot.evidence import Reads, change_since
os.environ[sys.argv[1]] = "set in the process that walked"
found = Reads("birds:Birds", {"python": sys.executable}).evidence()
del os.environ[sys.argv[1]]
print(bool(found.doubt), bool(change_since(found)))
"""
"""In a process of its own: other tests leave modules behind whose files are gone."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with files that lay there for long."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named.bin").write_bytes(b"\0")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "hidden.txt").write_text("hidden")
    monkeypatch.setattr("stockpot.evidence.reads.SLACK", -1)  # waited for
    monkeypatch.setattr("stockpot.evidence.reads._modules", lambda: ())  # of other tests
    monkeypatch.setattr("stockpot.evidence.reads._before", {})
    return tmp_path


def read(act: Callable[[], object] = lambda: None, **task_args: str) -> Reads:
    """What a task with these arguments reads that does this."""
    reads = Reads("birds:Birds", task_args or {"data": "named.bin"})
    with reads:
        act()
    return reads


@pytest.mark.parametrize("text", ["a label, " * 1000, "", "\0", "x" * 300])
def test_an_argument_that_is_no_path_ends_no_walk_and_names_no_file(data: Path, text: str) -> None:
    assert read(labels=text).evidence().doubt == NO_FILE


@pytest.mark.parametrize(
    ("variable", "changed"),
    [
        ("TORCHINDUCTOR_CACHE_DIR", "False"),
        ("CUDA_MODULE_LOADING", "False"),
        ("CUDA_VISIBLE_DEVICES", "True"),
    ],
)
def test_what_torch_sets_while_it_works_changes_no_answer(variable: str, changed: str) -> None:
    command = [sys.executable, "-c", WALKED_THEN_ASKED, variable]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", changed]


def test_a_file_that_an_argument_names_counts_as_it_looked_before_it_was_read(data: Path) -> None:
    reads = read(lambda: (data / "named.bin").write_bytes(b"changed while it was read"))
    assert "named.bin has changed" in change_since(reads.evidence())


def test_whatever_changed_just_before_it_was_read_is_not_trusted(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stockpot.evidence.reads.SLACK", 3600)
    assert "named.bin has changed" in change_since(read().evidence())


def in_a_thread(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "act",
    [
        lambda: Path("more/hidden.txt").read_text(),
        lambda: list(Path("more").iterdir()),
        lambda: in_a_thread(lambda: Path("more/hidden.txt").read_bytes()),
        lambda: Path("more/later.txt").exists() or sorted(Path("more").glob("*.txt")),
    ],
)
def test_what_a_task_opens_is_seen_though_no_argument_names_it(data: Path, act: Callable[[], object]) -> None:
    evidence = read(act).evidence()
    assert (evidence.doubt, change_since(evidence)) == ("", "")
    (data / "more" / "hidden.txt").unlink()
    assert f"{data}/more" in change_since(evidence)


def test_what_a_task_keeps_from_an_earlier_request_still_counts_until_it_is_opened_again(data: Path) -> None:
    hidden = data / "more" / "hidden.txt"
    read(hidden.read_text)
    hidden.write_text("changed")
    assert "hidden.txt has changed" in change_since(read().evidence())
    again = read(hidden.read_text).evidence()
    assert change_since(again) == change_since(read().evidence()) == ""


def test_a_doubt_about_an_earlier_request_of_the_same_task_stays(data: Path) -> None:
    read(connect)
    assert "connects to a server" in read().evidence().doubt


def test_what_a_module_read_that_was_imported_before_is_not_known(data: Path) -> None:
    reads = Reads("json:JSONDecoder", {"data": "named.bin"})
    assert "imported before" in reads.evidence().doubt


def test_a_file_that_a_task_looked_for_in_vain_may_appear(data: Path) -> None:
    def look() -> None:
        with pytest.raises(FileNotFoundError):
            open("settings.json")  # noqa: PTH123, SIM115 - it is not there

    evidence = read(look).evidence()
    assert not change_since(evidence)
    (data / "settings.json").write_text("{}")
    assert "settings.json" in change_since(evidence)


@pytest.mark.parametrize(
    "act",
    [
        lambda: Path("written.txt").write_text("by the task"),
        lambda: Path("cache/ours.txt").read_text(),
        lambda: Path(json.__file__).read_text(),
        lambda: Path("/proc/self/status").read_text(),
        lambda: open(0, closefd=False).close(),
        lambda: importlib.metadata.entry_points(group="stockpot.tasks"),
    ],
)
def test_what_is_written_and_what_is_no_data_of_the_tasks_is_left_out(
    data: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> None:
    (data / "cache").mkdir()
    (data / "cache" / "ours.txt").write_text("")
    monkeypatch.syspath_prepend(data)
    reads = Reads("birds:Birds", {"data": "named.bin"}, ours=[data / "cache"])
    with reads:
        act()
    seen = [stamp.path for stamp in reads.evidence().files]
    assert [path for path in seen if not path.endswith(".zip")] == [f"{data}/named.bin"]  # Python's own


def test_what_others_do_meanwhile_is_not_the_tasks(data: Path) -> None:
    begin, done = threading.Event(), threading.Event()

    def others() -> None:
        begin.wait(30)
        Path("more/hidden.txt").read_text()
        done.set()

    thread = threading.Thread(target=others)
    thread.start()

    def wait() -> None:
        begin.set()
        assert done.wait(30)

    reads = read(wait)
    thread.join()
    Path("more/hidden.txt").read_text()
    assert [stamp.path for stamp in reads.evidence().files] == [f"{data}/named.bin"]


def connect() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        socket.create_connection(server.getsockname()).close()


def test_a_thread_of_the_tasks_that_gets_the_ident_of_one_that_has_ended_is_not_taken_for_it(
    data: Path,
) -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    alike = []

    def look() -> None:
        if threading.get_ident() == other.ident:
            alike.append(Path("more/hidden.txt").read_bytes())

    def act() -> None:
        end.set()
        other.join()
        for _ in range(100):  # the next thread gets it, as a rule
            in_a_thread(look)

    files = read(act).evidence().files
    assert alike
    assert [stamp for stamp in files if stamp.path.endswith("hidden.txt")]


@pytest.mark.parametrize(
    ("act", "doubt"),
    [
        (connect, "the task connects to a server when it reads its data"),
        (lambda: subprocess.run(["true"], check=True), "the task starts a program when it reads its data"),
        (lambda: sqlite3.connect(":memory:").close(), "the task opens a database when it reads its data"),
    ],
)
def test_what_python_cannot_see_behind_is_a_doubt(data: Path, act: Callable[[], object], doubt: str) -> None:
    assert read(act).evidence().doubt == doubt


@pytest.mark.parametrize("address", ["s3://bucket/data.npz", "hf://datasets/birds", "https://a.b/c.csv"])
def test_an_address_among_the_arguments_is_a_doubt_beside_whatever_file(data: Path, address: str) -> None:
    doubt = read(data="named.bin", more=address).evidence().doubt
    assert doubt == "what lies at the address in the task's argument more may have changed"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("more/hidden.txt,1\n", "more/hidden.txt"),
        ('{"train": ["a.png", "more/hidden.txt"]}', "more/hidden.txt"),
        ("name: more/hidden.txt", "more/hidden.txt"),
        ("folder=./more", "more"),
        ("ftp://birds.org/train.npz 3", "ftp://birds.org/train.npz"),
    ],
)
def test_a_text_that_names_other_files_is_a_doubt_unless_they_are_known(
    data: Path, text: str, named: str
) -> None:
    (data / "list.txt").write_text(text)
    doubt = read(data="list.txt").evidence().doubt
    assert doubt.startswith(f"{data}/list.txt names ")
    assert named in doubt
    known = read(lambda: list(Path("more").iterdir()), data="list.txt", folder="more")
    assert bool(known.evidence().doubt) == ("://" in text)


@pytest.mark.parametrize(
    "line", ["DATA = 'labels.bin'", "open(f'sub/{split}.bin')", "Path(__file__).parent / 'beside.bin'"]
)
def test_what_a_tasks_module_names_is_seen_though_nobody_sees_it_read(
    data: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    module = data / "code" / "birds.py"
    for file in (module, data / "labels.bin", data / "sub" / "test.bin", module.parent / "beside.bin"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"before")
    module.write_text(f"{line}\nothers = 'no such file', '.', '/tmp', '/dev/null', 'code', {str(data)!r}\n")
    monkeypatch.setitem(sys.modules, "birds", SimpleNamespace(__file__=str(module)))
    reads = Reads("task:Task", {"data": "named.bin"})
    reads.take_code(["birds", "not imported"])
    evidence = reads.evidence()
    assert (evidence.doubt, change_since(evidence)) == ("", "")
    around = {"/tmp", "/dev/null", str(data), str(module.parent)}  # noqa: S108 - is not written to
    assert not around & {stamp.path for stamp in evidence.files}
    for file in (data / "labels.bin", data / "sub" / "test.bin", module.parent / "beside.bin"):
        file.write_bytes(b"afterwards")
    changed = change_since(evidence)
    assert "has changed" in changed
    assert str(data) in changed


def test_numbers_and_words_of_a_text_are_no_files(data: Path) -> None:
    (data / "table.csv").write_text("length,name\n0.5,more\n./,hidden\n..,1e.5\n")
    assert not read(data="table.csv").evidence().doubt


def test_a_folder_that_leads_elsewhere_or_holds_too_much_is_a_doubt(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not read(data="more").evidence().doubt
    monkeypatch.setattr("stockpot.evidence.files.MOST_FILES", 1)
    assert "holds more than" in read(data="more").evidence().doubt
    monkeypatch.undo()
    (data / "more" / "link").symlink_to(data, target_is_directory=True)
    assert "links to other folders" in read(data=str(data / "more")).evidence().doubt
