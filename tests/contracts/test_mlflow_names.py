"""Names that MLflow refuses, or would make one of two, stay apart."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.test_mlflow_tracker import MlflowBackend

from stockpot.entities import Measurement, digest_of_bytes
from stockpot.testing.tracker_backend import plant, publication_of
from stockpot.tracking.mlflow_limits import key_of

ODD = (
    "snr+5", "snr=5", "noise>1", "noise<1", "weather//fog", "weather/fog", "../up", "/root", "a/./b", "dot/.",
    "end/", "x" * 600, "x" * 600 + "y", "x" * 249 + "/y",
)  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> MlflowBackend:
    folder = tmp_path_factory.mktemp("names")
    return MlflowBackend(f"sqlite:///{folder}/mlflow.db", f"{folder}/artifacts")


@pytest.mark.parametrize("attempts", [1, 2])
def test_every_split_has_its_own_metric_whatever_its_name_and_a_retry_loses_none(
    database: MlflowBackend, attempts: int
) -> None:
    tracker = database.tracker
    found = tuple(
        Measurement(f"score.{split}", number / 100, split, digest_of_bytes(split.encode()))
        for number, split in enumerate(ODD)
    )
    publication = replace(publication_of(database, plant(database, 2)), measurements=found)
    run = tracker.create_run(publication)
    model = tracker.create_model(run, publication)
    for _ in range(attempts):
        tracker.record(run, model, [], publication)
    logged = database.client.get_run(run)
    assert sorted(logged.data.metrics.values()) == [number / 100 for number in range(len(ODD))]
    assert len(database.logged(run).datasets) == len(ODD)


@pytest.mark.parametrize("name", ["score.test", "gain.weather/fog", "score.rain in May", "a..b", "lr-1_0"])
def test_a_name_that_mlflow_takes_is_left_as_it_is(name: str) -> None:
    assert key_of(name) == name


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_two_names_never_share_a_key_and_mlflow_takes_each(names: list[str]) -> None:
    from mlflow.utils import validation

    validate: Any = validation._validate_metric_name
    keys = [key_of(f"score.{name}") for name in names]
    assert keys[0] != keys[1]
    for key in keys:
        validate(key)
        assert len(key) <= 250
