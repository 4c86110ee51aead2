"""A split of several domains, each measured as a whole."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import pytest
import torch

from stockpot.entities import Aim, Ensemble, Metric, Recipe, Score, Threshold, Trial, digest_of_bytes
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.ports import Interrupted
from stockpot.statistics import routed
from stockpot.store import MemoryStore
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.testing.tiny import LanguageTask, MeasuredDomainTask, domain_weights
from stockpot.workflow.leases import Hold
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.sharing.in_parts import plain_split, shared_split
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

N = 75
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(3)]
SOUP = Recipe.mean(DIGESTS)
STATES = dict(zip(DIGESTS, ("plants", "birds", "stones"), strict=True))
pytestmark = pytest.mark.usefixtures("one_thread")


class Twins(MeasuredDomainTask):
    """Every two examples of a domain have one origin."""

    def groups(self, split: str) -> Sequence[Hashable]:
        seen: dict[str, int] = {}
        found = []
        for domain in self.domains(split):
            seen[domain] = seen.get(domain, -1) + 1
            found.append((domain, seen[domain] // 2))
        return found


def bench_for(task: Any = None) -> TorchBench:
    return TorchBench(
        task or MeasuredDomainTask(str(N)),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(lambda digest: domain_weights(STATES[digest])),
        outputs=RememberedOutputs(),
        device="cpu",
    )


def aim_of(bench: TorchBench, *, worst: bool = False, **weights: float) -> Aim:
    labels = bench.domains("validation") or ()
    return Aim(labels, weights or dict.fromkeys(labels, 1.0), worst=worst)


def shared(bench: TorchBench, store: MemoryStore, aim: Aim, *, compared: bool = False) -> SharedEvaluator:
    inner = bench.evaluator("validation", compared=compared)
    return shared_split(inner, store, bench, aim, compared=compared)


def test_one_number_is_made_of_each_domains_own_metric() -> None:
    bench = bench_for()
    whole = bench.evaluator("validation", compared=False)
    parts = {d: bench.evaluator("validation", compared=False, domain=d) for d in STATES.values()}
    each = {domain: score_in_full(SOUP, part).value for domain, part in parts.items()}
    assert len({*each.values(), score_in_full(SOUP, whole).value}) == 4
    aims = {
        sum(each.values()) / 3: aim_of(bench),
        min(each.values()): aim_of(bench, worst=True),
        (3 * each["plants"] + each["stones"]) / 4: aim_of(bench, plants=3.0, stones=1.0),
    }
    for value, aim in aims.items():
        found = score_in_full(SOUP, shared(bench, MemoryStore(), aim))
        assert found.value == pytest.approx(value, abs=1e-15)
        assert score_in_full(SOUP, plain_split("validation", bench, aim)) == found
        for domain in STATES.values():
            assert found.of_domain(domain, aim.places(domain)).value == each[domain]
    assert found.examples == score_in_full(SOUP, whole).examples


def test_what_is_committed_are_the_parts_and_no_pass_is_made_twice() -> None:
    store, first, again = MemoryStore(), bench_for(), bench_for()
    found = score_in_full(SOUP, shared(first, store, aim_of(first)))
    assert first.passes == pytest.approx(1.0), "one for all domains together"
    assert score_in_full(SOUP, shared(again, store, aim_of(again, worst=True))).examples == found.examples
    own = again.evaluator("validation", compared=False, domain="birds")
    part = SharedEvaluator(own, store)
    assert score_in_full(SOUP, part) == found.of_domain("birds", ())
    assert again.passes == 0
    known = shared(again, store, aim_of(again)).committed(SOUP, lambda: None)
    assert known == found


def test_whoever_evaluates_a_part_is_waited_for() -> None:
    store, bench = MemoryStore(), bench_for()
    evaluator = shared(bench, store, aim_of(bench))
    own = bench.evaluator("validation", compared=False, domain="birds")
    hold = Hold(store, f"evaluate {SOUP.digest} under {evaluator.protocol.digest}", "the whole")
    assert hold.attempt() is None
    assert evaluator.attempt(Trial(SOUP)) is None
    assert bench.passes == 0
    store.release_lease(f"evaluate {SOUP.digest} under {evaluator.protocol.digest}", owner=hold.owner)
    score_in_full(SOUP, SharedEvaluator(own, store))
    before = bench.passes
    unreachable = Trial(SOUP, Threshold(2.0, strict=True))
    assert isinstance(evaluator.attempt(unreachable), Score), "always in full"
    assert bench.passes - before == pytest.approx(1.0 - before), "what others scored is not scored again"


def test_whoever_is_not_wanted_any_more_stops_and_progress_keeps_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = bench_for()
    evaluator = shared(bench, MemoryStore(), aim_of(bench))
    with pytest.raises(Interrupted):
        evaluator.evaluate([Trial(SOUP)], wanted=lambda: False)
    moved: list[str] = []
    monkeypatch.setattr(Hold, "moved", lambda hold: moved.append(hold._name))
    score_in_full(SOUP, evaluator)
    assert len([name for name in moved if name.endswith(evaluator.protocol.digest)]) >= len(STATES)


class MeasuredTexts(LanguageTask):
    """Measured as a whole, and by nothing that is made of log likelihoods."""

    def metric(self, outputs: torch.Tensor, targets: Any) -> float:  # noqa: ARG002
        return float(outputs.std())


def test_log_likelihoods_say_nothing_of_what_a_metric_counts() -> None:
    of = {
        task: TorchBench(
            task(), identity=("t", "1"), task_args={}, checkpoints=MadeCheckpoints(lambda _: {}), device="cpu"
        ).has_log_likelihoods
        for task in (LanguageTask, MeasuredTexts)
    }
    assert of == {LanguageTask: True, MeasuredTexts: False}


def test_an_ensemble_is_measured_by_remembered_outputs_of_each_part() -> None:
    bench = bench_for()
    aim = aim_of(bench)
    evaluator = shared(bench, MemoryStore(), aim)
    ensemble = Ensemble.of(DIGESTS[:2])
    assert evaluator.committed(ensemble, lambda: None) is None
    for digest in DIGESTS[:2]:
        score_in_full(Recipe.mean([digest]), evaluator)
    passes = bench.passes
    found = evaluator.committed(ensemble, lambda: None)
    assert found is not None
    assert bench.passes == passes
    part = bench.ensemble(ensemble, "validation", compared=False, domain="stones")
    assert part is not None
    assert found.of_domain("stones", ()) == part


@pytest.mark.parametrize("task", [MeasuredDomainTask, Twins])
def test_replicates_leave_out_blocks_of_the_domains_own_origins(task: type[MeasuredDomainTask]) -> None:
    bench = bench_for(task(str(N)))
    evaluator = bench.evaluator("validation", domain="stones")
    metric = score_in_full(SOUP, evaluator).metric
    assert metric is not None
    n = evaluator.protocol.n
    assert len(metric.without) == (math.ceil(n / 2) if task is Twins else n)
    value = bench.evaluator("validation", compared=False, domain="stones").protocol
    assert value.digest != evaluator.protocol.digest
    others = {
        bench_for(kind(str(N))).evaluator("validation", domain="stones").protocol.digest
        for kind in (MeasuredDomainTask, Twins)
    }
    assert len(others) == 2, "who has other origins has other replicates"


def test_a_router_takes_each_domains_metric_from_its_specialist() -> None:
    aim = Aim(("a", "b", "a"), {"a": 1.0, "b": 1.0})

    def of(**values: float) -> Score:
        parts = {
            domain: Score((value,) * len(aim.places(domain)), Metric(value, ()))
            for domain, value in values.items()
        }
        return Score.of_parts(parts, aim)

    found = routed({"a": of(a=0.5, b=0.1), "b": of(a=0.2, b=0.9)}, aim.domains)
    assert found.value == pytest.approx(0.7)
    assert found.examples == (0.5, 0.9, 0.5)
    assert found.of_domain("b", ()).metric == Metric(0.9, ())
    with pytest.raises(ValueError, match="says nothing of its examples of a"):
        Score((1.0,), Metric(0.5, ())).of_domain("a", [0])
    assert torch.tensor(of(a=1.0, b=math.nan).value).isnan()
