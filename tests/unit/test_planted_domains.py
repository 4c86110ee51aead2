"""Planted sweeps across domains: by the mixture, by the worst domain and in groups, the fast search takes the
plain loop's decisions.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import Tensor

from stockpot.entities import (
    Accept,
    Aim,
    Bound,
    Candidate,
    Checkpoint,
    Digest,
    Job,
    Objective,
    Recipe,
    Run,
    Selection,
    SoupRequest,
    Sweep,
    SweepSelector,
    Threshold,
    Trial,
    WeightsFormat,
    WeightsSource,
    digest_of_bytes,
    exact_mean,
    tags,
)
from stockpot.errors import NotExact
from stockpot.evaluation import TorchBench
from stockpot.evaluation.rejection.tally import Tally
from stockpot.selection.greedy import Greedy
from stockpot.selection.grouped import Grouped
from stockpot.store.memory import MemoryStore
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.testing.listener import Listener
from stockpot.watching import Silent
from stockpot.workflow import helping, leases
from stockpot.workflow.helping import help_out
from stockpot.workflow.selecting.domains import domains_of
from stockpot.workflow.selecting.measure import open_splits
from stockpot.workflow.selecting.ranking import Ranking
from stockpot.workflow.selecting.search import by_group, search
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.sharing.opening import opening_of
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.workflow.walk import Place

pytestmark = pytest.mark.usefixtures("one_thread")
REQUEST = SoupRequest(model="m", task="t", sweep="s", methods=("greedy",), verify_exact=True)
WAYS = {
    "mixture": REQUEST,
    "worst": replace(REQUEST, objective=Objective.WORST),
    "grouped": replace(REQUEST, methods=("grouped",)),
}
EXAMPLES = 20, 160


class PlantedTask(tiny.DomainTask):
    """Domains of unequal sizes, in an order of its own; scores of all kinds.

    `graded`: how sure of its label a model is, in place of whether it is right. `kind`: one of `tiny.KINDS`
    with inputs as "dense" has.
    """

    batch_size = 8

    def __init__(self, labels: Sequence[str], *, graded: bool, kind: str) -> None:
        super().__init__(str(len(labels)), str(len(tiny.LABELS)))
        self._of, self._graded, self._kind = labels, graded, kind

    def domains(self, split: str) -> Sequence[str]:  # noqa: ARG002 - the same in each
        return self._of

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        if not self._graded:
            return super().score(outputs, batch)
        return outputs.softmax(1).gather(1, batch[1][:, None]).squeeze(1)


class Planted:
    """A sweep drawn by its number: two to four domains, one to four runs of each and some of all data, of
    which the first two are equal; near to each other or far. Every other one weighs its domains unequally,
    or leaves one out.
    """

    def __init__(self, number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - no secret
        self.labels = tiny.LABELS[: dice.randint(2, 4)]
        n = dice.randint(*EXAMPLES)
        shares = [dice.choice([1, 2, 5]) for _ in self.labels]
        of = [*self.labels, *dice.choices(self.labels, shares, k=n - len(self.labels))]
        dice.shuffle(of)
        told = [label for label in self.labels for _ in range(dice.randint(1, 4))]
        told += ["*"] * dice.randint(0, 2)
        self.runs = [
            Run(f"id{i}", f"{label}-{i}", "1", "FINISHED", i, {}, {}, {tags.DOMAIN: label})
            for i, label in enumerate([told[0], *told])
        ]
        self.mix: dict[str, float] | None = None
        if number % 2:
            self.mix = {label: dice.choice([0.1, 1 / 3, 1, 7]) for label in self.labels}
            if len(self.mix) > 2 and number % 4 == 1:
                self.mix[self.labels[0]] = 0
        self.accept = list(Accept)[number // 2 % 2]
        spread, far = dice.choice([0.02, 0.1, 0.3]), dice.choice([0.05, 0.1, 0.3])
        kind = "mates" if number % 5 == 4 else "dense"
        self._states = {
            _digest(run): tiny.domain_weights(
                dice.choice(self.labels) if label == "*" else label,
                seed=max(1, place),
                spread=spread,
                far=far,
                kind=kind,
            )
            for place, (run, label) in enumerate(zip(self.runs, [told[0], *told], strict=True))
        }
        self.bench = TorchBench(
            PlantedTask(of, graded=number % 3 == 0, kind=kind),
            identity=("planted", str(number)),
            task_args={},
            checkpoints=MadeCheckpoints(self._states.__getitem__),
            device=torch.device("cpu"),
        )
        self.store = MemoryStore()

    def fewest(self, way: str) -> int:
        """Ingredients of what a search begins with."""
        counting = [label for label in self.labels if self.mix is None or self.mix[label] > 0]
        return len(counting) if way == "grouped" else 1

    def verified(self, way: str) -> Selection:
        """Rank, search and verify, as a request does. Raises NotExact where the plain search differs."""
        request = replace(WAYS[way], mix=self.mix, accept=self.accept)
        domains = domains_of(request, self.bench, self.runs)
        evaluator = SharedEvaluator(
            self.bench.evaluator("validation"), self.store, aim=domains.aims["validation"]
        )
        alone = {
            _digest(run): score_in_full(Recipe.mean([_digest(run)]), evaluator).value for run in self.runs
        }
        found = sorted(map(_candidate, self.runs), key=lambda one: -alone[one.checkpoint.digest])
        ranking = Ranking(Sweep(SweepSelector("s"), tuple(found), ()), tuple(found), alone)
        methods, _ = by_group({"greedy": Greedy, "grouped": Grouped}, ranking, domains)
        heard = Listener()
        (selection,) = search(
            request,
            ranking,
            {name: methods[name] for name in request.methods},
            evaluator,
            lambda: False,
            heard,
            self.bench.evaluator("validation", plain=True),
        )
        assert any("the plain search agrees" in line for line in heard.said)
        return selection


def _digest(run: Run) -> Digest:
    return digest_of_bytes(run.run_id.encode())


def _candidate(run: Run) -> Candidate:
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1)
    return Candidate(run, source, "", Checkpoint(_digest(run), 1, (), digest_of_bytes(b"")))


@pytest.mark.slow
def test_on_twenty_sweeps_each_search_is_the_plain_loops_by_mixture_by_worst_domain_and_in_groups() -> None:
    kept: dict[str, list[int]] = {way: [] for way in WAYS}
    bounded = dict.fromkeys(WAYS, 0)
    dependent = 0
    for number in range(20):
        planted = Planted(number)
        for way in WAYS:
            selection = planted.verified(way)
            kept[way].append(len(selection.recipe.checkpoints) - planted.fewest(way))
            bounded[way] += sum(step.bound is not None for step in selection.steps)
        dependent += planted.bench.evaluator("validation").order_dependent
    assert 1 <= dependent <= 10, "some models look at the whole batch, others do not"
    for way in WAYS:
        assert min(kept[way]) == 0
        assert max(kept[way]) >= 4
        assert bounded[way] >= 15, "early rejection is on"


def of_examples_alike(tally: Tally) -> Bound | None:
    """By the mean of all examples, whatever their domains."""
    return _rejected(tally, exact_mean(tally.scores.tolist()))


def of_the_least_domain(tally: Tally) -> Bound | None:
    """By the worst domain, also where the mixture is asked for."""
    aim = _threshold(tally).aim
    assert isinstance(aim, Aim)
    return _rejected(tally, replace(aim, worst=True).value(tally.scores.tolist()))


def of_the_middle(tally: Tally) -> Bound | None:
    """As if what was not seen scored half of the greatest."""
    aim = _threshold(tally).aim
    assert isinstance(aim, Aim)
    likely = [s if seen else s / 2 for s, seen in zip(tally.scores.tolist(), tally.seen, strict=True)]
    return _rejected(tally, aim.value(likely))


def _threshold(tally: Tally) -> Threshold:
    return tally._threshold


def _rejected(tally: Tally, upper: float) -> Bound | None:
    return None if _threshold(tally).met_by(upper) else Bound(upper, mixed=False)


@pytest.mark.parametrize(
    ("plant", "way", "number"),
    [
        (of_examples_alike, "mixture", 15),
        (of_examples_alike, "grouped", 2),
        (of_the_least_domain, "mixture", 15),
        (of_the_least_domain, "grouped", 1),
        (of_the_middle, "worst", 1),
    ],
)
def test_a_bound_that_is_no_bound_is_found(
    plant: Callable[[Tally], Bound | None], way: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(number)
    monkeypatch.setattr(Tally, "bound", plant)
    with pytest.raises(NotExact, match="the fast search is not the plain one"):
        planted.verified(way)


def test_what_a_helper_finds_out_of_reach_is_so_for_whoever_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = Planted(2)
    job = Job(digest_of_bytes(b"job"), REQUEST)
    splits = open_splits(REQUEST, planted.bench)
    opening = opening_of(splits, planted.bench, planted.bench.batch_size, None)
    leader = "host/1/leader"
    planted.store.begin_job(job)
    planted.store.take_lease(job.lease, owner=leader, seconds=60)
    planted.store.open_job(job, opening, owner=leader)
    soup = Trial(Recipe.mean([_digest(run) for run in planted.runs]), Threshold(2.0, strict=False))

    def evaluate(_request: object, _prospects: object, _methods: object, evaluators: Any, *_: object) -> None:
        (outcome,) = evaluators["validation"].evaluate([soup])
        assert isinstance(outcome, Bound)
        planted.store.release_lease(job.lease, owner=leader)
        monkeypatch.setattr(leases, "LEASE_SECONDS", 0.0)  # the leader does not come back

    monkeypatch.setattr(helping, "_evaluate", evaluate)
    monkeypatch.setattr(
        helping, "gather", lambda *_: SimpleNamespace(runs=planted.runs, datasets={}, found=())
    )
    place = SimpleNamespace(
        store=planted.store,
        tracker=None,
        supply=None,
        methods=lambda _: {},
        bench=lambda _: planted.bench,
    )
    assert help_out(cast("Place", place), Silent()) == 1
    aim = domains_of(REQUEST, planted.bench, planted.runs).aims["validation"]
    leads = SharedEvaluator(splits["validation"], planted.store, aim=aim)
    (outcome,) = leads.evaluate([soup])
    assert isinstance(outcome, Bound)
    assert leads.started == 0, "it was answered"
