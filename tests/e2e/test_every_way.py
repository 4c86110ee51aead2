"""What a request that compares all tells beside: against averages that are written out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from markupsafe import escape
from safetensors.torch import save_file
from tests.e2e.domain_sweep import USED, plant_domains, state, walked
from torch import Tensor

from stockpot import calls
from stockpot.entities import Job, SoupRequest, tags
from stockpot.testing.tiny import DomainTask, weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.helping import _Help
from stockpot.workflow.publishing.collisions_told import collision_sentences
from stockpot.workflow.selecting.every_way import HOLDS_NONE, MEAN_OF_SPECIALISTS
from stockpot.workflow.selecting.from_base import REACHES, TIES, farthest
from stockpot.workflow.selecting.measure import open_splits
from stockpot.workflow.sharing.opening import opening_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


START = weights("dense", spread=0.0)


@pytest.fixture
def request_(client: "MlflowClient", experiment: str, tiny_sweep: SoupRequest, tmp_path: Path) -> SoupRequest:
    save_file(START, tmp_path / "start.safetensors")
    return replace(plant_domains(client, experiment, tiny_sweep), base=str(tmp_path / "start.safetensors"))


def ties(runs: Sequence[str]) -> dict[str, Tensor]:
    """Trim, elect, merge, on one vector of each run."""
    start = torch.cat([tensor.reshape(-1) for tensor in START.values()])
    updates = torch.stack([torch.cat([state(run)[key].reshape(-1) for key in START]) - start for run in runs])
    for update in updates:
        update[update.abs() < update.abs().sort(descending=True).values[len(update) // 5 - 1]] = 0
    agreeing = torch.where(updates.sign() == updates.sum(dim=0).sign(), updates, 0)
    merged = start + agreeing.sum(dim=0) / (agreeing != 0).sum(dim=0).clamp(min=1)
    parts = torch.split(merged, [tensor.numel() for tensor in START.values()])
    return {key: part.view(START[key].shape) for key, part in zip(START, parts, strict=True)}


class Written:
    """Scores of averages that are written out: of the runs' own tensors, on each domain."""

    def __init__(self, split: str) -> None:
        self._task = DomainTask(n="300")
        self._batch = self._task.collate([*self._task.examples(split)])
        self._domains = [*self._task.domains(split)]

    def of(self, weights: Mapping[str, float]) -> dict[str, float]:
        """By domain, and under "all" the mean of these; `weights`: of each run, and of "base"."""
        states = {name: START if name == "base" else state(name) for name in weights}
        return self.of_state(
            {
                key: torch.stack([w * states[one][key].double() for one, w in weights.items()])
                .sum(dim=0)
                .float()
                for key in START
            }
        )

    def of_state(self, mean: Mapping[str, Tensor]) -> dict[str, float]:
        """The same of these weights."""
        module = self._task.model()
        module.load_state_dict(mean)
        with torch.no_grad():
            scores = self._task.score(self._task.predict(module, self._batch), self._batch).tolist()
        found = {}
        for domain in USED:
            own = [s for s, label in zip(scores, self._domains, strict=True) if label == domain]
            found[domain] = math.fsum(own) / len(own)
        return {**found, "all": math.fsum(found.values()) / len(USED)}


@pytest.mark.slow
def test_all_ways_are_those_that_are_written_out_and_none_is_registered(
    request_: SoupRequest, client: "MlflowClient", tmp_path: Path
) -> None:
    asked = replace(request_, methods=("greedy",), shifts=("shifted",), compare_all=True)
    planned, without = calls.plan(asked), calls.plan(replace(asked, compare_all=False))
    outcome = walked(asked)
    report, names = outcome.report, {}
    for point in outcome.report.candidates:
        names[point.checkpoint] = point.run_name
    found = {s.method: [names[c] for c in s.recipe.checkpoints] for s in report.selections}

    own = [found[f"specialist:{domain}"] for domain in USED]
    measured: set[str] = set()
    parts = {run: 1 / len(USED) / len(group) for group in own for run in group}
    row = next(one for one in report.references or () if one.label == MEAN_OF_SPECIALISTS)
    for split in ("validation", "test"):
        written = Written(split)
        assert row.scores[split] == pytest.approx(written.of(parts)["all"], abs=1e-12)
        whole = written.of({run: 1 / len(found["greedy"]) for run in found["greedy"]})
        assert [one.domain for one in report.collisions or ()] == sorted(USED)
        for one in report.collisions or ():
            left = [run for run in found["greedy"] if not run.startswith(one.domain)]
            if left == found["greedy"]:
                assert (one.recipe, one.why, one.costs) == (None, HOLDS_NONE, {})
                continue
            measured.add(one.domain)
            rest = written.of({run: 1 / len(left) for run in left})
            assert {scored: cost.difference for scored, cost in one.costs[split].items()} == pytest.approx(
                {domain: rest[domain] - whole[domain] for domain in USED}, abs=1e-12
            )
    assert {domain: cell.score for domain, cell in (row.domains or {}).items()} == pytest.approx(
        {domain: score for domain, score in Written("test").of(parts).items() if domain != "all"}
    )
    assert "shifted" in row.scores

    runs, rows = found["greedy"], {one.label: one for one in report.references or ()}
    beyond = {r: {**dict.fromkeys(runs, float(r) / len(runs)), "base": 1 - float(r)} for r in REACHES}
    chosen = max(REACHES, key=lambda r: Written("validation").of(beyond[r])["all"])
    assert {*map(farthest, REACHES)} & {*rows} == {farthest(chosen)}
    for split in ("validation", "test"):
        written = Written(split)
        assert rows[farthest(chosen)].scores[split] == pytest.approx(
            written.of(beyond[chosen])["all"], abs=1e-12
        )
        assert rows[TIES].scores[split] == pytest.approx(written.of_state(ties(runs))["all"], abs=1e-12)
    assert {one.what for one in report.contrasts or ()} >= {"own", "extrapolation", "ties"}

    beside = {row.recipes[0].digest, *(one.recipe.digest for one in report.collisions or () if one.recipe)}
    assert len(beside) == 1 + len(measured)
    assert len(measured) > 1, "else there is little to compare"
    beside |= {rows[name].recipes[0].digest for name in (TIES, farthest(chosen))}
    assert not beside & {soup.recipe for soup in outcome.registered}
    versions = client.search_model_versions("name = 'tiny'")
    assert not beside & {version.tags[tags.RECIPE] for version in versions}
    assert planned.selection_passes - without.selection_passes == 1 + len(USED) + len(REACHES) + 1
    assert planned.report_passes - without.report_passes == 2 + len(USED) + 2 * 2
    assert walked(asked).passes == 0, "the second time everything is remembered"

    generalist = next(soup for soup in outcome.registered if "greedy" in soup.methods)
    calls.report(generalist.uri, out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for told in (MEAN_OF_SPECIALISTS, TIES, farthest(chosen), *collision_sentences(report)):
        assert str(escape(told)) in text
    for split in ("test", "validation"):
        assert f"<th>{split}, without the runs of</th>" in text
    version = client.get_model_version("tiny", generalist.uri.rpartition("/")[2])
    assert "by its own score, then the mean across" in (version.description or "")


@pytest.mark.slow
def test_a_helper_takes_part_in_what_is_compared_beside(request_: SoupRequest) -> None:
    plain = replace(request_, methods=("greedy",))
    asked = replace(plain, compare_all=True)
    walked(plain)
    with Workplace() as place:
        bench, job = place.bench(asked), Job.of(asked, [])
        place.store.begin_job(job)
        place.store.take_lease(job.lease, owner="host/1/leader", seconds=600)
        opening = opening_of(open_splits(asked, bench), bench, bench.batch_size, None)
        place.store.open_job(job, opening, owner="host/1/leader")
        helped = _Help(job, opening, place, Silent())
        assert helped.give({})
        assert helped.evaluations >= 2 + 2
    outcome = walked(asked)
    assert outcome.passes == 1, "of what is chosen from three, on the report split"
    assert outcome.report.collisions
