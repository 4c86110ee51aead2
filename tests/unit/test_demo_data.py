from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "sklearn", reason="the demo's images come with scikit-learn (pip install 'stockpot[demo]')"
)

from stockpot.demo.data import COPIES, SHARES, SHIFTS, load_splits, shifted, write_digits
from stockpot.tasks.arrays import ArrayClassification


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("digits") / "below" / "digits.npz"
    write_digits(file)
    return file


@pytest.fixture(scope="module")
def task(file: Path) -> ArrayClassification:
    return ArrayClassification(str(file), "stockpot.demo.model:make_digits_net")


def test_every_image_is_dealt_to_exactly_one_split() -> None:
    from sklearn.datasets import load_digits

    dealt = [image.tobytes() for x, _ in load_splits().values() for image in x]
    whole = [image.tobytes() for image in (load_digits().images / 16).astype(np.float32)]
    assert sorted(dealt) == sorted(whole)
    assert len(set(dealt)) == len(dealt) == 1797  # no image is there twice: the splits are disjoint


def test_every_split_holds_the_digits_in_the_same_proportions() -> None:
    for name, (_, y) in load_splits().items():
        counts = np.bincount(y, minlength=10)
        assert counts.min() >= 0.9 * counts.mean(), name


def test_the_report_has_at_least_five_hundred_images(task: ArrayClassification) -> None:
    assert len(task.examples("test")) >= 500


def test_writing_twice_gives_the_same_digests_and_leaves_nothing_else(
    task: ArrayClassification, tmp_path: Path
) -> None:
    write_digits(tmp_path / "again.npz")
    write_digits(tmp_path / "again.npz")
    again = ArrayClassification(str(tmp_path / "again.npz"), "stockpot.demo.model:make_digits_net")
    for split in (*SHARES, *SHIFTS):
        assert again.digest(split) == task.digest(split)
    assert [file.name for file in tmp_path.iterdir()] == ["again.npz"]


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shifted_set_holds_copies_of_the_test_images_grouped_by_image(
    task: ArrayClassification, name: str
) -> None:
    test, shift = task.examples("test"), task.examples(name)
    groups = np.array(task.groups(name))
    assert np.array_equal(np.bincount(groups), np.full(len(test), COPIES))
    assert np.array_equal(shift.y, test.y[groups])
    assert shift.x.shape == (COPIES * len(test), 1, 8, 8)
    assert 0 <= shift.x.min() < shift.x.max() <= 1
    # Each copy still resembles its own image more than the next one.
    own, other = (np.abs(shift.x - test.x[origin]).mean() for origin in (groups, (groups + 1) % len(test)))
    assert 0 < own < other


def test_copies_of_an_image_are_shifted_differently() -> None:
    x = load_splits()["validation"][0][:20]
    for name in SHIFTS:
        copies = shifted(name, x).reshape(COPIES, 20, 64)
        assert not np.array_equal(copies[0], copies[1]), name
