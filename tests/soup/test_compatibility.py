from stockpot.entities import Checkpoint, Digest, TensorSpec
from stockpot.soup import compatible_groups, differences
from stockpot.soup.compatibility import must_agree

A = TensorSpec("a", "F32", (2,))
B = TensorSpec("b", "F32", (3, 4))


def checkpoint(*tensors: TensorSpec, exact: str = "sha256:none") -> Checkpoint:
    return Checkpoint(Digest("sha256:any"), 1, tensors, Digest(exact))


def test_equal_headers_have_no_differences() -> None:
    assert differences([A, B], [B, A]) == ()


def test_every_difference_is_told() -> None:
    other = [TensorSpec("a", "F16", (3,)), TensorSpec("c", "F32", ())]
    assert differences([A, B], other) == (
        "F16 instead of F32: a",
        "other shapes: a [3] instead of [2]",
        "missing: b",
        "unexpected: c",
    )


def test_hundreds_of_differences_stay_readable() -> None:
    layers = [TensorSpec(f"layer{i:03}", "F32", (2,)) for i in range(300)]
    (fault,) = differences(layers, [TensorSpec(spec.name, "BF16", spec.shape) for spec in layers])
    assert fault.startswith("BF16 instead of F32: layer000, layer001, ")
    assert fault.endswith(" and 292 more")
    assert len(fault) < 150


def test_groups_agree_in_layout_and_in_exact_tensors() -> None:
    candidates = [
        checkpoint(A, B),
        checkpoint(A),
        checkpoint(A, B, exact="sha256:other"),
        checkpoint(A, B),
        checkpoint(A),
    ]
    assert compatible_groups(candidates) == ((0, 3), (1, 4), (2,))
    assert compatible_groups([]) == ()


def test_only_the_counters_of_batch_norm_may_differ() -> None:
    floats = [
        TensorSpec(f"{layer}{name}", "F32", (2,))
        for layer in ("", "x.bn.")
        for name in ("running_mean", "running_var")
    ]
    counters = [TensorSpec(f"{layer}num_batches_tracked", "I64", ()) for layer in ("", "x.bn.")]
    others = [
        TensorSpec(name, "I64", ())
        for name in ("y.num_batches_tracked", "position_ids", "x.bn.other", "x.num_batches_tracked")
    ]
    assert must_agree([*floats, *counters, *others]) == tuple(others)


def named(*names: str) -> list[TensorSpec]:
    return [TensorSpec(name, "F32", (2,)) for name in names]


INNER = [f"layer{i}.{part}" for i in range(18) for part in ("weight", "bias")]


def test_names_that_differ_by_a_prefix_are_told_in_one_sentence_whichever_side_has_it() -> None:
    bare, wrapped = named(*INNER, "norm"), named(*(f"encoder.{name}" for name in (*INNER, "norm")))
    assert differences(wrapped, bare) == ("all 37 names match with prefix `encoder.`",)
    assert differences(bare, wrapped) == ("all 37 names match without prefix `encoder.`",)


def test_what_a_prefix_does_not_explain_is_still_told() -> None:
    model = [*named(*(f"bert.{name}" for name in INNER), "head.weight"), TensorSpec("bert.norm", "F32", (4,))]
    assert differences(model, named(*INNER, "norm", "pooler")) == (
        "37 of 38 names match with prefix `bert.`",
        "other shapes: bert.norm [2] instead of [4]",
        "missing: head.weight",
        "unexpected: pooler",
    )


def test_two_encoders_have_two_prefixes() -> None:
    model = named(*(f"{tower}.{name}" for tower in ("text", "image") for name in INNER))
    logged = named(*(f"{tower}_model.{tower}.{name}" for tower in ("text", "image") for name in INNER))
    assert differences(model, logged) == (
        "36 of 72 names match without prefix `image_model.`",
        "36 of 72 names match without prefix `text_model.`",
    )


def test_one_name_that_looks_alike_is_no_prefix() -> None:
    assert differences(named("body.weight", "a", "b"), named("weight", "c", "d")) == (
        "missing: a, b, body.weight",
        "unexpected: c, d, weight",
    )
