"""What the gate looks at, each thing failing for its own reason and for no other."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.gate_site import GOOD, NAN, POLICY, WORSE, Site, content, outcomes, tagged, told

from stockpot.documents import from_document, to_document
from stockpot.entities import (
    CheckOutcome,
    Decision,
    Digest,
    GateVerdict,
    Metric,
    Recall,
    RecallKind,
    Recipe,
    RegistrationState,
    Score,
    SoupRequest,
    digest_of_bytes,
    digest_of_document,
    tags,
)
from stockpot.errors import BadTask, GateFailed, NoRoomForWeights, OutOfDeviceMemory, UnknownPlugin
from stockpot.evaluation import TorchBench
from stockpot.statistics import compare
from stockpot.testing.tiny import DomainTask, MeasuredDomainTask, TinyTask, weights
from stockpot.workflow.promotion.comparing import Match
from stockpot.workflow.promotion.pace import pace

pytestmark = pytest.mark.usefixtures("one_thread")
PASSED, FAILED, NOT_APPLICABLE = (outcome.value for outcome in CheckOutcome)
CARD = b'signature: {inputs: \'[{"name": "x"}]\', outputs: \'[{"name": "y"}]\'}\n'


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_first_version_is_measured_and_compared_with_nobody(site: Site) -> None:
    decision = site.judge(site.register(GOOD), shifts=("shifted",))
    assert outcomes(decision) == {
        "bytes": NOT_APPLICABLE,
        "signature": NOT_APPLICABLE,
        "recall": PASSED,
        "schema": NOT_APPLICABLE,
        "suite": PASSED,
        "score": NOT_APPLICABLE,
        "size": NOT_APPLICABLE,
        "latency": NOT_APPLICABLE,
    }
    assert (decision.verdict, decision.champion, decision.comparisons) == (GateVerdict.PASSED, None, {})
    assert [score.split for score in decision.version.scores] == ["test", "shifted"]
    assert "no other version has the alias" in told(decision, "score")


def test_the_champion_again_under_another_number_passes_since_it_is_not_worse(site: Site) -> None:
    site.register(GOOD, alias="champion")
    decision = site.judge(site.register(GOOD, tagged(GOOD)), shifts=("shifted",), margin=-10)
    assert decision.verdict is GateVerdict.PASSED
    assert (outcomes(decision)["score"], outcomes(decision)["bytes"]) == (PASSED, PASSED)
    assert outcomes(decision)["shift shifted"] == PASSED
    assert "compared with models:/tiny/1, and the interval lies above -10 points" in told(decision, "score")


def test_a_version_that_is_not_shown_to_be_as_good_fails_with_its_interval(site: Site) -> None:
    site.register(GOOD, alias="champion")
    decision = site.judge(site.register(WORSE))
    assert [check.name for check in decision.failed] == ["score"]
    assert "and the interval must lie above -0.5 points" in told(decision, "score")
    assert decision.comparisons["test"].high < 0
    with pytest.raises(GateFailed, match=r"models:/tiny/2 may not be champion") as error:
        decision.require_passed()
    assert error.value.faults == (f"score: {told(decision, 'score')}",)
    assert "--override" in error.value.mend
    spaced = replace(decision, version=replace(decision.version, uri="models:/my birds/1"))
    with pytest.raises(GateFailed) as error:
        spaced.require_passed()
    assert "stockpot promote 'models:/my birds/1' --to" in error.value.mend


def test_a_shifted_split_on_which_it_is_shown_to_be_worse_fails_it(site: Site) -> None:
    site.register(GOOD, alias="champion")
    decision = site.judge(site.register(WORSE), shifts=("shifted",), margin=-100)
    assert outcomes(decision)["score"] == PASSED
    assert outcomes(decision)["shift shifted"] == PASSED, "the margin is what may be lost, on every split"
    decision = site.judge(site.register(WORSE), shifts=("shifted",), margin=-1)
    assert {check.name for check in decision.failed} == {"score", "shift shifted"}
    assert "it is shown to be worse: -" in told(decision, "shift shifted")


def test_of_many_shifted_splits_one_may_seem_worse_by_chance() -> None:
    """Six losses among a thousand are shown at 95 %, and not where five splits are looked at."""
    n, right = 1000, Score((1.0,) * 1000)
    loss = Score((0.0,) * 6 + (1.0,) * (n - 6))
    assert compare("fog", right, loss).high < 0

    def match(shifts: Sequence[str]) -> dict[str, str]:
        request = SoupRequest(model="m", task="t", sweep="s", shifts=tuple(shifts), margin=0)
        mine = {**dict.fromkeys(("test", *shifts), right), "fog": loss}
        found = Match(
            request, None, lambda _: None, mine, dict.fromkeys(("test", *shifts), right), "models:/m/1"
        )
        return {check.name: check.outcome.value for check in found.checks()}

    assert match(["fog"])["shift fog"] == FAILED
    assert match(["fog", "a", "b", "c", "d"])["shift fog"] == PASSED


def test_what_is_not_shown_is_not_enough_however_equal_it_looks() -> None:
    """Ten gains and ten losses among forty: nothing between them, and much that is left open."""
    before, after = Score((1.0,) * 10 + (0.0,) * 30), Score((0.0,) * 10 + (1.0,) * 10 + (0.0,) * 20)

    def primary(margin: float, champion: str | None = "models:/m/1") -> str:
        request = SoupRequest(model="m", task="t", sweep="s", margin=margin)
        found = Match(request, None, lambda _: None, {"test": after}, {"test": before}, champion)
        (check,) = found.checks()
        return check.outcome.value

    assert (primary(-0.5), primary(-30)) == (FAILED, PASSED)
    assert primary(-0.5, champion=None) == NOT_APPLICABLE


LABELS = ("man",) * 500 + ("python",) * 500


def by_domain(mine: Sequence[float], labels: Sequence[str] | None = LABELS, margin: float = 0) -> Match:
    request = SoupRequest(model="m", task="t", sweep="s", margin=margin)
    right, score = Score((1.0,) * 1000), Score(tuple(mine))
    return Match(
        request, None, lambda _: None, {"test": score}, {"test": right}, "models:/m/1", lambda _: labels
    )


def test_a_domain_on_which_it_is_shown_to_be_worse_fails_it() -> None:
    match = by_domain((0.0,) * 60 + (1.0,) * 940)
    found = {check.name: check for check in match.checks()}
    assert found["domains"].outcome is CheckOutcome.FAILED
    assert "on split test of man, compared with models:/m/1" in found["domains"].told
    assert "python" not in found["domains"].told
    assert match.comparisons["test of man"].high < 0
    spared = {check.name: check for check in by_domain((0.0,) * 60 + (1.0,) * 940, margin=-20).checks()}
    assert spared["domains"].outcome is CheckOutcome.PASSED, "the margin is what may be lost, in each"
    assert spared["domains"].told == (
        "on none of 2 domains of split test is it shown to be worse than models:/m/1 by more than 20.00 "
        "points"
    )


def test_examples_of_one_origin_count_once_in_a_domain_too() -> None:
    """Sixty losses, all of one origin: that is one loss."""
    match = by_domain((0.0,) * 60 + (1.0,) * 940)
    match.groups = lambda _: [max(59, place) for place in range(1000)]
    found = {check.name: check for check in match.checks()}
    assert found["domains"].outcome is CheckOutcome.PASSED


def test_a_domain_of_too_few_examples_is_not_counted_among_those_that_were_looked_at() -> None:
    """Twenty examples, all lost: that is no verdict, and no promise that nothing was lost there."""
    few = ("man",) * 20 + ("python",) * 980
    (_, check) = by_domain((0.0,) * 20 + (1.0,) * 980, few).checks()
    assert check.outcome is CheckOutcome.PASSED
    assert check.told == (
        "on none of 1 domain of split test is it shown to be worse than models:/m/1; "
        "too few origins for a verdict on man"
    )
    (_, check) = by_domain((0.0,) * 1000, [str(place % 50) for place in range(1000)]).checks()
    assert check.outcome is CheckOutcome.NOT_APPLICABLE
    assert check.told.startswith("too few origins for a verdict on 0, 1, 10")


@pytest.mark.parametrize(
    ("mine", "its", "outcome", "told"),
    [
        (math.nan, 0.9, FAILED, "its score on split test of man is nan, that of models:/m/1 is 90.00"),
        (-math.inf, 0.9, FAILED, "its score on split test of man is -inf, that of models:/m/1 is 90.00"),
        (0.9, math.nan, PASSED, "; no verdict by the metric on man"),
        (math.nan, math.nan, PASSED, "; no verdict by the metric on man"),
    ],
)
def test_a_metric_that_has_no_value_on_a_domain_is_no_want_of_origins(
    mine: float, its: float, outcome: str, told: str
) -> None:
    """The metric of the split has one on both sides."""

    def measured(value: float) -> Score:
        values = {"man": value, "python": 0.9}
        parts = {name: Score((1.0,) * 500, Metric(one, (one,) * 30)) for name, one in values.items()}
        return Score((1.0,) * 1000, Metric(0.9, (0.9,) * 30), parts=parts)

    match = replace(by_domain(()), mine={"test": measured(mine)}, its={"test": measured(its)})
    check = next(check for check in match.checks() if check.name == "domains")
    assert check.outcome.value == outcome
    assert check.told.endswith(told)


def test_of_many_domains_one_may_seem_worse_by_chance() -> None:
    """Six losses among five hundred are shown at 95 %, and not where ten domains are looked at."""
    loss = Score((0.0,) * 6 + (1.0,) * 494)
    assert compare("man", Score((1.0,) * 500), loss).high < 0
    labels = ("man",) * 500 + tuple(f"other {place % 9}" for place in range(500))
    (_, check) = by_domain((0.0,) * 6 + (1.0,) * 994, labels).checks()
    assert check.outcome is CheckOutcome.PASSED


@pytest.mark.parametrize(
    ("mine", "labels", "told"),
    [
        (Score((1.0,) * 1000), None, "the task tells no domains of split test"),
        (Score((math.nan,) * 1000), LABELS, "its score on split test is nan"),
        (
            Score((1.0,) * 1000, Metric(1.0, (1.0,) * 50)),
            LABELS,
            "a metric of split test, and of no domain of it",
        ),
    ],
)
def test_domains_that_cannot_be_compared_fail_it(
    mine: Score, labels: Sequence[str] | None, told: str
) -> None:
    its = Score((1.0,) * 1000, mine.metric)
    match = replace(by_domain((), labels), mine={"test": mine}, its={"test": its})
    check = next(check for check in match.checks() if check.name == "domains")
    assert check.outcome is CheckOutcome.FAILED
    assert told in check.told


def test_a_policy_asks_for_domains_or_leaves_them(site: Site) -> None:
    site.task = DomainTask("80")
    site.register(GOOD, alias="champion")
    version = site.register(GOOD, tagged(GOOD))
    assert "domains" not in outcomes(site.judge(version, margin=-10))
    decision = site.judge(version, margin=-10, domains=True)
    assert outcomes(decision)["domains"] == PASSED
    assert "on split test, each example alike whatever its domain, compared with" in told(decision, "score")
    assert POLICY.digest == replace(POLICY, domains=False).digest != replace(POLICY, domains=True).digest


def f1(task: MeasuredDomainTask, tensors: Mapping[str, torch.Tensor], domain: str) -> float:
    """Of the domain's examples on the test split, in one batch."""
    labels = zip(task.examples("test"), task.domains("test"), strict=True)
    batch = task.collate([example for example, label in labels if label == domain])
    model = task.model()
    model.load_state_dict(tensors)
    with torch.no_grad():
        return float(task.metric(task.predict(model, batch), batch))


def test_a_domain_of_a_metric_is_measured_as_a_whole_by_its_own_examples(site: Site) -> None:
    site.task = task = MeasuredDomainTask("150")
    site.register(GOOD, alias="champion")
    version = site.register(WORSE)
    decision = site.judge(version, margin=-100, domains=True)
    assert outcomes(decision)["domains"] == PASSED, "the margin is what may be lost, in each"
    assert "on split test, all of it whatever its domain, compared with" in told(decision, "score")
    assert decision.champion is not None
    mine, its = ({s.split: s.value for s in of.scores} for of in (decision.version, decision.champion))
    for domain in set(task.domains("test")):
        where = f"test of {domain}"
        assert (mine[where], its[where]) == pytest.approx((f1(task, WORSE, domain), f1(task, GOOD, domain)))
        assert decision.comparisons[where].difference == pytest.approx(mine[where] - its[where])
        assert decision.comparisons[where].method == "jackknife"
    assert "test of" not in " ".join(s.split for s in site.judge(version, margin=-100).version.scores)
    failed = site.judge(version, margin=-1, domains=True)
    assert {check.name for check in failed.failed} == {"score", "domains"}
    assert site.passes() == 0, "all of it is remembered"


def test_a_margin_that_asks_for_a_gain_asks_for_none_on_shifted_splits() -> None:
    same = Score((1.0,) * 1000)
    request = SoupRequest(model="m", task="t", sweep="s", shifts=("fog",), margin=1)
    scores = {"test": same, "fog": same}
    found = Match(request, None, lambda _: None, scores, scores, "models:/m/1")
    assert [check.outcome.value for check in found.checks()] == [FAILED, PASSED]


def test_tags_that_were_copied_onto_other_content_are_not_believed(site: Site) -> None:
    """Nor are the scores of the soup whose tags they are, however good."""
    soup = Recipe.mean([digest_of_bytes(b"one"), digest_of_bytes(b"other")])
    known = site.store.begin_registration("tiny", soup)
    site.store.take_lease(known.lease, owner="me", seconds=60)
    good = Digest(tagged(GOOD)[tags.CHECKPOINT])
    site.store.advance_registration(
        replace(known, state=RegistrationState.REGISTERED, checkpoint=good), owner="me"
    )
    site.register(GOOD, alias="champion")
    protocol = site.bench(SoupRequest(model="m", task="tiny", sweep="s")).evaluator("test").protocol
    site.store.commit_score(soup, protocol, Score((1.0,) * 80))
    theirs = {tags.RECIPE: soup.digest, tags.CHECKPOINT: good}
    ours, forged = site.register(GOOD, theirs), site.register(WORSE, theirs)
    decision = site.judge(ours)
    assert decision.version.scores[0].recipe == soup.digest
    assert decision.version.scores[0].value == 1
    decision = site.judge(forged)
    assert outcomes(decision)["bytes"] == FAILED
    assert "tags were copied onto other content" in told(decision, "bytes")
    assert decision.version.scores[0].recipe != soup.digest
    assert decision.version.scores[0].value < 1


def test_a_model_that_is_served_with_other_weights_than_its_file_fails(site: Site) -> None:
    files = {"model.safetensors": content(GOOD), "model/model.safetensors": content(WORSE)}
    decision = site.judge(site.register(files, tagged(GOOD)))
    assert "other weights: 0.bias differs in the exported model" in told(decision, "bytes")
    same = {"model.safetensors": content(GOOD), "model/model.safetensors": content(GOOD)}
    assert outcomes(site.judge(site.register(same, tagged(GOOD))))["bytes"] == PASSED
    elsewhere = {"model.safetensors": content(GOOD), "artifacts/net.safetensors": content(WORSE)}
    assert "artifacts/net.safetensors" in told(site.judge(site.register(elsewhere, tagged(GOOD))), "bytes")
    twice = {"model.safetensors": content(GOOD), "artifacts/net.safetensors": content(GOOD)}
    assert outcomes(site.judge(site.register(twice, tagged(GOOD))))["bytes"] == PASSED
    pickled = {"model.safetensors": content(GOOD), "data/model.pth": b"cos\nsystem\n."}
    assert "data/model.pth" in told(site.judge(site.register(pickled, tagged(GOOD))), "bytes")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "holds no weights"),
        ({"model.safetensors": b"not weights"}, "model.safetensors"),
        (NAN, "NaN"),
    ],
    ids=["nothing", "damaged", "not finite"],
)
def test_a_version_that_no_longer_loads_fails_with_the_reason(
    site: Site, files: dict[str, Any], why: str
) -> None:
    decision = site.judge(site.register(files))
    assert {check.name for check in decision.failed} == {"bytes", "score"}
    assert why in told(decision, "bytes")
    assert why in told(decision, "score")


def test_a_version_of_another_architecture_fails_with_the_tensors_that_differ(site: Site) -> None:
    decision = site.judge(site.register(weights("conv")))
    assert [check.name for check in decision.failed] == ["score"]
    assert "do not fit the task's model" in told(decision, "score")
    assert "0.weight" in told(decision, "score")


def test_a_champion_that_cannot_be_measured_is_not_passed_by_and_it_is_said_which(site: Site) -> None:
    site.register({"data/model.pth": b"cos\nsystem\n."}, alias="champion")
    decision = site.judge(site.register(GOOD), max_size=1.0, max_latency=1.0)
    assert {check.name for check in decision.failed} == {"score", "size", "latency"}
    assert "the champion, models:/tiny/1, cannot be measured" in told(decision, "score")
    assert decision.champion is not None
    assert decision.champion.checkpoint is None
    assert decision.version.scores


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"split": "attic"}, "there is no split 'attic'"),
        ({"shifts": ("attic",)}, "there is no split 'attic'"),
    ],
)
def test_a_suite_that_lost_its_data_fails_the_version(site: Site, policy: dict[str, Any], why: str) -> None:
    decision = site.judge(site.register(GOOD), **policy)
    assert {check.name for check in decision.failed} == {"suite", "score"}
    assert why in told(decision, "suite")
    assert decision.version.scores == ()


def test_a_suite_of_the_same_data_twice_fails_the_version(site: Site) -> None:
    class Twice(TinyTask):
        def digest(self, split: str) -> str:
            return f"the same {split}"[:8]

    site.task = Twice("dense", "80")
    decision = site.judge(site.register(GOOD), shifts=("shifted",))
    assert told(decision, "suite").endswith("splits test and shifted hold the same data")


def test_a_task_that_is_not_there_fails_the_version(site: Site) -> None:
    def makes(request: SoupRequest) -> TorchBench:
        raise UnknownPlugin(f"no task {request.task!r}")

    site.makes = makes
    assert told(site.judge(site.register(GOOD)), "suite") == "it cannot be used: no task 'tiny'"


def test_what_is_wrong_with_the_machine_ends_the_work_and_judges_nobody(site: Site) -> None:
    def makes(_: SoupRequest) -> TorchBench:
        raise OutOfDeviceMemory("no room")

    site.makes = makes
    with pytest.raises(OutOfDeviceMemory):
        site.judge(site.register(GOOD))


def test_batches_that_do_not_fit_the_device_are_halved(site: Site) -> None:
    class Small(TorchBench):
        def fits(self, tensors: Any) -> tuple[str, ...]:
            if self.batch_size > 2:
                raise OutOfDeviceMemory("no room")
            return super().fits(tensors)

    site.makes = lambda _: Small(
        site.task, identity=("tiny", "1"), task_args={}, checkpoints=site.supply, device="cpu"
    )
    decision = site.judge(site.register(GOOD))
    assert decision.verdict is GateVerdict.PASSED
    assert decision.version.scores


def test_a_signature_that_is_another_fails_and_one_that_is_missing_too(site: Site) -> None:
    site.register({"model.safetensors": content(GOOD), "MLmodel": CARD}, alias="champion")

    def judged(card: bytes | None) -> Decision:
        files = {"model.safetensors": content(GOOD), **({} if card is None else {"MLmodel": card})}
        return site.judge(site.register(files), margin=-10)

    assert outcomes(judged(CARD))["schema"] == PASSED
    assert told(judged(CARD.replace(b'"y"', b'"z"')), "schema") == (
        'others than the champion\'s: outputs [{"name":"z"}], of models:/tiny/1 [{"name":"y"}]'
    )
    assert "without a signature; models:/tiny/1 has one" in told(judged(None), "schema")
    assert "cannot be read" in told(judged(b"signature: {inputs: '['}"), "schema")
    assert {outcomes(judged(card))["schema"] for card in (b"signature: {inputs: '['}", None)} == {FAILED}


def test_a_champion_without_a_signature_asks_for_none(site: Site) -> None:
    site.register(GOOD, alias="champion")
    decision = site.judge(site.register({"model.safetensors": content(GOOD), "MLmodel": CARD}), margin=-10)
    assert outcomes(decision)["schema"] == NOT_APPLICABLE


def test_weights_of_twice_the_size_fail_where_the_policy_says_so(site: Site) -> None:
    half = {name: tensor.to(torch.bfloat16) for name, tensor in GOOD.items()}
    site.register(half, alias="champion")
    version = site.register(GOOD)
    assert outcomes(site.judge(version, margin=-10))["size"] == NOT_APPLICABLE
    limited = site.judge(version, margin=-10, max_size=1.2)
    assert [check.name for check in limited.failed] == ["size"]
    assert "x that of models:/tiny/1; at most 1.2" in told(limited, "size")
    assert outcomes(site.judge(version, margin=-10, max_size=2.0))["size"] == PASSED


def test_the_time_of_a_batch_is_a_ratio_to_the_champions(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(GOOD)
    slow = site.judge(version, margin=-10, max_latency=1e-6)
    assert [check.name for check in slow.failed] == ["latency"]
    assert " x that of models:/tiny/1, by the medians of 9 batches each in turn" in told(slow, "latency")
    assert outcomes(site.judge(version, margin=-10, max_latency=1e6))["latency"] == PASSED


def test_times_are_taken_in_turn_and_their_medians_compared() -> None:
    mine, its = Recipe.mean([digest_of_bytes(b"mine")]), Recipe.mean([digest_of_bytes(b"its")])
    asked: list[tuple[Recipe, str]] = []

    class Clock:
        """Twice as long under one recipe; the first of each, and one in the middle, are far off."""

        def seconds(self, recipe: Recipe, split: str) -> float:
            asked.append((recipe, split))
            return 50.0 if len(asked) in {1, 2, 9} else 2.0 if recipe == mine else 1.0

    assert pace(Clock(), mine, its, "test", rounds=7) == (2.0, 7)  # type: ignore[arg-type]  # a stand-in
    assert asked == [(mine, "test"), (its, "test")] * 8
    asked.clear()
    assert pace(Clock(), mine, its, "test", rounds=1) == (2.0, 1), "what warms up does not count"  # type: ignore[arg-type]  # a stand-in


def test_what_is_remembered_is_not_measured_again(site: Site) -> None:
    site.register(GOOD, alias="champion")
    version = site.register(weights(seed=3))
    first = site.judge(version, shifts=("shifted",))
    assert site.passes() == 4
    assert site.judge(version, shifts=("shifted",)) == first
    assert site.passes() == 0
    site.judge(site.register(weights(seed=3)), shifts=("shifted",))
    assert site.passes() == 0, "the same weights under another number"


def test_a_decision_is_a_document_whose_numbers_are_found_again_in_the_store(site: Site) -> None:
    site.register(GOOD, alias="champion")
    decision = site.judge(site.register(weights(seed=3)), shifts=("shifted",))
    document = json.loads(json.dumps(to_document(decision)))
    assert digest_of_document(document).startswith("sha256:")
    again = from_document(Decision, document)
    assert again == decision
    assert again.champion is not None
    for mine, its in zip(again.version.scores, again.champion.scores, strict=True):
        after, before = (site.store.score(one.recipe, one.protocol) for one in (mine, its))
        assert after is not None
        assert before is not None
        assert (after.value, before.value) == (mine.value, its.value)
        found = again.comparisons[mine.split]
        assert compare(mine.split, before, after, level=found.level) == found


def test_a_person_lets_a_version_pass_and_what_failed_is_kept(site: Site) -> None:
    site.register(GOOD, alias="champion")
    champion, version = site.tracker.version("models:/tiny@champion"), site.register(WORSE)
    decision = site.gate.judge(version, champion, site.promoter().policy, "the old one is a security risk")
    assert (decision.verdict, decision.override) == (
        GateVerdict.OVERRIDDEN,
        "the old one is a security risk",
    )
    assert [check.name for check in decision.failed] == ["score"]
    decision.require_passed()
    passing = site.gate.judge(champion, None, site.promoter().policy, "in any case")
    assert (passing.verdict, passing.override) == (GateVerdict.PASSED, "")


def test_a_version_that_scores_nothing_fails_also_where_nobody_is_champion(site: Site) -> None:
    class Broken(TinyTask):
        def score(self, outputs: torch.Tensor, batch: Any) -> torch.Tensor:
            return super().score(outputs, batch) * torch.nan

    site.task = Broken("dense", "80")
    assert told(site.judge(site.register(GOOD)), "score") == "its score on split test is nan"

    class Raises(TinyTask):
        def predict(self, *_: Any) -> torch.Tensor:
            raise BadTask("no")

    site.task = Raises("dense", "80")
    assert "it cannot be measured: " in told(site.judge(site.register(WORSE)), "score")


def test_what_was_recalled_may_not_be_champion_until_that_is_withdrawn(site: Site) -> None:
    version = site.register(GOOD)
    digest = digest_of_bytes(content(GOOD))
    site.store.append_recall(Recall(RecallKind.CHECKPOINT, digest, "mislabelled", "ada"))
    failed = site.judge(version)
    assert [check.name for check in failed.failed] == ["recall"]
    assert told(failed, "recall") == f"checkpoint {digest} was recalled by ada: mislabelled"
    site.store.append_recall(Recall(RecallKind.CHECKPOINT, digest, "a slip", "ada", withdrawn=True))
    assert outcomes(site.judge(version))["recall"] == PASSED
    site.store.append_recall(Recall(RecallKind.RUN, version.run_id or "", "by mistake", "ada"))
    assert outcomes(site.judge(version))["recall"] == FAILED


def test_the_tag_of_a_recall_counts_where_the_store_knows_of_none(site: Site) -> None:
    assert outcomes(site.judge(site.register(GOOD, {tags.RECALLED: "mislabelled"})))["recall"] == FAILED
    withdrawn = site.register(GOOD, {tags.RECALLED: "withdrawn: a slip"})
    assert outcomes(site.judge(withdrawn))["recall"] == PASSED


def test_a_damaged_record_of_a_soup_fails_since_nobody_knows_what_chose_it(site: Site) -> None:
    """Damage beside the champion is no fault of who comes after it."""
    torn = {"model.safetensors": content(GOOD), "stockpot.json": b"{"}
    soup = site.register(torn, {**tagged(GOOD), tags.ROLE: "soup"}, alias="champion")
    assert "stockpot.json of models:/tiny/1 is damaged" in told(site.judge(soup), "suite")
    assert outcomes(site.judge(site.register(GOOD, tagged(GOOD))))["suite"] == PASSED


def test_a_soup_whose_record_was_taken_away_fails_as_one_with_a_damaged_one(site: Site) -> None:
    soup = site.register(GOOD, {**tagged(GOOD), tags.ROLE: "soup"}, alias="champion")
    decision = site.judge(soup)
    assert outcomes(decision)["suite"] == FAILED
    assert "stockpot.json" in told(decision, "suite")
    stranger = site.judge(site.register(GOOD, tagged(GOOD)))
    assert outcomes(stranger)["suite"] == PASSED
    assert "which data chose it is not known" in told(stranger, "suite")


def card(**flavors: Mapping[str, Any]) -> bytes:
    """An MLmodel."""
    return json.dumps({"flavors": flavors}).encode()


@pytest.mark.parametrize("whose", ["ours", "others"])
def test_what_a_flavor_would_load_in_place_of_the_weights_fails_the_version(site: Site, whose: str) -> None:
    tagging = whose == "ours"

    def judged(files: Mapping[str, bytes]) -> str:
        name = "model.safetensors" if tagging else "model/model.safetensors"
        held = {name: content(GOOD), **files}
        decision = site.judge(site.register(held, tagged(GOOD) if tagging else None))
        return "" if outcomes(decision)["bytes"] != FAILED else told(decision, "bytes")

    runs = {"python_model.pkl": b"x", "MLmodel": card(python_function={"python_model": "python_model.pkl"})}
    assert judged(runs) == "what is served of it are other weights: python_model.pkl"
    assert judged({"python_model.pkl": b"x", "MLmodel": card(python_function={"data": "model"})}) == ""
    adapter = {"model/adapter_model.safetensors": b"x", "model/adapter_config.json": b"{}"}
    loads = {"MLmodel": card(transformers={"model_binary": "model"})}
    if tagging:
        assert "model/adapter_model.safetensors, an adapter that is laid" in judged({**adapter, **loads})
        assert judged({"adapter/adapter_model.safetensors": b"x", **loads}) == ""
    pickled = {"data/model.pth": b"x", "MLmodel": card(pytorch={"model_data": "data"})}
    assert judged(pickled) == "what is served of it are other weights: data/model.pth"
    other = {"data/model.pt": b"no weights", "MLmodel": card(pytorch={"model_data": "data"})}
    assert judged(other) == "what is served of it are other weights: data/model.pt"
    if not tagging:  # beside ours nothing else is expected
        assert judged({"last/model.pth": b"x", "MLmodel": card(transformers={"model_binary": "model"})}) == ""
    assert "card MLmodel cannot be read" in judged({"MLmodel": b"flavors: ["})


def test_a_shifted_split_on_which_nothing_can_be_scored_fails() -> None:
    """An interval of no numbers lies below nothing: it would be taken for not worse."""
    request = SoupRequest(model="m", task="t", sweep="s", shifts=("fog",), margin=-10)
    right, broken = Score((1.0,) * 100), Score((math.nan,) * 100)
    its = {"test": right, "fog": right}
    found = Match(request, None, lambda _: None, {"test": right, "fog": broken}, its, "models:/m/1")
    primary, shifted = found.checks()
    assert (primary.outcome.value, shifted.outcome.value) == (PASSED, FAILED)
    assert shifted.told == "its score on split fog is nan"


def test_weights_that_do_not_fit_the_device_are_not_tried_in_smaller_batches(site: Site) -> None:
    tried: list[int] = []

    class Full(TorchBench):
        def fits(self, tensors: Any) -> tuple[str, ...]:  # noqa: ARG002 - none do
            tried.append(self.batch_size)
            raise NoRoomForWeights("80 GB do not fit")

    site.makes = lambda _: Full(
        site.task, identity=("tiny", "1"), task_args={}, checkpoints=site.supply, device="cpu"
    )
    with pytest.raises(NoRoomForWeights):
        site.judge(site.register(GOOD))
    assert tried == [8]
