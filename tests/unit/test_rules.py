"""The file of rules: what it says, and what is wrong with it, all at once."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from stockpot.entities import Experiment, SoupRequest
from stockpot.errors import BadRequest
from stockpot.tracking import MemoryTracker
from stockpot.workflow.scanning.matching import match
from stockpot.workflow.scanning.rules import EXAMPLE, Rules, read_rules, rule_named_by

TWO = """
[[rule]]
name = "birds"
experiments = ["birds-*"]
[rule.request]
model = "birds"
task = "arrays"
shifts = ["fog"]
margin = "-1%"
[[rule]]
name = "all"
experiments = "*"
only_tagged = true
[rule.request]
model = "any"
task = "arrays"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules.toml"


def rules_of(file: Path, text: str) -> Rules:
    file.write_text(text)
    return read_rules(file)


def faults_of(file: Path, text: str) -> str:
    with pytest.raises(BadRequest) as error:
        rules_of(file, text)
    return str(error.value)


def test_the_example_that_a_missing_file_is_mended_with_is_a_file_of_rules(file: Path) -> None:
    with pytest.raises(BadRequest, match=r"rules.toml cannot be read: No such file") as error:
        read_rules(file)
    assert EXAMPLE.splitlines()[2] in error.value.mend
    rules = rules_of(file, EXAMPLE)
    (rule,) = rules.rules
    assert (rules.budget_per_day, rule.partial_after_hours) == (20, 24)
    assert rule.since == datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    request = rule.request_for("1f0c", partial=True)
    assert request == SoupRequest(
        model="birds",
        task="arrays",
        task_args={"data": "/data/birds.npz", "model": "birds.net:make"},
        sweep="1f0c",
        partial=True,
    )


def test_a_file_that_is_no_toml_is_told_with_the_line(file: Path) -> None:
    assert "are no TOML: " in (told := faults_of(file, 'name = "birds\n'))
    assert "line 1" in told


def test_all_faults_of_all_rules_are_told_at_once_and_where(file: Path) -> None:
    told = faults_of(
        file,
        """
        budget = 20
        budget_per_day = "many"
        [[rule]]
        name = "birds"
        experiment = ["birds-*"]
        since = "yesterday"
        partial_after_hours = -1
        alias = "models:/birds@best"
        [rule.request]
        model = "birds"
        taks = "arrays"
        sweep = "1f0c"
        again = true
        [[rule]]
        name = "birds"
        experiments = []
        filter = 3
        only_tagged = "no"
        [rule.request]
        model = "birds"
        task = "arrays"
        margin = "much"
        select_on = "test"
        [[rule]]
        experiments = ["a"]
        """,
    )
    for fault in (
        "budget is unknown: did you mean budget_per_day?",
        "budget_per_day must be a whole number of jobs, got 'many'",
        "rule 'birds': experiment is unknown: did you mean experiments?",
        "rule 'birds': experiments must be a list of names or patterns, got None",
        "rule 'birds': since must be a date such as 2026-11-01, got 'yesterday'",
        "rule 'birds': partial_after_hours must be a positive number, got -1",
        "rule 'birds': alias must be ALIAS or MODEL@ALIAS, got 'models:/birds@best'",
        "rule 'birds': request: taks is unknown: did you mean task?",
        "rule 'birds': request: task is missing",
        "rule 'birds': request: sweep is the sweep's: the scan fills it in",
        "rule 'birds': request: again is for a person to ask, once: leave it out",
        "rule 'birds': filter must be a text, got 3",
        "rule 'birds': only_tagged must be true or false, got 'no'",
        "rule 'birds': request: select_on, report_on and shifts must be different splits",
        "margin must be a number",
        "rule 3: name must be a text, got None",
        "rule 3: there is no [rule.request]",
        "two rules have the name 'birds'",
    ):
        assert fault in told, fault
    assert "rules check --rules" in told
    assert "there is no rule" in faults_of(file, "budget_per_day = 3")
    assert "[[rule]]" in faults_of(file, '[rule]\nname = "birds"')


def test_a_tag_names_a_rule_by_json_or_by_its_name_alone(file: Path) -> None:
    rules = rules_of(file, TWO)
    birds, every = rules.rules
    assert rule_named_by('{"rule": "birds", "at": "now"}', rules) is birds
    assert rule_named_by("all", rules) is every
    for text in ("", "yes", "2026-11-28", '{"at": "now"}', "[1]"):
        assert rule_named_by(text, rules) is None
    assert "is no JSON" in str(rule_named_by('{"rule": ', rules))
    for name in ('"brids"', "3"):
        assert "there are birds, all" in str(rule_named_by(f'{{"rule": {name}}}', rules))


def test_the_first_rule_that_matches_is_taken_and_the_others_are_named(file: Path) -> None:
    tracker, rules = MemoryTracker(), rules_of(file, TWO.replace('"*"\n', '"*"\nfilter = "tags.a = \'1\'"\n'))
    birds, fish = tracker.add_experiment("birds-1"), tracker.add_experiment("fish")
    experiments = {one.experiment_id: one for one in tracker.experiments()}
    parents = [
        tracker.add_run(birds, "plain"),
        tracker.add_run(birds, "tagged", tags={"stockpot.soup": "yes", "a": "1"}),
        tracker.add_run(fish, "fish", tags={"a": "1"}),
        tracker.add_run(fish, "named", tags={"stockpot.soup": "birds"}),
        tracker.add_run(fish, "wrong", tags={"stockpot.soup": '{"rule": "cats"}'}),
    ]
    found = match(tracker.select_runs([birds, fish]), rules, experiments, tracker, {})
    told = [(one.rule and one.rule.name, one.others) for one in map(found.__getitem__, parents)]
    assert told == [("birds", ()), ("birds", ("all",)), (None, ()), ("birds", ()), (None, ())]
    assert "cats" in found[parents[-1]].wrong
    assert match(tracker.select_runs([fish]), rules, {"9": Experiment("9", "x", 0)}, tracker, {}) == {}


def test_a_filter_that_is_refused_names_its_rule(file: Path) -> None:
    tracker, rules = MemoryTracker(), rules_of(file, TWO.replace('"*"\n', '"*"\nfilter = "or else"\n'))
    number = tracker.add_experiment("fish")
    tracker.add_run(number, "sweep", tags={"stockpot.soup": "yes"})
    with pytest.raises(BadRequest, match="rule 'all': filter 'or else'"):
        match(tracker.select_runs([number]), rules, {number: Experiment(number, "fish", 0)}, tracker, {})
