"""Language models that answer together by features of the text: against the definition, by position."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.unit.language_kitchen import OWN, SPECIALISTS, USED, Kitchen, N, Positions
from torch import Tensor

from stockpot.errors import BadTask
from stockpot.evaluation import RememberedOutputs
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.mixture import Mixture
from stockpot.testing.tiny import LABELS, DomainTask, LanguageTask
from stockpot.workflow.selecting.by_features import BY_NEAREST, BY_NEAREST_TWO, BY_NEARNESS

Floats = NDArray[np.float64]


def _shares(task: LanguageTask) -> Floats:
    """Of each reported text, that of each of the domains in use: as c-BTM writes it."""
    held_out, texts = (task.features(split).double().numpy() for split in ("validation", "test"))
    labels = np.array(task.domains("validation"))
    centers = [held_out[labels == domain].mean(axis=0) for domain in USED]
    distances = np.array([[np.linalg.norm(text - center) for center in centers] for text in texts])
    weights = np.exp(-(distances**2) / 0.1)
    found: Floats = weights / weights.sum(axis=1, keepdims=True)
    return found


def _mixed(experts: Sequence[Positions], text: int, shares: Floats) -> float:
    """A text's mean log likelihood, where the experts' probabilities are averaged at each position."""
    likely = np.exp(np.stack([positions[text] for positions in experts]))
    return float(np.mean([math.log(shares @ at) for at in likely.T]))


def _greatest(shares: Floats, k: int) -> Floats:
    kept = np.where(shares >= np.sort(shares)[-k], shares, 0.0)
    found: Floats = kept / kept.sum()
    return found


class Turned(LanguageTask):
    """Texts of the reported split are dealt in another turn: a place tells nothing of the other split's."""

    def domains(self, split: str) -> Sequence[str]:
        dealt = super().domains(split)
        return [*dealt[1:], dealt[0]] if split == "test" else dealt


def test_specialists_by_nearness_score_what_the_definition_says() -> None:
    kitchen = Kitchen(Turned(n=str(N)))
    rows, notes = kitchen.near()
    told = [kitchen.positions(recipe, "test") for recipe in SPECIALISTS]
    shares = _shares(kitchen.task)
    for label, k, cost in ((BY_NEARNESS, 3, 3), (BY_NEAREST_TWO, 2, 2), (BY_NEAREST, 1, 1)):
        expected = [_mixed(told, text, _greatest(shares[text], k)) for text in range(N)]
        assert rows[label].score.examples == pytest.approx(expected, abs=1e-9)
        reported = np.array(kitchen.task.domains("test"))
        by_domain = [np.array(expected)[reported == domain].mean() for domain in USED[:2]]
        assert rows[label].score.value == pytest.approx(np.mean(by_domain), abs=1e-9)
        assert (rows[label].recipes, rows[label].inference_cost) == (tuple(SPECIALISTS), cost)
    assert [*rows] == [BY_NEARNESS, BY_NEAREST_TWO, BY_NEAREST], "in that order"
    assert len({row.score.value for row in rows.values()}) == 3
    (how,) = notes
    assert how.startswith("by nearness: each specialist weighs by softmax(-d^2 / 0.1), d the Euclidean ")
    assert how.endswith(" from the mean of its domain's examples on split validation")


class Plain(LanguageTask):
    """Its features tell the domain of each text, and of other data that no mean may be taken of."""

    def features(self, split: str) -> Tensor:
        return 10.0 * torch.eye(len(LABELS))[[LABELS.index(label) for label in self.domains(split)]]


def test_where_features_tell_the_domain_each_text_has_its_own_specialist() -> None:
    kitchen = Kitchen(Plain(n="60"))
    rows, _ = kitchen.near()
    own = [kitchen.score(recipe).examples for recipe in SPECIALISTS]
    expected = [own[text % 3][text] for text in range(60)]  # texts are dealt in turn
    for row in rows.values():
        assert row.score.examples == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_it_takes_a_pass_for_each_specialist_and_the_second_time_none(size: int) -> None:
    kitchen = Kitchen(outputs=RememberedOutputs(bytes_per_example=size))
    kitchen.near()
    # Each specialist's score, the factors of scores and likelihoods, and the positions of each.
    assert kitchen.bench.passes == 3 + 1 + 3
    assert kitchen.near()[0] == kitchen.near()[0]
    assert kitchen.bench.passes == 3 + 1 + 3
    kitchen.near(OWN | {USED[2]: SPECIALISTS[0]})
    assert kitchen.bench.passes == 3 + 1 + 3 + 2, "another mixture"


def test_of_ways_of_which_some_are_remembered_each_has_its_own_sums() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.dirichlet([1.0] * 3, size=(2, N))
    kitchen = Kitchen()
    before = kitchen.bench.mixed_log_likelihoods(SPECIALISTS, [other], "test")
    found = kitchen.bench.mixed_log_likelihoods(SPECIALISTS, [one, other], "test")
    assert found[1:] == before
    assert found == Kitchen().bench.mixed_log_likelihoods(SPECIALISTS, [one, other], "test")
    assert found[0] != found[1]


def test_a_specialist_of_two_domains_has_the_shares_of_both() -> None:
    kitchen = Kitchen()
    rows, _ = kitchen.near(OWN | {USED[2]: SPECIALISTS[0]})
    told = [kitchen.positions(recipe, "test") for recipe in SPECIALISTS[:2]]
    shares = _shares(kitchen.task)
    joined = np.stack([shares[:, 0] + shares[:, 2], shares[:, 1]], axis=1)
    expected = [_mixed(told, text, joined[text]) for text in range(N)]
    assert rows[BY_NEARNESS].score.examples == pytest.approx(expected, abs=1e-9)
    assert rows[BY_NEARNESS].recipes == tuple(SPECIALISTS[:2])
    assert [rows[label].inference_cost for label in rows] == [2, 1], "two of two are all"
    assert kitchen.near(dict.fromkeys(USED, SPECIALISTS[0])) == ({}, ())


def test_a_domain_without_a_specialist_draws_nobody() -> None:
    kitchen = Kitchen(LanguageTask(n="30"))
    own = {USED[2]: SPECIALISTS[2], USED[0]: SPECIALISTS[0]}
    rows, _ = kitchen.near(own)
    told = [kitchen.positions(recipe, "test") for recipe in own.values()]
    shares = _shares(kitchen.task)[:, [2, 0]]
    expected = [_mixed(told, text, _greatest(shares[text], 2)) for text in range(30)]
    assert rows[BY_NEARNESS].score.examples == pytest.approx(expected, abs=1e-9)


def test_when_time_is_up_there_is_no_row_and_no_pass() -> None:
    kitchen = Kitchen()
    assert kitchen.near(late=True) == ({}, ("no row for specialists together by nearness: time is up",))
    assert kitchen.bench.passes == 0


class Silent(LanguageTask):
    def features(self, split: str) -> Any:  # noqa: ARG002 - of no split
        return None


class Unasked(DomainTask):
    """Without log likelihoods nothing is mixed by them."""

    def features(self, split: str) -> Any:
        raise AssertionError(split)


def test_a_task_without_features_has_no_such_row_and_it_is_said_once() -> None:
    rows, (note,) = Kitchen(Silent(n="30")).near()
    assert rows == {}
    assert note == "no row for specialists together by nearness: the task gives no features(split)"
    kitchen = Kitchen(Unasked(n="30"))
    assert kitchen.near() == ({}, ()), "of likelihoods, the posterior's rows tell"


class Ragged(LanguageTask):
    """Its batches are as wide as their longest text."""

    def collate(self, examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        tokens, lengths = super().collate(examples)
        return tokens[:, : int(lengths.max())], lengths


def test_batches_of_other_widths_score_the_same() -> None:
    rows, ragged = (Kitchen(task(n="30")).near()[0] for task in (LanguageTask, Ragged))
    assert {*ragged} == {*rows}
    for label, row in rows.items():
        assert ragged[label].score.examples == pytest.approx(row.score.examples, abs=1e-12)


def test_who_has_no_share_has_no_part_whatever_it_says() -> None:
    mixture = Mixture()
    mixture.add(torch.tensor([[math.nan, 0.0], [-1.0, -math.inf]]).double(), np.array([0.0, 0.5]))
    mixture.add(torch.tensor([[-1.0, -2.0], [-1.0, -math.inf]]).double(), np.array([1.0, 0.5]))
    assert mixture.sums().tolist() == [-3.0, -math.inf]
    mixture.add(torch.tensor([[math.nan, 0.0], [0.0, 0.0]]).double(), np.array([0.5, 0.0]))
    assert math.isnan(mixture.sums()[0])


class Told(LanguageTask):
    def __init__(self, **splits: Any) -> None:
        super().__init__(n="3")
        self._told = splits

    def features(self, split: str) -> Any:
        return self._told[split]


def _checked(**splits: Any) -> dict[str, Any]:
    return dict(CheckedTask(Told(**splits), "t").features(dict.fromkeys(splits, 3)))


ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize("told", [ROWS, np.array(ROWS, np.float32), torch.tensor(ROWS).bfloat16()])
def test_features_are_numbers_of_any_kind(told: Any) -> None:
    found = _checked(validation=told, test=np.array([[True, False]] * 3))
    assert (found["validation"].tolist(), found["validation"].dtype) == (ROWS, np.float64)
    assert found["test"].tolist() == [[1.0, 0.0]] * 3
    assert _checked(validation=None, test=None) == {}


def test_all_that_is_wrong_with_features_is_told_at_once() -> None:
    odd = np.array([[1.0, 2.0], [math.nan, 0.0], [0.0, -math.inf], [1e151, 0.0]])
    with pytest.raises(BadTask, match="task t: what features") as caught:
        _checked(
            validation=odd, test=[[1.0]] * 2, a=None, b=[1.0, 2.0, 3.0], c=[["x", "y"]] * 3, d=[[], [], []]
        )
    assert caught.value.exit_code == 6
    assert caught.value.mend
    odd_numbers = "numbers that are not finite, or greater than 1e+150"
    table = "and not numbers of shape [examples, dimensions]"
    assert caught.value.faults == (
        "features('validation') has 4 rows, the split has 3 examples",
        f"features('validation') holds {odd_numbers}: of 3 examples, example 1 the first",
        "features('test') has 2 rows, the split has 3 examples",
        "features('test') has 1 dimension, features('validation') has 2",
        "features('a') is None, where another split has some",
        f"features('b') is float64 of shape [3], {table}",
        f"features('c') is <U1 of shape [3, 2], {table}",
        f"features('d') is float64 of shape [3, 0], {table}",
    )


def test_what_features_raises_is_the_tasks_fault() -> None:
    with pytest.raises(BadTask, match=r"features\('validation'\) raised ValueError"):
        _checked(validation=[[1.0], [1.0, 2.0], [3.0]])
