"""Which runs become candidates; every other one is excluded with a reason and, where there is one, a mend."""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Digest,
    Direction,
    Exclusion,
    ExclusionReason,
    Run,
    SoupRequest,
    Sweep,
    SweepSelector,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
)
from stockpot.entities.weights_names import weights_format
from stockpot.errors import BadRequest, NothingToSoup
from stockpot.evaluation.weights.module_weights import fits
from stockpot.soup import CONVERSION
from stockpot.workflow.gathering.enough import require_two
from stockpot.workflow.gathering.exclusion_rules import Gathering
from stockpot.workflow.gathering.shortlist import Shortlist

REQUEST = SoupRequest(model="m", task="t", sweep="s")
LAYOUT = (TensorSpec("w", "F32", (2, 2)),)
NO_INTEGERS = Digest("sha256:0")


def _run(
    number: int, tags: Mapping[str, str] | None = None, metrics: Mapping[str, float] | None = None
) -> Run:
    return Run(f"id{number}", f"tune-{number}", "1", "FINISHED", number, {}, metrics or {}, tags or {})


def _file(path: str, form: WeightsFormat = WeightsFormat.SAFETENSORS) -> WeightsSource:
    return WeightsSource("id", form, path, f"uri:{path}", None, 10)


def _candidate(
    number: int, layout: tuple[TensorSpec, ...] = LAYOUT, *, digest: str = "", exact: Digest = NO_INTEGERS
) -> Candidate:
    checkpoint = Checkpoint(Digest(digest or f"sha256:{number:064x}"), 10, layout, exact)
    return Candidate(_run(number, metrics={"acc": number / 10}), _file("m.safetensors"), "", checkpoint)


def _reasons(gathering: Gathering) -> dict[str, ExclusionReason]:
    return {exclusion.run_id: exclusion.reason for exclusion in gathering.exclusions}


def _short(request: SoupRequest, *runs: Run) -> tuple[list[Run], dict[str, Exclusion]]:
    shortlist = Shortlist(request)
    for run in runs:
        shortlist.add(run)
    chosen = shortlist.chosen()
    assert list(shortlist.order) == [run.run_id for run in runs]
    return chosen, {exclusion.run_id: exclusion for exclusion in shortlist.exclusions}


def test_only_finished_runs_stay() -> None:
    runs = [_run(1), replace(_run(2), status="FAILED"), replace(_run(3), status="RUNNING")]
    chosen, excluded = _short(REQUEST, *runs)
    assert chosen == [runs[0]]
    assert {exclusion.reason for exclusion in excluded.values()} == {ExclusionReason.NOT_FINISHED}
    assert "FAILED" in excluded["id2"].detail


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED"])
def test_a_sweep_that_still_runs_is_refused_with_the_count_unless_a_part_is_asked_for(status: str) -> None:
    runs = [_run(1), _run(2), replace(_run(3), status="FAILED"), replace(_run(4), status=status)]
    shortlist = Shortlist(REQUEST)
    for run in runs:
        shortlist.add(run)
    with pytest.raises(BadRequest, match="not finished: 1 of the sweep's 4 runs") as caught:
        shortlist.require_finished()
    assert caught.value.faults == (f"tune-4 (id4): {status}",)
    assert "--partial" in caught.value.mend
    parted = Shortlist(replace(REQUEST, partial=True))
    for run in runs:
        parted.add(run)
    parted.require_finished()
    assert parted.chosen() == runs[:2]


def test_a_sweep_whose_runs_all_ended_in_whatever_way_is_not_said_to_run() -> None:
    shortlist = Shortlist(REQUEST)
    for status in ("FINISHED", "FAILED", "KILLED"):
        shortlist.add(replace(_run(len(shortlist.order)), status=status))
    shortlist.require_finished()


@pytest.mark.parametrize(
    ("by", "doubted"),
    [
        ("val_acc", False),
        ("eval/accuracy", False),
        ("lossless_ratio", False),
        ("loss", True),
        ("eval/Loss", True),
        ("valLoss", True),
        ("logloss", True),
        ("test_error", True),
        ("perplexity", True),
        ("RMSE", True),
    ],
)
def test_what_is_taken_for_better_is_said_and_doubted_for_names_like_loss(by: str, *, doubted: bool) -> None:
    request = replace(REQUEST, top=2, by=by)
    (note,) = Shortlist(request).notes()
    assert f"the largest {by} is taken for the best" in note
    assert "--direction min" in note
    assert ("sounds as if" in note) == doubted
    assert Shortlist(replace(request, direction=Direction.MAX)).notes() == ()
    assert Shortlist(REQUEST).notes() == ()


@pytest.mark.parametrize(("direction", "kept"), [(Direction.MAX, [2, 3]), (Direction.MIN, [1, 3])])
def test_top_keeps_the_best_by_a_logged_metric_in_the_sweeps_order(
    direction: Direction, kept: list[int]
) -> None:
    nan = float("nan")
    values = {1: 0.1, 2: 0.9, 3: 0.5, 4: nan}
    runs = [*(_run(number, metrics={"acc": value}) for number, value in values.items()), _run(5)]
    chosen, excluded = _short(replace(REQUEST, top=2, by="acc", direction=direction), *runs)
    assert [run.started for run in chosen] == kept
    assert {exclusion.reason for exclusion in excluded.values()} == {ExclusionReason.NOT_IN_TOP}
    assert "not logged" in excluded["id5"].detail


@pytest.mark.parametrize(
    ("wanted", "measured", "mend"),
    [
        ("val_acc", "none", "--by val/acc, or leave"),
        ("val los", "none", "--by 'val loss', or leave"),
        ("f1", "none", "--by with a metric that they logged, or leave"),
        ("once", "1", "leave out --top and --by"),
        ("nan", "none", "leave out --top and --by"),
    ],
)
def test_a_metric_that_no_two_runs_logged_is_told_with_those_they_did(
    wanted: str, measured: str, mend: str
) -> None:
    shortlist = Shortlist(replace(REQUEST, top=2, by=wanted))
    logged = {"val/acc": 0.5, "val loss": 1.0, "nan": math.nan}
    for run in (_run(1, metrics={**logged, "once": 1.0}), _run(2, metrics=logged), _run(3)):
        shortlist.add(run)
    with pytest.raises(
        BadRequest, match=f"{measured} of the sweep's 3 finished runs .* {wanted!r}"
    ) as caught:
        shortlist.require_metric()
    assert {"val/acc was logged by 2", "val loss was logged by 2"} <= set(caught.value.faults)
    assert mend in caught.value.mend


@pytest.mark.parametrize(("by", "runs"), [("acc", 1), ("acc", 0), (None, 3)])
def test_where_the_metric_is_not_what_is_wrong_nothing_is_said_of_it(by: str | None, runs: int) -> None:
    shortlist = Shortlist(replace(REQUEST, top=2 if by else None, by=by))
    for number in range(runs):
        shortlist.add(_run(number))
    shortlist.require_metric()


def test_the_metrics_named_are_the_nearest_of_very_many() -> None:
    shortlist = Shortlist(replace(REQUEST, top=2, by="valid_acc"))
    for number in range(2):
        shortlist.add(_run(number, metrics={f"grad/layer{i}": 1.0 for i in range(500)} | {"val_acc": 1.0}))
    with pytest.raises(BadRequest) as caught:
        shortlist.require_metric()
    assert caught.value.faults[0] == "val_acc was logged by 2"
    assert caught.value.faults[-1] == "and 496 more metrics"


def test_a_run_from_another_starting_point_is_refused_unless_told_otherwise() -> None:
    tag = "stockpot.base"
    runs = [_run(1, {tag: "A"}), _run(2, {tag: "B"}), _run(3, {tag: "A"}), _run(4)]
    chosen, excluded = _short(REQUEST, *runs)
    assert chosen == [runs[0], runs[2], runs[3]]
    assert {run_id: exclusion.reason for run_id, exclusion in excluded.items()} == {
        "id2": ExclusionReason.DIFFERENT_BASE
    }
    assert "--any-base" in excluded["id2"].mend
    assert _short(replace(REQUEST, any_base=True), *runs)[0] == runs


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["FINISHED", "FINISHED", "FINISHED", "KILLED"]),
            st.sampled_from([None, "", "A", "B"]),
            st.sampled_from([None, math.nan, 0.1, 0.2, 0.3]),
        ),
        max_size=20,
    ),
    st.sampled_from([None, 2, 3]),
    st.booleans(),
)
def test_choosing_while_listing_is_choosing_among_all(
    logged: list[tuple[str, str | None, float | None]],
    top: int | None,
    any_base: bool,  # noqa: FBT001 - drawn
) -> None:
    """Against the plain rules over the whole list: finished, the usual starting point, then the best.

    Ties go to those that started first, which come last in the list.
    """
    runs = [
        replace(
            _run(
                99 - number,
                {} if base is None else {"stockpot.base": base},
                {} if value is None else {"acc": value},
            ),
            status=status,
        )
        for number, (status, base, value) in enumerate(logged)
    ]
    request = replace(REQUEST, top=top, by="acc" if top else None, any_base=any_base)
    wanted: dict[str, ExclusionReason] = {}
    left = [run for run in runs if run.status == "FINISHED"]
    wanted.update({run.run_id: ExclusionReason.NOT_FINISHED for run in runs if run not in left})
    bases = Counter(base for run in left if (base := run.tags.get("stockpot.base")))
    if len(bases) > 1 and not any_base:
        usual = bases.most_common(1)[0][0]
        odd = [run for run in left if run.tags.get("stockpot.base", usual) != usual]
        wanted.update({run.run_id: ExclusionReason.DIFFERENT_BASE for run in odd})
        left = [run for run in left if run not in odd]
    if top:
        measured = [run for run in left if not math.isnan(run.metrics.get("acc", math.nan))]
        best = sorted(measured, key=lambda run: (-run.metrics["acc"], run.started))[:top]
        wanted.update({run.run_id: ExclusionReason.NOT_IN_TOP for run in left if run not in best})
        left = [run for run in left if run in best]
    chosen, excluded = _short(request, *runs)
    assert chosen == sorted(left, key=lambda run: run.started)
    assert {run_id: exclusion.reason for run_id, exclusion in excluded.items()} == wanted


def test_with_top_a_long_sweep_is_not_kept_in_memory() -> None:
    shortlist = Shortlist(replace(REQUEST, top=3, by="acc"))
    logged = []
    for number in range(100):
        metrics = Metrics(acc=(number * 37 % 100) / 100)
        logged.append(weakref.ref(metrics))
        shortlist.add(_run(number, metrics=metrics))
        del metrics
        assert sum(alive() is not None for alive in logged) <= 3
    assert sorted(run.metrics["acc"] for run in shortlist.chosen()) == [0.97, 0.98, 0.99]


class Metrics(dict[str, float]):
    """A dict that can be watched while it lives."""


PICKLE = _file("m/data/model.pth", WeightsFormat.PICKLE)
TORCH, OTHER_TORCH = _file("best.ckpt", WeightsFormat.TORCH), _file("last.ckpt", WeightsFormat.TORCH)
EXPORTED = _file("m/data/model.pt2", WeightsFormat.PT2)
PART = _file("step-3/__0_0.distcp", WeightsFormat.PICKLE)
BEST, LAST = _file("best.safetensors"), _file("last.safetensors")
BRACKETS, ONE = _file("w[1].safetensors"), _file("w1.safetensors")


def _the_last(sources: Sequence[WeightsSource]) -> WeightsSource:
    return sources[-1]


@pytest.mark.parametrize(
    ("found", "tag", "pattern", "chosen"),
    [
        ([BEST], "", None, BEST),
        ([BEST, PICKLE], "", None, BEST),
        ([BEST, LAST], "", None, LAST),
        ([BEST, LAST], "last.safetensors", None, LAST),
        ([BEST, LAST], "", "best*", BEST),
        ([BEST, LAST], "last.safetensors", "best*", LAST),
        ([BEST, LAST], "", "epoch*", ExclusionReason.NO_WEIGHTS),
        ([PICKLE], "", None, ExclusionReason.PICKLE),
        ([PICKLE], "", "epoch*", ExclusionReason.PICKLE),
        ([PICKLE, TORCH], "", None, TORCH),
        ([BEST, TORCH, OTHER_TORCH], "", None, BEST),
        ([EXPORTED, TORCH], "", None, EXPORTED),
        ([BEST, TORCH], "best.ckpt", None, TORCH),
        ([BEST, TORCH], "", "best*", BEST),
        ([TORCH, OTHER_TORCH], "", None, OTHER_TORCH),
        ([TORCH, OTHER_TORCH], "", "best*", TORCH),
        ([PART], "", None, ExclusionReason.PICKLE),
        ([BRACKETS, ONE], "w[1].safetensors", None, BRACKETS),
        ([BRACKETS, ONE], "", "w[1]*", ONE),
        ([], "", None, ExclusionReason.NO_WEIGHTS),
        ([_file("w.safetensors#ema.safetensors")], "", None, ExclusionReason.UNREADABLE),
        ([_file("w.safetensors?v=2.safetensors")], "", None, ExclusionReason.UNREADABLE),
        ([_file("best%20x.safetensors")], "", None, ExclusionReason.UNREADABLE),
        ([_file("93% right.safetensors")], "", None, _file("93% right.safetensors")),
    ],
)
def test_a_run_has_one_checkpoint_or_is_excluded(
    found: list[WeightsSource], tag: str, pattern: str | None, chosen: WeightsSource | ExclusionReason
) -> None:
    gathering = Gathering()
    run = _run(1, {"stockpot.weights": tag} if tag else {})
    got = gathering.choose_weights(run, found, pattern, _the_last)
    assert (got or _reasons(gathering)["id1"]) == chosen
    for exclusion in gathering.exclusions:
        assert all(source.path in exclusion.detail for source in found)


def test_a_tag_that_names_a_pickle_is_told_so_though_other_weights_are_there() -> None:
    gathering = Gathering()
    run = _run(1, {"stockpot.weights": PICKLE.path})
    assert gathering.choose_weights(run, [BEST, PICKLE], None, _the_last) is None
    (exclusion,) = gathering.exclusions
    assert (exclusion.reason, exclusion.detail) == (
        ExclusionReason.PICKLE,
        f"{PICKLE.path}: pickles are never run",
    )
    assert exclusion.mend == CONVERSION


def test_parts_of_a_distributed_checkpoint_are_told_as_what_they_are() -> None:
    gathering = Gathering()
    assert gathering.choose_weights(_run(1), [PART], None, _the_last) is None
    (exclusion,) = gathering.exclusions
    assert "several processes wrote a part each" in exclusion.detail
    assert "dcp_to_torch" in exclusion.mend


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("checkpoint-5/model.safetensors", WeightsFormat.SAFETENSORS),
        ("epoch=3-step=9.ckpt", WeightsFormat.TORCH),
        ("checkpoint-5/pytorch_model.bin", WeightsFormat.TORCH),
        ("state_dict.pth", WeightsFormat.TORCH),
        ("my_optimizer_study.pt", WeightsFormat.TORCH),
        ("m/data/model.pth", WeightsFormat.PICKLE),
        ("ckpt/mp_rank_00_model_states.pt", WeightsFormat.PICKLE),
        ("ckpt/__0_1.distcp", WeightsFormat.PICKLE),
        ("checkpoint-5/optimizer.pt", None),
        ("checkpoint-5/optimizer_1.bin", None),
        ("checkpoint-5/scheduler.pt", None),
        ("checkpoint-5/scaler.pt", None),
        ("checkpoint-5/rng_state_0.pth", None),
        ("checkpoint-5/training_args.bin", None),
        ("random_states_0.pkl", None),
        ("ckpt/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", None),
        ("m/python_model.pkl", None),
        ("train_00000/params.pkl", None),
        ("m/config.json", None),
    ],
)
def test_names_tell_what_weights_are_and_what_only_lies_beside_them(
    path: str, form: WeightsFormat | None
) -> None:
    assert weights_format(path) is form


def test_what_does_not_fit_the_model_is_refused_and_batch_norm_does() -> None:
    layout = tuple(TensorSpec(f"net.bn.{name}", "F32", (2,)) for name in ("running_mean", "running_var"))
    gathering = Gathering()
    assert not gathering.can_be_averaged(_run(1), layout, lambda _: ["missing net.bn.weight"])
    assert gathering.can_be_averaged(_run(2), layout, lambda _: [])
    assert _reasons(gathering) == {"id1": ExclusionReason.INCOMPATIBLE}
    assert "missing net.bn.weight" in gathering.exclusions[0].detail


@pytest.mark.parametrize("name", ["weight", "layer.weight", "layer.qweight", "layer.weight_packed"])
def test_quantised_weights_are_excluded_as_such_whatever_the_task(name: str) -> None:
    gathering = Gathering()
    scales = TensorSpec("layer.scales", "F16", (4,))
    assert not gathering.can_be_averaged(_run(1), [TensorSpec(name, "U8", (4, 2)), scales], lambda _: [])
    assert name in gathering.exclusions[0].detail
    assert "dequantize()" in gathering.exclusions[0].mend
    assert gathering.can_be_averaged(_run(2), [TensorSpec("position_ids", "I64", (4,)), scales], lambda _: [])


def test_the_largest_compatible_group_is_used_and_every_difference_told() -> None:
    wide = (TensorSpec("w", "F32", (9, 9)), TensorSpec("extra", "F32", (1,)))
    candidates = [_candidate(1), _candidate(2), _candidate(3, wide), _candidate(4, exact=Digest("sha256:1"))]
    gathering = Gathering()
    assert gathering.largest_group(candidates, REQUEST) == candidates[:2]
    details = {exclusion.run_id: exclusion.detail for exclusion in gathering.exclusions}
    assert "extra" in details["id3"]
    assert "9" in details["id3"]
    assert "integer or boolean tensors" in details["id4"]


@pytest.mark.parametrize(
    ("made", "mend"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU()), "these are the weights of 0 alone"),
        (lambda: nn.Linear(3, 3).bfloat16(), "--dtype bfloat16 casts"),
        (lambda: nn.Linear(3, 2), "make Task.model() build"),
        (lambda: nn.Linear(3, 2).half(), "make Task.model() build"),
    ],
)
def test_weights_that_do_not_fit_the_tasks_model_get_the_mend_of_their_kind(
    made: Callable[[], nn.Module], mend: str
) -> None:
    gathering = Gathering()
    bare = [TensorSpec("bias", "F32", (3,)), TensorSpec("weight", "F32", (3, 3))]
    assert not gathering.can_be_averaged(_run(1), bare, partial(fits, made()))
    assert mend in gathering.exclusions[0].mend


def test_twins_do_not_outvote_those_that_can_be_averaged() -> None:
    half = (TensorSpec("w", "F16", (2, 2)),)
    twins = [_candidate(number, digest="sha256:x") for number in (1, 2, 3)]
    candidates = [*twins, _candidate(4, half), _candidate(5, half)]
    assert Gathering().largest_group(candidates, REQUEST) == candidates[3:]


def test_with_a_metric_the_group_of_the_best_run_is_used() -> None:
    half = (TensorSpec("w", "F16", (2, 2)),)
    candidates = [_candidate(1), _candidate(2), _candidate(9, half)]
    request = replace(REQUEST, top=3, by="acc")
    assert Gathering().largest_group(candidates, request) == candidates[2:]


def test_identical_weights_count_once_and_the_twin_is_named() -> None:
    candidates = [_candidate(1, digest="sha256:x"), _candidate(2), _candidate(3, digest="sha256:x")]
    gathering = Gathering()
    assert gathering.unique(candidates) == candidates[:2]
    assert _reasons(gathering) == {"id3": ExclusionReason.DUPLICATE}
    assert "tune-1" in gathering.exclusions[0].detail


def _excluded(count: int, reason: ExclusionReason, mend: str = "") -> list[Exclusion]:
    return [Exclusion(f"{reason.name}{i}", f"run {i}", reason, "so it is", mend) for i in range(count)]


def _told(*exclusions: Exclusion, selector: SweepSelector = REQUEST.selector) -> NothingToSoup:
    with pytest.raises(NothingToSoup) as caught:
        require_two(Sweep(selector, (), exclusions))
    return caught.value


def test_where_all_runs_have_one_fault_the_advice_is_that_faults_mend() -> None:
    told = _told(*_excluded(40, ExclusionReason.AMBIGUOUS_WEIGHTS, "--weights PATTERN"))
    assert told.mend == "--weights PATTERN"
    (fault,) = told.faults
    assert fault.startswith("40 runs: ambiguous weights: so it is: run 0 (AMBIGUOUS_WEIGHTS0), run 1 (")
    assert fault.endswith(" and 35 more")


def test_where_runs_of_one_fault_differ_in_detail_the_first_few_are_told() -> None:
    alike = _excluded(40, ExclusionReason.AMBIGUOUS_WEIGHTS, "--weights PATTERN")
    (fault,) = _told(*(replace(e, detail=f"{i} files") for i, e in enumerate(alike, start=2))).faults
    assert fault.startswith("40 runs: ambiguous weights: run 0 (AMBIGUOUS_WEIGHTS0): 2 files; run 1 (")
    assert fault.endswith("; and 35 more")


def test_where_runs_have_several_faults_each_is_told_once_with_its_count_and_its_mend() -> None:
    told = _told(
        *_excluded(1, ExclusionReason.PICKLE, "log safetensors"),
        *_excluded(70, ExclusionReason.NOT_IN_TOP),
        *_excluded(2, ExclusionReason.AMBIGUOUS_WEIGHTS, "--weights PATTERN"),
    )
    counts, mends = zip(*(fault.split(". To mend it: ") for fault in told.faults), strict=True)
    assert [count.split(":")[0] for count in counts] == ["70 runs", "2 runs", "1 run"]
    assert "--top" in mends[0]
    assert mends[1:] == ("--weights PATTERN", "log safetensors")


@pytest.mark.parametrize("exclusions", [[], _excluded(2, ExclusionReason.NO_WEIGHTS)], ids=["none", "bad"])
def test_a_filter_that_chose_the_runs_is_named(exclusions: list[Exclusion]) -> None:
    told = _told(*exclusions, selector=SweepSelector("s", None, "params.lr = '1'"))
    assert "--filter \"params.lr = '1'\"" in told.what
    assert exclusions or "--filter" in told.mend


def test_runs_that_failed_are_not_waited_for() -> None:
    (failed,) = _short(REQUEST, replace(_run(1), status="FAILED"))[1].values()
    mend = _told(failed).mend
    assert "set_terminated(RUN_ID)" in mend
    assert "again when they are finished" not in mend


@pytest.mark.parametrize(("condition", "mend"), [("params.lr = '1'", "--filter"), (None, "log more runs")])
def test_what_brings_more_runs_is_to_log_them_or_to_choose_them(condition: str | None, mend: str) -> None:
    with pytest.raises(NothingToSoup, match="one usable run") as caught:
        require_two(Sweep(SweepSelector("s", None, condition), (_candidate(1),), ()))
    assert mend in caught.value.mend


@pytest.mark.parametrize(("count", "said"), [(0, "has no runs"), (1, "one usable run")], ids=["none", "one"])
def test_fewer_than_two_candidates_are_no_sweep_to_soup(count: int, said: str) -> None:
    candidates = tuple(_candidate(number) for number in range(count))
    with pytest.raises(NothingToSoup, match=said):
        require_two(Sweep(SweepSelector("s"), candidates, ()))
