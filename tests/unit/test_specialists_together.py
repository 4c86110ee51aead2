"""Language models, one of each domain, that answer together: against the definition, position by position."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.language_kitchen import RUNS, SPECIALISTS, USED, Kitchen, N, Positions, learnt
from torch import Tensor

from stockpot.entities import Recipe
from stockpot.evaluation import RememberedOutputs
from stockpot.testing.tiny import DomainTask, LanguageTask
from stockpot.workflow.selecting.by_posterior import BY_CACHED_PRIOR, BY_LIKELIEST, BY_POSTERIOR


def _mixed(experts: Sequence[Positions], text: int, prior: NDArray[np.float64]) -> float:
    """A text's mean log likelihood, by the posterior of what came before each position."""
    logs = np.stack([positions[text] for positions in experts])
    weights, total = prior, 0.0
    for likely in np.exp(logs.T):
        mixed = float(weights @ likely)
        total += math.log(mixed)
        weights = weights * likely / mixed
    return total / len(logs[0])


def test_specialists_together_score_what_the_definition_says() -> None:
    kitchen = Kitchen()
    rows, notes = kitchen.together()
    told = [kitchen.positions(recipe, "test") for recipe in SPECIALISTS]
    held_out = [kitchen.positions(recipe, "validation") for recipe in SPECIALISTS]
    blind = np.full(3, 1 / 3)
    priors = [learnt(held_out, range(place, N, 3)) for place in range(3)]  # texts are dealt in turn
    assert [int(prior.argmax()) for prior in priors] == [0, 1, 2], "each domain has an expert of its own"
    few = [np.where(prior == prior.min(), 0.0, prior) for prior in priors]
    expected = {
        BY_POSTERIOR: [_mixed(told, text, blind) for text in range(N)],
        BY_CACHED_PRIOR: [_mixed(told, text, priors[text % 3]) for text in range(N)],
        BY_LIKELIEST: [_mixed(told, text, few[text % 3] / few[text % 3].sum()) for text in range(N)],
    }
    for label, scores in expected.items():
        assert rows[label].score.examples == pytest.approx(scores, abs=1e-9)
        by_domain = [np.mean(scores[place::3]) for place in range(2)]  # the third one has no weight
        assert rows[label].score.value == pytest.approx(np.mean(by_domain), abs=1e-9)
    assert rows[BY_CACHED_PRIOR].score.value > rows[BY_POSTERIOR].score.value, "it knows more"
    assert [rows[label].inference_cost for label in expected] == [3, 3, 2]
    assert notes == ()


def test_a_pass_for_each_specialist_and_split_is_enough_and_the_second_time_none() -> None:
    kitchen = Kitchen()
    kitchen.together(SPECIALISTS[:2])
    # Each specialist on both splits, and on each the factors of score and log likelihood.
    assert kitchen.bench.passes == 2 * 2 + 2
    kitchen.together(SPECIALISTS[:2])
    assert kitchen.bench.passes == 2 * 2 + 2


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_log_likelihoods_are_read_off_outputs_where_they_are_remembered(size: int) -> None:
    kitchen = Kitchen(outputs=RememberedOutputs(bytes_per_example=size))
    run = Recipe.mean([next(iter(RUNS))])
    kitchen.score(run)
    expected = [math.fsum(logs) for logs in kitchen.positions(run, "test")]
    assert kitchen.bench.log_likelihoods(run, "test") == pytest.approx(expected, abs=1e-9)
    assert kitchen.bench.passes == (1 if size else 2)
    anew = Kitchen(outputs=RememberedOutputs(bytes_per_example=0)).bench.log_likelihoods(run, "test")
    assert kitchen.bench.log_likelihoods(run, "test") == anew, "to the last bit"


def test_when_time_is_up_no_prior_islearnt() -> None:
    kitchen = Kitchen()
    rows, notes = kitchen.together(late=True)
    assert [*rows] == [BY_POSTERIOR]
    assert notes == ("no row for specialists together by a cached prior: time is up",)
    assert kitchen.evaluators["validation"].started == 0


def test_the_same_specialist_of_two_domains_weighs_once() -> None:
    kitchen = Kitchen()
    rows, _ = kitchen.together([SPECIALISTS[0], SPECIALISTS[1], SPECIALISTS[0]])
    assert rows[BY_POSTERIOR].recipes == tuple(SPECIALISTS[:2])
    assert rows[BY_POSTERIOR].score == kitchen.together(SPECIALISTS[:2])[0][BY_POSTERIOR].score
    assert BY_LIKELIEST not in rows, "two of two are all"
    assert kitchen.together([SPECIALISTS[0]] * 3) == ({}, ())


class Unseen(LanguageTask):
    """Without held-out texts of the last domain."""

    def domains(self, split: str) -> Sequence[str]:
        found = super().domains(split)
        return [label if label != USED[2] or split == "test" else USED[0] for label in found]


def test_of_a_domain_without_held_out_texts_nothing_is_known_beforehand() -> None:
    kitchen = Kitchen(Unseen(n="60"))
    rows, _ = kitchen.together()
    aim = kitchen.domains.aims["test"]

    def blind_and_told(domain: str) -> list[float]:
        scores = [rows[label].score for label in (BY_POSTERIOR, BY_CACHED_PRIOR)]
        return [score.of_domain(domain, aim.places(domain)).value for score in scores]

    blind, told = blind_and_told(USED[2])
    assert blind == told
    blind, told = blind_and_told(USED[1])
    assert blind < told


class Empty(LanguageTask):
    """Its first text of each split has nothing to predict."""

    def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:
        (text, _), *others = super().examples(split)
        return [(text, 1), *others]

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.log_likelihood(outputs, batch).sum(dim=1)


def test_a_text_without_positions_scores_nothing_by_anybody() -> None:
    rows, notes = Kitchen(Empty(n="30")).together()
    assert notes == ()
    assert rows[BY_POSTERIOR].score.examples[0] == 0.0
    assert all(score < 0 for score in rows[BY_POSTERIOR].score.examples[1:])


class Otherwise(LanguageTask):
    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -super().score(outputs, batch)


def test_scores_that_are_no_log_likelihoods_are_not_mixed() -> None:
    rows, (note,) = Kitchen(Otherwise(n="30")).together()
    assert rows == {}
    assert "score() is not the sum of log_likelihood()" in note


def test_a_task_without_likelihoods_has_no_such_row_and_it_is_said_why() -> None:
    rows, (note,) = Kitchen(DomainTask(n="30")).together()
    assert rows == {}
    assert "the task gives no log_likelihood" in note
