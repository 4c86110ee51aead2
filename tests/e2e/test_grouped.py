"""A soup of groups, by a method of somebody's own, from the search to the version and back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stockpot.cli import main
from stockpot.entities import Accept, Arithmetic, Contender, Ensemble, Recipe, Register, SoupRequest
from stockpot.selection.one_recipe import OneRecipe
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.trace import rebuild, snapshot_of
from stockpot.workflow.walk import in_turn, walk


class Halves(OneRecipe):
    """The two that started first against all others."""

    name = "halves"

    def __init__(self, contenders: Sequence[Contender], *, accept: Accept) -> None:  # noqa: ARG002 - one signature
        names = [
            c.checkpoint
            for c in sorted(contenders, key=lambda contender: (contender.started, contender.run_id))
        ]
        super().__init__(Recipe.grouped([names[:2], names[2:]]))


@pytest.mark.slow
def test_a_soup_of_groups_is_registered_told_and_made_again_without_the_cache(
    tiny_sweep: SoupRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = weights("dense", seed=99, spread=0.3)
    save_file(start, tmp_path / "start.safetensors", metadata={"format": "pt"})
    request = replace(
        tiny_sweep,
        base=str(tmp_path / "start.safetensors"),
        methods=("tests.e2e.test_grouped:Halves",),
        register=Register.ALL,
        verify_exact=True,
    )
    outcome = walk(request, Workplace(), in_turn, Silent())
    (row,) = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert (row.recipe.arithmetic, row.recipe.groups) == (Arithmetic.GROUPED_1, (2, 3))
    assert [i.coefficient for i in row.recipe.ingredients] == [(1, 4)] * 2 + [(1, 6)] * 3
    assert outcome.report.curve is not None, "from the base to it"
    members = Ensemble.like(row.recipe)
    assert members.weights == (3, 3, 2, 2, 2)
    first = Workplace()
    protocol = next(one for one in outcome.report.protocols if one.split == request.report_on)
    assert first.store.score(members.digest, protocol.digest) is not None, "beside the soup"

    soup = next(one for one in outcome.registered if one.recipe == row.recipe.digest)
    _, snapshot = snapshot_of(soup.uri, first.tracker)
    assert snapshot.recipe == row.recipe
    monkeypatch.setenv("STOCKPOT_CACHE", str(tmp_path / "elsewhere"))
    place = Workplace()
    rebuild(soup.uri, place.tracker, place.supply, tmp_path / "again.safetensors")
    known = [load_file(file) for file in _files(place, snapshot.recipe)]
    for name, tensor in load_file(tmp_path / "again.safetensors").items():
        first_two = (known[0][name] + known[1][name]) * torch.tensor(1 / 4)
        assert torch.equal(
            tensor, first_two + (known[2][name] + known[3][name] + known[4][name]) * torch.tensor(1 / 6)
        )
    assert "0.1667" in _said(capsys, "show", soup.uri)
    assert "0.25 of" in _said(capsys, "lineage", soup.uri)


def _files(place: Workplace, recipe: Recipe) -> list[Path]:
    cache = place.supply._cache
    return [cache.path(digest) for digest in recipe.checkpoints]


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    return capsys.readouterr().out
