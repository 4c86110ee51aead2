"""A recall reaches everything that holds what is recalled, keeps it out of soups, and searches anew."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from tests.unit.kitchen import Kitchen, named

from stockpot import calls
from stockpot.entities import (
    ModelVersion,
    PublishedSoup,
    Recall,
    RecallKind,
    SoupOutcome,
    SoupRequest,
    Standing,
    tags,
)
from stockpot.errors import BadRequest, NothingToSoup, TrackingError
from stockpot.testing.store_values import report
from stockpot.watching import Silent
from stockpot.workflow.gathering.recalled import recalled
from stockpot.workflow.lineage.drawing import tree
from stockpot.workflow.lineage.recall import Recalling, carry_out, plan_recall, replaced_by


@dataclass
class Office(Kitchen):
    """A kitchen whose requests are answered by what a test says."""

    asked: list[SoupRequest] = field(default_factory=list)
    trail: list[tuple[str, str]] = field(default_factory=list)
    answers: Callable[[], ModelVersion] | None = None

    def answer(self, request: SoupRequest) -> SoupOutcome:
        self.asked.append(request)
        if self.answers is None:
            raise NothingToSoup("one usable run, where an average needs two")
        new = self.answers()
        recipe = named("any")
        soup = PublishedSoup(("greedy",), recipe, None, new.uri, new.run_id or "", (), None)
        return SoupOutcome(report(), (soup,), 0, 0.5)

    def record(self, model: str, told: Recalling) -> None:
        self.trail.append((model, told.word.name))

    def recall(self, kind: RecallKind, name: str, *, really: bool = True, **word: object) -> Recalling:
        said = Recall(kind, name, "mislabelled", "ann")
        plan = plan_recall(replace(said, **word), self, Silent())  # type: ignore[arg-type]  # a recall's fields
        return carry_out(plan, self, self.answer, self.record, Silent()) if really else plan.told


@pytest.fixture
def office() -> Office:
    return Office()


def marked(office: Office) -> dict[str, str]:
    """The versions with a tag, and what it says."""
    versions = [one for of_model in office.tracker.versions_kept.values() for one in of_model]
    return {one.uri: one.tags[tags.RECALLED] for one in versions if tags.RECALLED in one.tags}


def test_every_version_that_holds_a_run_is_marked_through_soups_of_soups_and_copies(office: Office) -> None:
    a, b, c = office.logs("a", "b", "c")
    office.soup("ab", [a, b])
    office.soup("abc", [*office.logs("ab"), c])
    office.soup("bc", [b, c], model="others")
    office.tracker.copy_version("models:/birds/1", "production")
    found = office.recall(RecallKind.RUN, a.run.run_id)
    reached = ["models:/birds/1", "models:/birds/2", "models:/production/1"]
    assert [one.uri for one in found.versions] == reached
    replaced = [uri for search in found.replacements for uri in search.replaces]
    assert sorted(replaced) == reached[:2], "a copy is its origin's to replace"
    assert all(one.done for one in found.versions)
    assert marked(office) == dict.fromkeys(reached, "mislabelled")
    assert office.trail == [("birds", a.run.run_id), ("production", a.run.run_id)]
    now = recalled(office.store, office.tracker)
    assert {*now.checkpoints} == {named("a"), named("ab"), named("abc")}
    assert now.of(a.run.run_id) == found.word
    assert now.of(c.run.run_id, named("c")) is None


def test_a_plan_changes_nothing(office: Office) -> None:
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b])
    before = repr((office.tracker.versions_kept, office.store.recalls()))
    plan = office.recall(RecallKind.RUN, a.run.run_id, really=False)
    assert repr((office.tracker.versions_kept, office.store.recalls())) == before
    assert (plan.done, [one.done for one in plan.versions]) == (False, [False])
    assert [search.replaces for search in plan.replacements] == [("models:/birds/1",)]


def test_what_held_it_is_searched_anew_once_for_each_request_and_the_new_version_says_so(
    office: Office,
) -> None:
    a, b, c = office.logs("a", "b", "c")
    old = office.soup("ab", [a, b])
    other = office.soup("abc", [a, b, c], model="others")
    new = office.soup("bc", [b, c])
    office.answers = lambda: new
    found = office.recall(RecallKind.CHECKPOINT, named("a"))
    assert sorted(request.model for request in office.asked) == ["birds", "others"]
    assert [search.found for search in found.replacements] == [(new.uri,), (new.uri,)]
    assert {*replaced_by(office.tracker.version(new.uri))} == {old.uri, other.uri}
    again = office.recall(RecallKind.CHECKPOINT, named("a"))
    assert len(replaced_by(office.tracker.version(new.uri))) == 2, "told once"
    assert (again.word, len(office.store.recalls())) == (found.word, 1)


def test_an_alias_stays_and_a_search_that_fails_ends_nothing(office: Office) -> None:
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b])
    office.tracker.set_alias("birds", "champion", "1")
    found = office.recall(RecallKind.RUN, a.run.run_id)
    (search,) = found.replacements
    assert (search.done, search.exit_code) == (False, 4)
    assert "one usable run" in search.fault
    assert found.versions[0].aliases == ("champion",)
    assert office.tracker.version("models:/birds@champion").version == "1"
    assert marked(office) == {"models:/birds/1": "mislabelled"}


def test_a_version_that_the_store_does_not_know_is_reached_too(office: Office) -> None:
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b], known=False)
    office.recall(RecallKind.RUN, a.run.run_id)
    assert marked(office) == {"models:/birds/1": "mislabelled"}


def test_a_version_whose_tags_were_copied_by_hand_is_not_marked(office: Office) -> None:
    a, b = office.logs("a", "b")
    version = office.soup("ab", [a, b])
    forged = office.soup("other", office.logs("c", "d"), model="forged", known=False)
    office.tracker.versions_kept["forged"] = [replace(forged, tags=version.tags)]
    files = office.tracker.models_kept[forged.model_id or ""].files
    files["stockpot.json"] = b"{"  # so that nobody can compare it
    found = office.recall(RecallKind.RUN, a.run.run_id)
    assert [one.uri for one in found.versions] == [version.uri]
    assert marked(office) == {version.uri: "mislabelled"}
    assert any("what models:/forged/1 holds is not known" in note for note in found.notes)


def test_soups_of_soups_are_searched_anew_after_what_they_hold(office: Office) -> None:
    a, b, c = office.logs("a", "b", "c")
    office.soup("ab", [a, b], model="fish")
    office.soup("abc", [*office.logs("ab"), c], model="wings")
    office.soup("abcd", office.logs("abc", "d"), model="birds")
    office.recall(RecallKind.RUN, a.run.run_id)
    assert [request.model for request in office.asked] == ["fish", "wings", "birds"]


def test_what_replaces_a_version_is_what_one_of_its_methods_found(office: Office) -> None:
    a, b, c = office.logs("a", "b", "c")
    old = office.soup("ab", [a, b])
    greedy, uniform = office.soup("bc", [b, c]), office.soup("cd", [c, *office.logs("d")])

    def answer(_: SoupRequest) -> SoupOutcome:
        soups = [
            PublishedSoup((method,), named("any"), None, new.uri, new.run_id or "", (), None)
            for method, new in (("greedy", greedy), ("uniform", uniform))
        ]
        return SoupOutcome(report(), tuple(soups), 0, 0.5)

    plan = plan_recall(Recall(RecallKind.RUN, a.run.run_id, "why", "ann"), office, Silent())
    carry_out(plan, office, answer, office.record, Silent())
    assert replaced_by(office.tracker.version(greedy.uri)) == (old.uri,)
    assert replaced_by(office.tracker.version(uniform.uri)) == ()


@pytest.mark.parametrize(
    ("tag", "told"), [("{", ()), ("3", ()), ('{"a": 1}', ()), ('[1, "models:/a/1"]', ("models:/a/1",))]
)
def test_whatever_people_write_into_the_tag_what_it_replaces_is_read(
    office: Office, tag: str, told: tuple[str, ...]
) -> None:
    version = office.soup("ab", office.logs("a", "b"))
    assert replaced_by(replace(version, tags={tags.REPLACES: tag})) == told


def test_a_search_that_ends_in_the_recalled_version_itself_replaces_nothing(office: Office) -> None:
    """The recall was withdrawn while it searched, perhaps."""
    a, b = office.logs("a", "b")
    old = office.soup("ab", [a, b])
    office.answers = lambda: old
    (search,) = office.recall(RecallKind.RUN, a.run.run_id).replacements
    assert (search.done, search.found) == (True, (old.uri,))
    assert replaced_by(office.tracker.version(old.uri)) == ()


def test_two_recalls_at_once_of_one_version_leave_one_word_each_and_one_mark(office: Office) -> None:
    a, b, c = office.logs("a", "b", "c")
    office.soup("ab", [a, b])
    new = office.soup("c", [c, *office.logs("d")])
    office.answers = lambda: new
    words = [Recall(RecallKind.RUN, one.run.run_id, f"why {one.run.name}", "ann") for one in (a, b, a)]
    plans = [plan_recall(word, office, Silent()) for word in words]  # all before one is carried out
    for plan in plans:
        carry_out(plan, office, office.answer, office.record, Silent())
    assert [word.reason for word in office.store.recalls()] == ["why a", "why b"]
    assert marked(office)["models:/birds/1"] in {"why a", "why b"}
    assert replaced_by(office.tracker.version(new.uri)) == ("models:/birds/1",)


def test_a_version_that_is_deleted_in_between_is_told_and_ends_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = office.logs("a", "b", "c")
    office.soup("ab", [a, b])
    office.soup("ac", [a, c])
    plan = plan_recall(Recall(RecallKind.RUN, a.run.run_id, "why", "ann"), office, Silent())
    tag_version = office.tracker.tag_version

    def tag(version: ModelVersion, name: str, value: str) -> None:
        if version.uri == "models:/birds/1":
            raise BadRequest("no models:/birds/1")
        tag_version(version, name, value)

    monkeypatch.setattr(office.tracker, "tag_version", tag)
    found = carry_out(plan, office, office.answer, office.record, Silent())
    told = {one.uri: (one.done, one.fault, one.exit_code) for one in found.versions}
    assert told == {
        "models:/birds/1": (False, "no models:/birds/1", 3),
        "models:/birds/2": (True, "", 0),
    }


def test_deleted_versions_are_told_and_asked_for_nothing(office: Office) -> None:
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b])
    office.tracker.versions_kept["birds"].clear()
    found = office.recall(RecallKind.RUN, a.run.run_id)
    assert [(one.uri, one.standing) for one in found.versions] == [("models:/birds/1", Standing.DELETED)]
    assert (found.replacements, office.asked, office.trail) == ((), [], [])


def test_a_trail_that_cannot_be_written_is_told(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b])

    def record(_model: str, _told: Recalling) -> None:
        raise TrackingError("MLflow is away")

    monkeypatch.setattr(office, "record", record)
    assert (
        "the trail of birds does not tell of it: MLflow is away"
        in office.recall(RecallKind.RUN, a.run.run_id).notes
    )


def test_a_run_that_is_in_nothing_is_kept_out_of_later_soups(office: Office) -> None:
    (a,) = office.logs("a")
    found = office.recall(RecallKind.RUN, a.run.run_id)
    assert found.notes == (
        f"no checkpoint of run {a.run.run_id} was ever read",
        f"run {a.run.run_id} is in no version",
    )
    assert recalled(office.store, office.tracker).of(a.run.run_id) == found.word


def test_a_dataset_takes_its_runs_with_it_also_those_that_come_later(office: Office) -> None:
    a, b, c = office.logs("a", "b", "c")
    office.soup("ab", [a, b])
    office.tracker.add_dataset(a.run.run_id, "d1")
    found = office.recall(RecallKind.DATASET, "d1")
    assert [one.uri for one in found.versions] == ["models:/birds/1"]
    office.tracker.add_dataset(c.run.run_id, "d1")
    now = recalled(office.store, office.tracker)
    assert {*now.runs} == {a.run.run_id, c.run.run_id}
    assert named("a") in now.checkpoints


def test_a_domain_takes_the_runs_that_name_it_and_those_of_all_data_with_it(office: Office) -> None:
    tagged = {"a": "python", "b": "man, python", "c": "*", "d": "man", "e": "", "f": "Python"}
    runs = {one.run.name: one for one in office.logs(*tagged)}
    for name, tag in tagged.items():
        office.tracker.tag_run(runs[name].run.run_id, tags.DOMAIN, tag)
        office.soup(f"{name}f", [runs[name], runs["f"]] if name != "f" else [runs["d"], runs["e"]])
    found = office.recall(RecallKind.DOMAIN, "python")
    assert [one.uri for one in found.versions] == [f"models:/birds/{number}" for number in (1, 2, 3)]
    office.tracker.tag_run(runs["d"].run.run_id, tags.DOMAIN, "man,python")
    now = recalled(office.store, office.tracker)
    assert {*now.runs} == {runs[name].run.run_id for name in "abcd"}, "asked anew"
    office.recall(RecallKind.DOMAIN, "python", withdrawn=True)
    assert not recalled(office.store, office.tracker).runs


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (
            "pyhton",
            "no run's tag stockpot.domain names 'pyhton': there are man, python: did you mean python?",
        ),
        ("Python", "no run's tag stockpot.domain names 'Python'"),
        ("*", "it holds every run of all data"),
        ("man,python", "must be 1 to 64 characters, no comma"),
        (" ", "must be 1 to 64 characters"),
        ("p" * 65, "must be 1 to 64 characters"),
    ],
)
def test_a_domain_is_one_label_that_a_run_has(office: Office, name: str, what: str) -> None:
    for run, tag in zip(office.logs("a", "b", "c"), ("python", "man", "*"), strict=True):
        office.tracker.tag_run(run.run.run_id, tags.DOMAIN, tag)
    with pytest.raises(BadRequest) as error:
        office.recall(RecallKind.DOMAIN, name)
    assert what in error.value.what
    assert office.store.recalls() == ()


@pytest.mark.parametrize("order", [1, -1])
def test_where_all_runs_of_a_domain_are_gone_they_are_told_by_the_tag_that_any_soup_saw(
    office: Office, order: int
) -> None:
    a, b = office.logs("a", "b")
    tagged = replace(a, run=replace(a.run, tags={tags.DOMAIN: "python"}))
    for number, one in enumerate([a, tagged][::order]):
        office.soup(f"soup-{number}", [one, b])
    for gone in (a, b):
        del office.tracker.runs_kept[gone.run.run_id]
    with pytest.raises(BadRequest, match="1 run of it in soups did, gone from MLflow") as error:
        office.recall(RecallKind.DOMAIN, "python")
    assert f"stockpot recall --run {a.run.run_id} " in error.value.mend
    assert office.store.recalls() == ()


def test_runs_that_mlflow_does_not_have_any_more_are_told_with_what_lies_beside_their_soups(
    office: Office,
) -> None:
    a, b, c, d = office.logs("a", "b", "c", "d")
    office.tracker.tag_run(d.run.run_id, tags.DOMAIN, "python")
    tagged = [replace(one, run=replace(one.run, tags={tags.DOMAIN: "python"})) for one in (a, d)]
    office.soup("ab", [tagged[0], b])
    damaged = office.soup("bc", [c, b])
    office.soup("d", [tagged[1], b])
    office.tracker.models_kept[damaged.model_id or ""].files["stockpot.json"] = b"{"
    for one in (a, c):
        del office.tracker.runs_kept[one.run.run_id]
    of_it, unknown = office.recall(RecallKind.DOMAIN, "python", really=False).notes[1:]
    assert of_it == f"1 run of it in soups, gone from MLflow, must be recalled by --run: {a.run.run_id}"
    assert f"1 run in soups, not in this MLflow any more, used it is not known: {c.run.run_id};" in unknown
    office.tracker.add_dataset(d.run.run_id, "d1")
    (_, unknown) = office.recall(RecallKind.DATASET, "d1", really=False).notes
    assert all(one.run.run_id in unknown for one in (a, c)), "no file tells of data"


def test_what_was_held_by_a_renamed_model_is_searched_anew_for_its_name_of_today(office: Office) -> None:
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b])
    office.soup("abc", [a, b, *office.logs("c")], known=False)
    office.tracker.rename_model("birds", "fowl")
    plan = office.recall(RecallKind.RUN, a.run.run_id, really=False)
    assert [(one.replaces, one.request.model) for one in plan.replacements] == [
        (("models:/fowl/1", "models:/fowl/2"), "fowl"),
    ]


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        (RecallKind.RUN, "nobody", "no run 'nobody'"),
        (RecallKind.CHECKPOINT, "sha256:12", "is no checkpoint's digest"),
        (RecallKind.DATASET, "d9", "no run logged a dataset"),
    ],
)
def test_what_does_not_exist_cannot_be_recalled(
    office: Office, kind: RecallKind, name: str, what: str
) -> None:
    with pytest.raises(BadRequest, match=what):
        office.recall(kind, name)
    with pytest.raises(BadRequest, match="is not recalled"):
        office.recall(kind, name, withdrawn=True)
    assert office.store.recalls() == ()


def test_a_withdrawal_is_a_word_of_its_own_and_the_tags_say_so(office: Office) -> None:
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b])
    office.recall(RecallKind.RUN, a.run.run_id)
    office.recall(RecallKind.RUN, b.run.run_id, reason="leaked")
    office.asked.clear()
    office.recall(RecallKind.RUN, a.run.run_id, reason="it was right", withdrawn=True)
    assert marked(office) == {"models:/birds/1": "leaked"}, "the other recall counts still"
    office.recall(RecallKind.RUN, b.run.run_id, reason="it was not", withdrawn=True)
    assert marked(office) == {"models:/birds/1": "withdrawn: it was not"}
    assert not recalled(office.store, office.tracker).checkpoints
    assert [word.withdrawn for word in office.store.recalls()] == [False, False, True, True]
    assert office.asked == []


def test_a_lineage_tells_which_versions_were_recalled_until_that_is_withdrawn(office: Office) -> None:
    a, b = office.logs("a", "b")
    soup = office.soup("ab", [a, b])
    office.recall(RecallKind.RUN, a.run.run_id)
    assert any(f"{soup.uri}, recalled: mislabelled" in line for line in tree(office.look(soup.uri)))
    office.recall(RecallKind.RUN, a.run.run_id, withdrawn=True)
    assert not any("recalled" in line for line in tree(office.look(soup.uri)))


def test_a_soup_that_was_registered_anew_under_the_same_number_is_reached(office: Office) -> None:
    """Its model was deleted, and the same request made it again."""
    a, b = office.logs("a", "b")
    office.soup("ab", [a, b])
    office.tracker.remove_model("birds")
    again = office.soup("ab", [a, b])
    assert again.uri == "models:/birds/1"
    assert [one.is_there for one in office.recall(RecallKind.RUN, a.run.run_id).versions] == [True]
    assert marked(office) == {again.uri: "mislabelled"}


@pytest.mark.parametrize(
    ("by", "reason", "fault"),
    [
        (" ", "why", "--by is empty"),
        ("ann", "\udcff", "no database takes"),
        ("ann", "withdrawn: a paper", "would say on versions that nothing is recalled"),
    ],
)
def test_who_recalls_and_why_are_said_in_words_that_can_be_kept(by: str, reason: str, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        calls.recall(RecallKind.RUN, "any", reason=reason, by=by)
