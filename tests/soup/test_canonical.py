import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from stockpot.entities import TensorSpec
from stockpot.soup import canonical_names
from stockpot.soup.arithmetic import DTYPES
from stockpot.soup.canonical import header_of, in_layout_order

specs = st.builds(
    TensorSpec,
    st.text(st.characters(codec="utf-8"), min_size=1).filter(
        lambda name: name.isprintable() and name != "__metadata__"
    ),
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
)


@given(st.lists(specs, unique_by=lambda spec: spec.name))
def test_the_header_is_the_librarys_to_the_byte(tensors: list[TensorSpec]) -> None:
    library = save(
        {spec.name: torch.zeros(spec.shape, dtype=DTYPES[spec.dtype]) for spec in tensors},
        metadata={"format": "pt"},
    )
    header = header_of(in_layout_order(tensors))
    assert library[: len(header)] == header
    assert not any(library[len(header) :])


def test_wrappers_that_all_names_carry_are_taken_off() -> None:
    assert canonical_names(["module.a", "module.b"]) == {"module.a": "a", "module.b": "b"}
    assert canonical_names(["_orig_mod.module.a"]) == {"_orig_mod.module.a": "a"}
    assert canonical_names(["model._orig_mod.model.a"]) == {"model._orig_mod.model.a": "a"}


def test_a_prefix_that_one_name_lacks_stays() -> None:
    names = ["module.a", "n_averaged"]
    assert canonical_names(names) == dict(zip(names, names, strict=True))
    assert canonical_names(["model.model.a", "model.b"]) == {"model.model.a": "model.a", "model.b": "b"}


def test_no_name_gets_lost() -> None:
    assert canonical_names([]) == {}
    assert canonical_names(["model."]) == {"model.": "model."}
    assert canonical_names(["model.__metadata__"]) == {"model.__metadata__": "model.__metadata__"}


prefixed = st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "a", "b."])).map("".join)


@given(st.sets(prefixed), st.sampled_from(["", "module.", "_orig_mod.", "model.module."]))
def test_names_stay_distinct_and_wrapping_changes_nothing(names: set[str], wrapper: str) -> None:
    names.discard("")
    found = canonical_names(names)
    assert found.keys() == names
    assert len(set(found.values())) == len(names)
    assert canonical_names(found.values()) == {name: name for name in found.values()}
    if all(found.values()):
        wrapped = canonical_names(wrapper + name for name in names)
        assert {wrapped[wrapper + name] for name in names} == set(found.values())
