"""A question names data by content: moved data are the same data, changed data are others."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stockpot.entities import EvaluationProtocol, SoupRequest
from stockpot.tasks import arguments
from stockpot.tasks.arguments import NamedByContent
from stockpot.wiring import Workplace


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def named(value: object) -> str:
    """What one argument is called."""
    (name,) = NamedByContent({"data": str(value)}).values()
    return name


def filled(folder: Path, **files: str) -> Path:
    """A folder with these texts, one of them deeper."""
    for name, text in files.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "labels.txt").write_text(text)
    return folder


def test_a_file_is_named_by_its_content_wherever_it_lies(here: Path, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    for place in (here / "birds.npz", tmp_path / "moved"):
        place.write_bytes(content)
    expected = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert named("birds.npz") == named(here / "birds.npz") == named("../moved") == expected
    (here / "birds.npz").write_bytes(content[:-1] + b"?")
    assert named("birds.npz") != expected


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "birds.npz").write_bytes(b"birds")
    assert named("~/birds.npz") == f"sha256:{hashlib.sha256(b'birds').hexdigest()}"


def test_a_file_is_read_once_while_it_looks_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    real: Callable[..., Any] = Path.open

    def counting(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path)
        return real(path, *args, **kwargs)

    data = here / "birds.npz"
    data.write_bytes(b"birds")
    monkeypatch.setattr(Path, "open", counting)
    before = named(data)
    assert [named(data) for _ in range(3)] == [before] * 3
    assert opened.count(data) == 1
    data.write_bytes(b"others")
    assert named(data) != before


def test_a_folder_is_named_by_what_lies_below_it_wherever_it_lies(here: Path, tmp_path: Path) -> None:
    data = filled(here / "data", train="a b", test="b a")
    whole = named("./data")
    assert whole == named(filled(tmp_path / "elsewhere", train="a b", test="b a"))
    assert whole.startswith("sha256:")
    assert named(filled(tmp_path / "longer", train="a b c", test="b a")) != whole
    assert named(filled(tmp_path / "renamed", train="a b", tests="b a")) != whole
    assert named(filled(tmp_path / "swapped", train="b a", test="a b")) != whole, "of the same sizes"
    (data / "train" / "more").symlink_to(here)
    assert named("./data") != whole


def test_of_a_large_folder_the_smallest_files_are_read(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "READ_AT_MOST", 2 * (1 << 16))
    folders = [filled(place, labels="a b") for place in (here / "one", tmp_path / "two", tmp_path / "three")]
    for folder, image, labels in zip(folders, "xyy", ("a b", "a b", "b a"), strict=True):
        (folder / "image").write_text(image * 100_000)
        (folder / "labels" / "labels.txt").write_text(labels)
    one, two, three = map(named, folders)
    assert one == two, "images are in the dataset's digest"
    assert two != three
    (folders[1] / "image").write_text("x" * 100_001)
    assert named(folders[1]) != one


@pytest.mark.parametrize(
    "value",
    [
        "",
        "birds.net:make",
        "s3://bucket/birds.npz",
        "dense",
        "a\0b",
        "x" * 5000,
        "10",
        "0.5",
        "nan",
        "gone.npz",
    ],
)
def test_what_is_no_path_is_named_as_it_was_given(here: Path, value: str) -> None:
    filled(here / "10", train="a b")
    (here / "0.5").write_text("half")
    (here / "nan").write_text("half")
    assert named(value) == value


def test_what_tells_nothing_from_another_is_named_as_it_was_given(here: Path) -> None:
    """Two words of a switch must stay two, also where empty folders or files of those names are there."""
    (here / "dense").mkdir()
    (here / "bare").touch()
    os.mkfifo(here / "pipe")
    filled(here / "flip", keep="")
    words = ["dense", "bare", "pipe", "flip"]
    assert [named(value) for value in words] == words


def test_two_words_stay_two_where_folders_of_those_names_hold_the_same(here: Path) -> None:
    for word in ("flip", "none"):
        filled(here / word, same="a b")
    assert named("flip") != named("none")
    assert named("./flip") == named("./none")


def test_a_folder_that_holds_the_working_directory_is_named_as_it_was_given(here: Path) -> None:
    filled(here / "data", train="a b")
    for value in (".", "..", "../here/", "/", str(here)):
        assert named(value) == value
    assert named("data") == f"data {named('./data')}"


def test_what_cannot_be_read_is_named_as_it_was_given(here: Path) -> None:
    data = filled(here / "data", train="a b")
    os.mkfifo(data / "pipe")
    assert named("./data").startswith("sha256:"), "nobody waits for a pipe"
    (data / "torn").symlink_to("nowhere")
    assert named("./data") == "./data"
    if os.geteuid() != 0:  # who may read everything
        (here / "secret").write_text("a")
        (here / "secret").chmod(0)
        assert named("secret") == "secret"


def test_a_name_that_is_no_text_is_a_name(here: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.txt")
    filled(here / "data", train="a b")
    before = named("data")
    (here / "data" / odd).write_text("a")
    assert named("data") not in ("data", before)


def test_the_same_data_at_another_place_are_asked_the_same_question(
    here: Path, tmp_path: Path, mlflow_uri: str, home: Path
) -> None:
    assert mlflow_uri
    assert not home.exists()

    def asked(data: str) -> EvaluationProtocol:
        args = {"data": data, "model": "stockpot.demo.model:make_digits_net"}
        request = SoupRequest(model="digits", task="arrays", sweep="parent", task_args=args)
        with Workplace() as place:
            return place.bench(request).evaluator("validation").protocol

    arrays: dict[str, Any] = {
        "validation_x": np.zeros((4, 1, 8, 8), np.float32),
        "validation_y": np.arange(4),
    }
    np.savez(here / "birds.npz", **arrays)
    np.savez(tmp_path / "moved.npz", **arrays)
    first = asked("birds.npz")
    assert asked(str(tmp_path / "moved.npz")) == first
    (here / "birds.npz").unlink()
    np.savez(here / "birds.npz", **arrays, test_x=arrays["validation_x"])
    (clause,) = asked("birds.npz").differences(first)
    assert clause.startswith("argument data: sha256:")
