"""The specialists averaged for one kind of text: against the definition."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.language_kitchen import OWN, REQUEST, RUNS, SPECIALISTS, USED, Kitchen, N

from stockpot.entities import OverlayRule, Recipe, digest_of_bytes
from stockpot.errors import BadRequest, BadTask
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.testing.tiny import DomainTask, LanguageTask
from stockpot.workflow.selecting.by_posterior import Mixed
from stockpot.workflow.selecting.by_target import PARTS, averaged_for_target, in_parts, open_target
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

TARGET = replace(REQUEST, target="shifted")


class Mostly(LanguageTask):
    """Texts of its split ``shifted`` are of the second domain, but for each fourth."""

    def domains(self, split: str) -> Sequence[str]:
        mine = [USED[0] if place % 4 == 3 else USED[1] for place in range(self._n)]
        return mine if split == "shifted" else super().domains(split)


def average(
    kitchen: Kitchen, own: Mapping[str, Recipe] = OWN, *, late: bool = False
) -> tuple[Mixed | None, str, SharedEvaluator]:
    found = open_target(TARGET, kitchen.bench, kitchen.evaluators)
    assert found is not None
    target = SharedEvaluator(found, MemoryStore())
    reported = kitchen.evaluators["test"]
    return *averaged_for_target(TARGET, own, target, reported, kitchen.bench, None, lambda: late), target


def test_each_specialist_counts_as_much_as_the_text_is_likely_to_be_of_its_domain() -> None:
    kitchen = Kitchen(Mostly(n=str(N)))
    found, told, target = average(kitchen)
    assert found is not None
    texts = zip(*(kitchen.positions(recipe, "shifted") for recipe in SPECIALISTS), strict=True)
    joint = np.exp([[positions.sum() for positions in text] for text in texts])
    shares = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    assert shares[1] > 0.6 > 2 * shares[0] > 2 * shares[2], (
        "three of four are of the second, the rest of the first"
    )
    (recipe,) = found.recipes
    given = {
        i.checkpoint: Fraction(*i.coefficient) for i in recipe.ingredients if type(i.coefficient) is tuple
    }
    for one, share in zip(SPECIALISTS, shares, strict=True):
        for checkpoint in one.checkpoints:
            assert given.get(checkpoint, 0) == pytest.approx(share / 2, abs=1 / PARTS)
    assert sum(given.values()) == 1
    assert (found.score, found.inference_cost) == (kitchen.score(recipe), 1)
    assert target.started == 3
    assert told.startswith("specialists averaged for split shifted: their shares are ")
    assert f"{USED[1]} 0.{round(1000 * shares[1]):03d}".rstrip("0") in told


def test_what_a_domain_has_in_common_with_another_counts_once_and_one_alone_is_no_average() -> None:
    kitchen = Kitchen(Mostly(n="20"))
    found, told, _ = average(kitchen, {**OWN, USED[2]: SPECIALISTS[0]})
    assert found is not None
    assert {*found.recipes[0].checkpoints} == {*SPECIALISTS[0].checkpoints, *SPECIALISTS[1].checkpoints}
    assert f"{USED[0]}+{USED[2]} " in told
    nothing, why, target = average(kitchen, dict.fromkeys(USED, SPECIALISTS[0]))
    assert nothing is None
    assert why.endswith("there are not two")
    assert target.started == 0


def test_statistics_are_laid_over_the_average_as_over_every_soup() -> None:
    kitchen, rule = Kitchen(Mostly(n="20")), OverlayRule("train", 4, "bn/1", digest_of_bytes(b"data"))
    scored = TableEvaluator(lambda _: [0.5] * 20, n=20, greatest=1.0)
    target = kitchen.bench.evaluator("shifted", compared=False)
    found, _ = averaged_for_target(TARGET, OWN, target, scored, kitchen.bench, rule, lambda: False)
    assert found is not None
    assert [recipe.overlay for recipe in found.recipes] == [rule]


class Sorted(Mostly):
    """The same texts, all those of the first domain before those of the second."""

    def examples(self, split: str) -> Any:
        found = super().examples(split)
        return [found[place] for place in sorted(range(self._n), key=super().domains(split).__getitem__)]


def test_the_order_of_the_texts_says_nothing() -> None:
    found, mixed = (average(Kitchen(task(n="100")))[0] for task in (Mostly, Sorted))
    assert found is not None
    assert mixed is not None
    assert found.recipes == mixed.recipes


def test_when_time_is_up_nothing_is_evaluated() -> None:
    kitchen = Kitchen(Mostly(n="20"))
    found, why, target = average(kitchen, late=True)
    assert (found, target.started) == (None, 0)
    assert why.endswith("time is up")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda told: sum(told) > 0))
def test_shares_in_parts_add_up_to_one_and_are_nearly_what_they_were(told: list[float]) -> None:
    shares = [share / sum(told) for share in told]
    found = in_parts(shares)
    assert sum(found) == 1
    assert all(abs(part - share) < 1 / PARTS for part, share in zip(found, shares, strict=True))
    assert all(PARTS % part.denominator == 0 for part in found)


class Twins(LanguageTask):
    """Its split ``shifted`` is another one by a second name."""

    def __init__(self, of: str) -> None:
        super().__init__(n="30")
        self._of = of

    def examples(self, split: str) -> Any:
        return super().examples(self._of if split == "shifted" else split)


def test_what_cannot_be_a_target_is_told_before_anything_is_evaluated() -> None:
    def opened(task: Any, split: str = "shifted") -> object:
        kitchen = Kitchen(task)
        return open_target(replace(REQUEST, target=split), kitchen.bench, kitchen.evaluators)

    with pytest.raises(BadRequest, match="the task gives none"):
        opened(DomainTask(n="30"))
    with pytest.raises(BadRequest, match="splits test and shifted hold the same data"):
        opened(Twins("test"))
    assert opened(Twins("validation")) is not None, "what chose the specialists may weigh them, too"
    with pytest.raises(BadTask):
        opened(LanguageTask(n="30"), "nowhere")
    for split in ("test", "fog"):
        with pytest.raises(BadRequest, match="target must be neither report_on nor one of shifts"):
            replace(REQUEST, target=split, shifts=("fog",))
    with pytest.raises(BadRequest, match="name of a split is empty"):
        replace(REQUEST, target=" ")


def test_the_held_out_split_may_be_the_target_and_is_not_passed_again() -> None:
    kitchen = Kitchen()
    kitchen.together()
    before = kitchen.bench.passes
    request = replace(REQUEST, target="validation")
    assert open_target(request, kitchen.bench, kitchen.evaluators) is kitchen.evaluators["validation"]
    target, reported = kitchen.evaluators["validation"], kitchen.evaluators["test"]
    found, _ = averaged_for_target(request, OWN, target, reported, kitchen.bench, None, lambda: False)
    assert found is not None
    assert kitchen.bench.passes <= before + 2, "the average, and what a score is multiplied with"
    assert {*found.recipes[0].checkpoints} == {*RUNS}
