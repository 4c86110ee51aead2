from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip(
    "sklearn", reason="the demo's images come with scikit-learn (pip install 'stockpot[demo]')"
)

from stockpot.demo.data import SCANS, SHIFTS, load_splits, scanned, write_digits
from stockpot.demo.search import Hyperparameters
from stockpot.demo.training import accuracy, initialised, train
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
    for split in ("validation", "test", *SHIFTS):
        assert again.digest(split) == task.digest(split)
    assert [file.name for file in tmp_path.iterdir()] == ["again.npz"]


@pytest.mark.parametrize("name", ["validation", "test", *SHIFTS])
def test_scans_of_an_image_are_grouped_by_image_and_differ(task: ArrayClassification, name: str) -> None:
    split, images = ("validation" if name == "validation" else "test"), task.examples(name)
    clean, labels = load_splits()[split]
    groups = np.array(task.groups(name))
    assert np.array_equal(np.bincount(groups), np.full(len(clean), SCANS[split]))
    assert np.array_equal(images.y, labels[groups])
    assert images.x.shape == (SCANS[split] * len(clean), 1, 8, 8)
    assert 0 <= images.x.min() < images.x.max() <= 1
    first, second, third = (images.x[groups == image] for image in (0, 1, 2))
    for scans in (first, second, third):
        assert not np.array_equal(scans[0], scans[1])
    # Each scan still resembles its own image more than the next one.
    own, other = (np.abs(images.x - clean[origin]).mean() for origin in (groups, (groups + 1) % len(clean)))
    assert 0 < own < other


def test_every_shift_makes_the_scans_of_the_test_images_others(task: ArrayClassification) -> None:
    test = task.examples("test")
    for name in SHIFTS:
        assert not np.array_equal(task.examples(name).x, test.x), name


def test_a_fine_tune_in_the_middle_of_the_ranges_leaves_room_on_validation_images() -> None:
    x, y = map(torch.from_numpy, load_splits()["pretrain"])
    net = initialised(0)
    train(net, x, y, Hyperparameters(2e-3, 1e-2, 15))
    x, y = map(torch.from_numpy, scanned("finetune")[:2])
    train(net, x, y, Hyperparameters(1e-3, 1e-2, 16, shift=0.03, rotate=12, noise=0.15, seed=1))
    x, y = map(torch.from_numpy, scanned("validation")[:2])
    assert 0.85 < accuracy(net, x, y) < 0.95
