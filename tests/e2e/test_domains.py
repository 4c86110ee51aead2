"""A sweep across domains: a generalist by the mixture, specialists by their own examples."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from tests.e2e.domain_sweep import TASK, USED, plant_domains, published_loop, tagged

from stockpot import calls
from stockpot.entities import (
    Composition,
    Digest,
    Objective,
    Recipe,
    SoupOutcome,
    SoupRequest,
    SoupState,
    digest_of_file,
    tags,
)
from stockpot.errors import BadRequest, BadTask, NothingToSoup
from stockpot.testing.tiny import domain_weights, weights
from stockpot.watching import Lines, Silent
from stockpot.wiring import Workplace
from stockpot.workflow.attesting import verify
from stockpot.workflow.publishing.domains_told import domain_sentences
from stockpot.workflow.reconciling import reconcile
from stockpot.workflow.selecting.all_data import BEST_OF_ALL, SOUP_OF_ALL
from stockpot.workflow.selecting.by_domain import MEAN_OF_RUNS, ROUTED, ROUTED_RUNS
from stockpot.workflow.trace import rebuild
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def request_(client: "MlflowClient", experiment: str, tiny_sweep: SoupRequest) -> SoupRequest:
    return plant_domains(client, experiment, tiny_sweep)


def _walked(request: SoupRequest) -> SoupOutcome:
    return walk(request, Workplace(), in_turn, Silent())


class Plain:
    """Per-example scores by full passes, and what the definitions make of them."""

    def __init__(self, request: SoupRequest, split: str) -> None:
        place = Workplace()
        self.bench = place.bench(request)
        self._evaluator = self.bench.evaluator(split, compared=False, plain=True)
        self.labels = self.bench.domains(split) or ()

    def scores(self, recipe: Composition) -> tuple[float, ...]:
        from stockpot.workflow.selecting.watched import score_in_full

        return score_in_full(recipe, self._evaluator).examples

    def of(self, recipe: Composition, domain: str) -> float:
        own = [s for s, label in zip(self.scores(recipe), self.labels, strict=True) if label == domain]
        return math.fsum(own) / len(own)

    def mixture(self, recipe: Composition) -> float:
        return math.fsum(self.of(recipe, domain) for domain in USED) / len(USED)

    def greedy(self, checkpoints: Sequence[Digest], domain: str | None = None) -> tuple[Digest, ...]:
        """The published loop; by the mixture's score where no domain is named."""
        value = self.mixture if domain is None else partial(self.of, domain=domain)
        return published_loop(checkpoints, value)


def test_every_choice_is_the_plain_loops_on_the_mixture_and_on_each_domain(request_: SoupRequest) -> None:
    outcome = _walked(replace(request_, verify_exact=True))
    report, plain = outcome.report, Plain(request_, "validation")
    names = {point.checkpoint: point.run_name for point in report.candidates}
    greedy = next(s for s in report.selections if s.method == "greedy")
    assert greedy.recipe.checkpoints == plain.greedy([*names])
    assert greedy.score == plain.mixture(greedy.recipe)
    for domain in USED:
        own = [digest for digest, name in names.items() if name.startswith(domain)]
        found = next(s for s in report.selections if s.method == f"specialist:{domain}")
        assert found.recipe.checkpoints == plain.greedy(own, domain)
        assert found.score == plain.of(found.recipe, domain)


@pytest.mark.slow
def test_runs_that_are_best_on_their_domain_and_lie_far_are_left_out_by_the_mixture_and_that_is_told(
    request_: SoupRequest, client: "MlflowClient", experiment: str
) -> None:
    """Such a run leans away from the other domains. Its head many times as large, it answers as before, and
    is all that is left of an average.
    """
    teachers = {domain: domain_weights(domain, spread=0.0) for domain in USED}
    start = weights("dense", spread=0.0)
    runs = {}
    for domain, own in teachers.items():
        others = [teacher for label, teacher in teachers.items() if label != domain]
        for seed in (1, 2):
            noise = weights("dense", seed=seed, spread=0.02)
            runs[f"{domain}-{seed}"] = {
                name: 0.4 * own[name] + 0.3 * sum(one[name] for one in others) + noise[name] - start[name]
                for name in own
            }
        runs[f"{domain}-far"] = {
            name: (1.2 * own[name] - 0.1 * sum(one[name] for one in others)) * (40 if name[0] == "2" else 1)
            for name in own
        }
    asked = replace(tagged(client, experiment, request_, runs), verify_exact=True)
    report, plain = _walked(asked).report, Plain(asked, "validation")
    names = {point.checkpoint: point.run_name for point in report.candidates}
    greedy = next(s for s in report.selections if s.method == "greedy")
    assert greedy.recipe.checkpoints == plain.greedy([*names])
    assert len(greedy.recipe.checkpoints) > 1
    assert not [names[one] for one in greedy.recipe.checkpoints if names[one].endswith("far")]
    told = [*domain_sentences(report)]
    for domain in USED:
        chosen = next(s for s in report.selections if s.method == f"specialist:{domain}")
        assert names[chosen.recipe.checkpoints[0]] == f"{domain}-far"
        (why,) = [line for line in told if f"greedy left out {domain}-far, the best run of {domain}:" in line]
        assert f"without it {greedy.score * 100:.2f}" in why
        best = next(best for best in report.best_runs or () if best.domain == domain)
        losses = {d: cell.versus_best.difference for d, cell in best.domains.items() if cell.versus_best}
        worst = min(losses, key=lambda d: losses[d])
        assert worst != domain
        assert f"does least well on {worst}: " in why


@pytest.mark.slow
def test_the_report_tells_every_row_by_domain_and_what_each_average_gave(request_: SoupRequest) -> None:
    report, plain = _walked(request_).report, Plain(request_, "test")
    assert report.mixture is not None
    assert report.mixture.shares == dict.fromkeys(sorted(USED), 1 / 3)
    for row in report.rows:
        assert row.scores["test"] == plain.mixture(row.recipe)
        assert {d: cell.score for d, cell in (row.domains or {}).items()} == {
            d: plain.of(row.recipe, d) for d in USED
        }
    single = report.rows[0]
    greedy = next(row for row in report.rows if "greedy" in row.methods)
    assert greedy.versus_best["test"].difference == pytest.approx(
        plain.mixture(greedy.recipe) - plain.mixture(single.recipe), abs=1e-12
    )
    specialists = {
        domain: next(row for row in report.rows if f"specialist:{domain}" in row.methods) for domain in USED
    }
    references = {row.label: row for row in report.references or ()}
    routed = math.fsum(plain.of(specialists[d].recipe, d) for d in USED) / 3
    assert references[ROUTED].scores["test"] == pytest.approx(routed, abs=1e-12)
    assert {*references} == {ROUTED, ROUTED_RUNS, MEAN_OF_RUNS}
    contrasts = {contrast.what: contrast for contrast in report.contrasts or ()}
    assert {*contrasts} == {"hyperparameters", "domains", "both"}
    assert contrasts["hyperparameters"].comparison.difference == pytest.approx(
        references[ROUTED].scores["test"] - references[ROUTED_RUNS].scores["test"], abs=1e-12
    )
    assert contrasts["both"].comparison == greedy.versus_best["test"]


@pytest.mark.slow
def test_runs_of_all_data_are_yardsticks_and_no_versions(
    request_: SoupRequest, client: "MlflowClient", experiment: str
) -> None:
    """Beside two runs of each domain: three that were trained on all of them, as the published loop finds."""
    runs = {f"{d}-{seed}": domain_weights(d, seed=seed, spread=0.05) for d in USED for seed in range(2)}
    for seed in range(3):
        each = [domain_weights(d, seed=10 + seed, spread=1.0) for d in USED]
        runs[f"*-{seed}"] = {name: torch.stack([one[name] for one in each]).mean(0) for name in each[0]}
    asked = tagged(client, f"{experiment}-of-all", request_, runs)
    planned, untold = calls.plan(asked), calls.plan(replace(asked, domain_from="params.none"))
    # Two runs for each specialist, as without them; of the three two soups, then the best and the soup.
    assert planned.selection_passes - untold.selection_passes == 2 + 3 + 2
    assert planned.report_passes - untold.report_passes == 3 + 3 + 1 + 2
    outcome = _walked(replace(asked, verify_exact=True))
    report, held_out, test = outcome.report, Plain(asked, "validation"), Plain(asked, "test")
    names = {point.checkpoint: point.run_name for point in report.candidates}
    kept = held_out.greedy([digest for digest, name in names.items() if name.startswith("*")])
    assert 1 < len(kept) < 3
    rows = {row.label: row for row in report.references or ()}
    assert rows[BEST_OF_ALL].recipes == (Recipe.mean(kept[:1]),)
    assert rows[SOUP_OF_ALL].recipes == (Recipe.mean(kept),)
    for label in (BEST_OF_ALL, SOUP_OF_ALL):
        assert rows[label].scores == {"test": test.mixture(rows[label].recipes[0])}
    greedy = next(row for row in report.rows if "greedy" in row.methods)
    (contrast,) = [one for one in report.contrasts or () if one.what == "all data"]
    gain = greedy.scores["test"] - rows[BEST_OF_ALL].scores["test"]
    assert contrast.comparison.difference == pytest.approx(gain, abs=1e-12)
    assert "in place of one run that is trained on all data" in " ".join(domain_sentences(report))
    assert Recipe.mean(kept).digest not in {soup.recipe for soup in outcome.soups} - {greedy.recipe.digest}
    assert _walked(asked).passes == 0, "the second time everything is remembered"


@pytest.mark.slow
def test_specialists_cost_a_full_pass_for_each_run_of_a_domain_at_most(
    request_: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(request_, methods=("greedy",))
    with Workplace() as place:
        bench = place.bench(asked)
        monkeypatch.setattr(place, "bench", lambda _: bench)  # to look at its evaluators afterwards
        walk(asked, place, in_turn, Silent())
        parts = [bench.evaluator("validation", compared=False, domain=domain) for domain in USED]
        assert 0 < sum(part.passes * part.protocol.n / 300 for part in parts) <= 3
    assert _walked(asked).passes == 0, "the second time everything is remembered"


@pytest.mark.slow
def test_the_worst_domain_may_be_what_counts(request_: SoupRequest) -> None:
    asked = replace(request_, objective=Objective.WORST, methods=("greedy",), verify_exact=True)
    report, plain = _walked(asked).report, Plain(request_, "validation")
    greedy = next(s for s in report.selections if s.method == "greedy")
    assert greedy.score == min(plain.of(greedy.recipe, domain) for domain in USED)


def test_each_specialist_is_a_version_with_an_alias_of_its_own(
    request_: SoupRequest, client: "MlflowClient"
) -> None:
    outcome = _walked(replace(request_, methods=("greedy",), margin=-50.0))
    rows = {row.recipe.digest: row for row in outcome.report.rows}
    for soup in outcome.registered:
        version = client.get_model_version("tiny", soup.uri.rpartition("/")[2])
        row = rows[soup.recipe]
        if "greedy" in soup.methods:
            assert soup.aliases == ("challenger",)
            assert tags.DOMAIN not in version.tags
            continue
        (domain,) = (method.removeprefix("specialist:") for method in soup.methods)
        assert version.tags[tags.DOMAIN] == domain
        assert soup.aliases == (f"challenger-{domain}",)
        assert row.own is not None
        assert f"compared with the best run of {domain}" not in version.tags[tags.VERDICT_SENTENCE]
        assert f"than the best run of {domain}" in version.tags[tags.VERDICT_SENTENCE]
    again = _walked(replace(request_, methods=("greedy",), margin=-50.0))
    assert [soup.uri for soup in again.registered] == [soup.uri for soup in outcome.registered]
    assert all(soup.adopted for soup in again.registered)


def test_the_alias_leads_to_the_best_run_of_each_domain_where_no_average_is_better(
    tiny_sweep: SoupRequest, client: "MlflowClient", experiment: str, tmp_path: Path
) -> None:
    """Two domains have their only run in common. Of the third, one run answers by chance."""
    import mlflow

    runs = {
        "plants,birds-0": weights("dense", spread=0.0),
        "stones-0": domain_weights("stones", spread=0.0),
        "stones-1": domain_weights("stones", seed=1, spread=9.0),
    }
    asked = replace(tiny_sweep, task=TASK, task_args={"n": "300"}, shifts=(), methods=("greedy",))
    asked = tagged(client, experiment, asked, runs)
    outcome, place = _walked(asked), Workplace()
    digests = {point.run_name: point.checkpoint for point in outcome.report.candidates}
    for domain in USED:
        run, told = (
            ("stones-0", "Averaging it with others did not help there.")
            if domain == "stones"
            else ("plants,birds-0", "No average was tried there.")
        )
        uri = f"models:/tiny@challenger-{domain}"
        folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / domain))
        assert digest_of_file(Path(folder) / "model.safetensors") == digests[run]
        assert len([*mlflow.pytorch.load_model(uri).parameters()]) == len(runs[run])
        version = place.tracker.version(uri)
        assert version.tags[tags.DOMAIN] == ("stones" if domain == "stones" else "birds,plants")
        assert version.tags[tags.VERDICT] == "no_soup"
        made = client.get_run(version.run_id or "").info.run_name
        assert made.startswith("best-stones-of-1-" if domain == "stones" else "best-birds-plants-of-1-")
        assert rebuild(version.uri, place.tracker, place.supply, tmp_path / "again").digest == digests[run]
        verify(version.uri, place.tracker, place.supply, place.verifier)
        page = client.get_model_version("tiny", version.version).description or ""
        assert told in page
        assert f"challenger-{domain} was nobody's, and no soup of {domain} was found" in page
    again = _walked(asked)
    assert [(s.uri, s.aliases) for s in again.soups] == [(s.uri, s.aliases) for s in outcome.soups]
    assert all(soup.adopted for soup in again.registered)
    assert not reconcile(place)


@pytest.mark.slow
def test_a_domains_best_run_that_is_the_best_single_in_a_soups_place_is_one_version_with_both_aliases(
    tiny_sweep: SoupRequest, client: "MlflowClient", experiment: str, tmp_path: Path
) -> None:
    """Somebody's worse model is the challenger, from which the alias is taken by comparison."""
    runs = {
        "plants-0": domain_weights("plants", spread=0.0),
        "birds-0": weights("dense", seed=7, spread=9.0),
    }
    save_file(runs["birds-0"], tmp_path / "model.safetensors")
    client.create_registered_model("tiny")
    client.create_model_version("tiny", source=tmp_path.as_uri())
    client.set_registered_model_alias("tiny", "challenger", "1")
    asked = replace(tiny_sweep, task=TASK, task_args={"n": "300"}, shifts=(), methods=("uniform",))
    asked = tagged(client, experiment, replace(asked, or_best_single=True), runs)
    outcome = _walked(asked)
    best = outcome.report.rows[0].recipe.digest
    aliases = {soup.recipe: soup.aliases for soup in outcome.registered}
    assert aliases.pop(best) == ("challenger", "challenger-plants")
    assert [*aliases.values()] == [("challenger-birds",)]
    assert len(client.search_model_versions("name = 'tiny'")) == 1 + 2
    (soup,) = [soup for soup in outcome.soups if soup.recipe == best]
    assert soup.state is SoupState.REGISTERED
    assert "challenger was models:/tiny/1: " in soup.why
    assert client.get_model_version("tiny", soup.uri[-1]).tags[tags.ALIAS] == "challenger,challenger-plants"


def test_grouped_begins_with_each_domains_best_and_adds_by_the_mixture(request_: SoupRequest) -> None:
    report = _walked(replace(request_, methods=("greedy", "grouped"), verify_exact=True)).report
    plain = Plain(request_, "validation")
    found = next(s for s in report.selections if s.method == "grouped")
    names = {point.checkpoint: point.run_name.rpartition("-")[0] for point in report.candidates}
    ranked = sorted(names, key=lambda one: -plain.mixture(Recipe.mean([one])))
    kept: dict[str, list[Digest]] = {
        domain: [next(one for one in ranked if names[one] == domain)] for domain in USED
    }
    order = sorted(USED)
    best = plain.mixture(Recipe.grouped([kept[domain] for domain in order]))
    trials = 1
    for one in ranked:
        if any(one in own for own in kept.values()):
            continue
        tried = {domain: [*own, one] if names[one] == domain else own for domain, own in kept.items()}
        trials += 1
        if (score := plain.mixture(Recipe.grouped([tried[domain] for domain in order]))) >= best:
            kept, best = tried, score
    assert found.recipe == Recipe.grouped([kept[domain] for domain in order])
    assert found.score == best
    assert len([step for step in found.steps if len(step.tried) > 1]) == trials == 3 * 2 + 1


@pytest.mark.slow
def test_a_mix_weighs_domains(request_: SoupRequest) -> None:
    report = _walked(replace(request_, mix={"plants": 3, "birds": 1}, methods=("greedy",))).report
    plain = Plain(request_, "test")
    for row in report.rows:
        expected = (3 * plain.of(row.recipe, "plants") + plain.of(row.recipe, "birds")) / 4
        assert row.scores["test"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"mix": {"plants": 1, "fish": 1}}, BadRequest, "mix names fish"),
        ({"task": "stockpot.testing.tiny:TinyTask", "objective": "worst"}, BadRequest, "the task tells none"),
        ({"domain_from": "params.kind", "objective": "mean"}, None, ""),
    ],
)
def test_what_contradicts_itself_is_told(
    request_: SoupRequest, change: dict[str, object], error: type[Exception] | None, told: str
) -> None:
    if "task" in change:
        change = {**change, "task_args": {}}
    asked = replace(request_, methods=("greedy",), **change)  # type: ignore[arg-type]  # the request fits them
    if error is None:
        assert not _walked(asked).report.mixture.runs  # type: ignore[union-attr]  # there are several
        return
    with pytest.raises(error, match=told):
        _walked(asked)
    assert BadTask.exit_code != BadRequest.exit_code


@pytest.mark.parametrize("task", ["TinyTask", "DomainTask"])
def test_that_there_is_nothing_to_group_is_told_before_anything_is_ranked(
    request_: SoupRequest, task: str
) -> None:
    said: list[str] = []
    asked = replace(
        request_,
        task=f"stockpot.testing.tiny:{task}",
        task_args={},
        methods=("grouped",),
        domain_from="params.nothing",
    )
    with pytest.raises(NothingToSoup, match="grouped averages across domains: there are not several"):
        walk(asked, Workplace(), in_turn, Lines(said.append))
    assert any(line.startswith("list runs") for line in said)
    assert not any(line.startswith("rank") for line in said)


def test_the_page_shows_the_domains(request_: SoupRequest, tmp_path: Path) -> None:
    (soup, *_) = _walked(replace(request_, methods=("greedy",))).registered
    told_lines: list[str] = []
    said = Lines(told_lines.append)
    calls.report(soup.uri, out=tmp_path / "report.html", barriers=True, influence=True, watch=said)
    assert any("nothing is evaluated: scores are of a mixture of domains" in line for line in told_lines)
    text = (tmp_path / "report.html").read_text()
    for told in ("Across domains", *USED, ROUTED, "Averaging across both", "worst of the mixture"):
        assert told in text


def test_a_plan_counts_specialists_and_refuses_what_a_walk_would(request_: SoupRequest) -> None:
    asked = replace(request_, methods=("greedy",))
    planned, untold = calls.plan(asked), calls.plan(replace(asked, domain_from="params.none"))
    # Three runs for each part of the held-out split, and its specialist on the whole of it.
    assert planned.selection_passes - untold.selection_passes == 3 + 3
    # Each specialist, each domain's best run, and the mean of these.
    assert planned.report_passes - untold.report_passes == 3 + 3 + 1
    with pytest.raises(BadRequest, match="mix names fish"):
        calls.plan(replace(asked, mix={"fish": 1}))


SOMETIMES = """
import torch
from stockpot.testing.tiny import DomainTask

class Sometimes(DomainTask):
    '''Examples change places where the batch as a whole is taken for the first class.'''

    batch_size = 16

    def predict(self, model, batch):
        outputs = super().predict(model, batch)
        return torch.where(outputs[:, 0].mean() > outputs.mean(), outputs.roll(1, dims=0), outputs)
"""


@pytest.mark.slow
def test_scores_that_depend_on_the_batch_of_some_candidates_alone_are_read_off_no_other_pass(
    request_: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one candidate's pass has shown, other trials had refuted before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sometimes.py").write_text(SOMETIMES)
    report = _walked(
        replace(request_, task="sometimes:Sometimes", methods=("greedy",), verify_exact=True)
    ).report
    assert sum(s.method.startswith("specialist:") for s in report.selections) == len(USED)
