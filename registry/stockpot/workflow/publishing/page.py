"""The page of a registered version, in Markdown: what a person reads who decides whether to promote it."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    ModelVersion,
    OverlayRule,
    ReferenceRow,
    ReportRow,
    SoupReport,
)
from stockpot.errors import StockpotError, Unexpected
from stockpot.prose import listed
from stockpot.workflow.publishing.collisions_told import collision_tables
from stockpot.workflow.publishing.domains_told import (
    Row,
    domain_cells,
    domain_columns,
    domain_rows,
    domain_sentences,
)
from stockpot.workflow.publishing.markdown import MOST, folded, shown
from stockpot.workflow.publishing.verdict import (
    BESIDE_SCORES,
    cells,
    columns,
    interval,
    is_specialist,
    sentence,
    specialties,
)
from stockpot.workflow.selecting.by_domain import ROUTED
from stockpot.workflow.selecting.rows import GENERALIST, domain_of

if TYPE_CHECKING:
    from stockpot.ports import Watcher

Show = Callable[[ModelVersion], object]
"""Writes `PAGE` of a version that is new, or of which there is news."""
INGREDIENTS = "\n\n**Ingredients**\n"
"""Opens the last part of a version's description, which is cut where it is too long."""
LIMIT = 5000
"""Characters of a description that MLflow takes."""
ROOM = 3900
"""Characters. What is filled in or added later needs some."""
PAGE = "report.html"
"""The artifact of the soup's run that has room for everything: `stockpot.workflow.reporting`."""
GATE = "**The gate:** "
OF_THE_GATE = (900, 300, 100)
"""Characters of what it said: as many as fit."""
RUN_ID, VERSION = "{run_id}", "{version}"
"""Filled in when the soup's run and its version exist. No name holds them: braces are escaped."""


def try_to_show(show: Show, version: ModelVersion, watch: "Watcher") -> None:
    """Write the version's page. Nothing that is wrong with a page keeps a soup from its version, or an alias
    from moving: it is told, with the command that writes it.
    """
    try:
        show(version)
    except Exception as error:  # noqa: BLE001 - what nobody foresaw is no reason either
        told = error if isinstance(error, StockpotError) else Unexpected.of(error)
        mend = f"stockpot report {version.uri}"
        watch.say(f"{PAGE} of {version.uri} was not written: {told.what}. To write it: {mend}")


def description(
    report: SoupReport,
    row: ReportRow,
    ingredients: Sequence[Candidate],
    figure: str,
    requests: int = 1,
    *,
    experiment_id: str = "",
) -> str:
    """The verdict, what it is worth, how to load the model, a short table, a figure, the ingredients.

    `requests`: how many were made on this report split so far, this one included. `experiment_id`: of the
    soup's run, beside which `PAGE` lies. Ingredients that do not fit are counted. Links are
    relative to the page, so that they work wherever MLflow's UI is served. What is told of domains has its
    room before ingredients and notes; specialists of other domains are in `PAGE`.
    """
    request = report.request
    uri = f"models:/{_literal(request.model)}/{VERSION}"
    splits = [s for s in (request.select_on, request.report_on, MEAN_OF_SHIFTS) if s in row.scores]
    links = partial(_ingredient_links, ingredients)
    before = [
        f"**{shown(sentence(row, request.report_on, report.unit), most=ROOM // 4)}.**",
        " ".join(filter(None, (_standing(row), _count(requests, request.report_on)))),
        " ".join(filter(None, (_origin(report, row), _merging(ingredients)))),
        f'Load it: `mlflow.pyfunc.load_model("{uri}")`',
        _table(report, [one for one in report.table if _concerns(one, row)], splits, spaced),
    ]
    after = [
        f"![candidates and soups](get-artifact?path={figure}&run_uuid={RUN_ID})",
        _beside(report),
        f"{_whole_page(experiment_id)}`stockpot show {uri}`, and stockpot.json beside the weights.",
    ]
    room = ROOM - sum(len(part) + 2 for part in (*before, *after, INGREDIENTS, links(room=ROOM // 12)))
    few = [one for one in domain_rows(report) if one in (report.base, report.rows[0], row) or _answers(one)]
    by_domain, words = domains_in_markdown(report, spaced, few)
    costs = collisions_in_markdown(report, spaced).partition("\n\n")[0]  # on the report split
    *told, by_domain, notes, costs = _that_fit(
        [*words.splitlines(), by_domain, _notes(report, spaced), costs], room
    )
    parts = [*before, notes, *after[:1], by_domain, "\n".join(filter(None, told)), costs, *after[1:]]
    text = "\n\n".join(filter(None, parts)) + INGREDIENTS
    return text + links(room=ROOM - len(text))


def _concerns(one: Row, row: ReportRow) -> bool:
    """Whether a line of the table has a place on the row's page: all but specialists of other domains, and
    what the words on domains tell.
    """
    if isinstance(one, ReferenceRow):
        return one.label == ROUTED
    return one is row or not (isinstance(one, ReportRow) and is_specialist(one))


def _answers(one: Row) -> bool:
    """Whether a line is the generalist, or the specialists together."""
    return one.label == ROUTED or (isinstance(one, ReportRow) and GENERALIST in one.methods)


def _that_fit(parts: Sequence[str], room: int) -> list[str]:
    """Each that fits behind those before it, or nothing in its place: `PAGE` has room for it."""
    kept = []
    for part in parts:
        fits = len(part) + 2 <= room
        room -= len(part) + 2 if fits else 0
        kept.append(part if fits else "")
    return kept


def _whole_page(experiment_id: str) -> str:
    if not experiment_id:
        return "More: "
    return f"[Everything else]({_run_page(experiment_id, RUN_ID)}/artifacts/{PAGE}): {PAGE}. Also: "


def _run_page(experiment_id: str, run_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def with_word_of_the_gate(text: str, told: str) -> str:
    """A description, with what the gate said behind the verdict, in place of what it said before. Where a
    person wrote another one, that follows as it is. Nothing gives way to it: where there is little room it is
    cut, and where there is none left out, since a tag tells it, too.
    """
    kept = [part for part in text.split("\n\n") if not part.startswith(GATE)] if text else []
    ours = sum(part.startswith("**") for part in kept[:1])
    for most in OF_THE_GATE:
        whole = "\n\n".join([*kept[:ours], f"{GATE}{shown(told, most)}", *kept[ours:]])
        if len(whole) <= LIMIT:
            return whole
    return "\n\n".join(kept)


def markdown_table(report: SoupReport, splits: Sequence[str], cell: Callable[[str, int], str] = shown) -> str:
    """The table for a page that shows Markdown, and what is missing from it.

    `cell`: what is made of a text of at most so many characters; `folded` for a terminal, `spaced` for
    MLflow's UI.
    """
    return "\n\n".join(filter(None, (_table(report, report.table, splits, cell), _notes(report, cell))))


def _table(
    report: SoupReport, rows: Sequence[Row], splits: Sequence[str], cell: Callable[[str, int], str]
) -> str:
    request = report.request
    head = ["", *BESIDE_SCORES, *splits, f"gain on {request.report_on}"]
    lines = [_line(head, cell), "|" + "---|" * len(head)]
    for row in rows:
        comparison = row.versus_best.get(request.report_on)
        gained = interval(comparison, report.unit) if comparison else ""
        lines.append(_line([*cells(row, splits, report.unit), gained], cell))
    return "\n".join(lines)


def _notes(report: SoupReport, cell: Callable[[str, int], str]) -> str:
    return "\n".join(f"- {cell(note, ROOM // 8)}" for note in report.notes)


def domains_in_markdown(
    report: SoupReport, cell: Callable[[str, int], str] = shown, rows: Sequence[Row] | None = None
) -> tuple[str, str]:
    """The table by domain, of all rows or of these, and its words; both empty where there are not several."""
    domains = domain_columns(report)
    if not domains:
        return "", ""
    head = [f"{report.request.report_on}, by domain", *domains]
    lines = [_line(head, cell), "|" + "---|" * len(head)]
    lines += [_line(domain_cells(row, report), cell) for row in rows or domain_rows(report)]
    return "\n".join(lines), "\n".join(f"- {cell(told, ROOM // 8)}" for told in domain_sentences(report))


def collisions_in_markdown(report: SoupReport, cell: Callable[[str, int], str] = shown) -> str:
    """What leaving out each domain's runs does, of the report split and the held-out one; empty where the
    request does not compare all.
    """
    tables = []
    for table in collision_tables(report):
        lines = [_line(table.head, cell), "|" + "---|" * len(table.head)]
        lines += [_line([domain, *cells], cell) for domain, cells in table.lines]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def tables_in_markdown(report: SoupReport, cell: Callable[[str, int], str] = shown) -> list[str]:
    """All that a report tells in tables, and in words by domain: each part that is not empty."""
    parts = (
        markdown_table(report, columns(report.request), cell),
        *domains_in_markdown(report, cell),
        collisions_in_markdown(report, cell),
    )
    return [part for part in parts if part]


def spaced(text: str, most: int) -> str:
    """A cell for MLflow's UI, which leaves no space between columns, and breaks lines within intervals."""
    told = shown(text, most)
    return f"{told if any(map(str.isalpha, told)) else told.replace(' ', '&nbsp;')}&emsp;"


def _line(texts: Sequence[str], cell: Callable[[str, int], str]) -> str:
    return "| " + " | ".join(cell(text, MOST) for text in texts) + " |"


def _standing(row: ReportRow) -> str:
    """Which comparison was declared, and so proves something."""
    if not row.recipe.is_soup:
        return ""
    if GENERALIST in row.methods:
        return "This is the primary comparison: it was declared before anything was measured."
    return "This is a secondary comparison: the declared one is that of the greedy soup."


def _count(requests: int, split: str) -> str:
    """Whoever looks often enough finds something."""
    if requests < 2:
        return ""
    tail = "th" if requests % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(requests % 10, "th")
    return (
        f"It is the {requests}{tail} request on split {shown(split)}: "
        "each one makes a find by chance likelier."
    )


def _origin(report: SoupReport, row: ReportRow) -> str:
    if not row.recipe.is_soup and (domains := specialties(row)):
        searches = [s for s in report.selections if domain_of(s.method) in domains]
        tried = any(len(step.tried) > 1 for search in searches for step in search.steps)
        return (
            f"One run as it was logged: the best run of {shown(listed(domains), ROOM // 8)}, by its own "
            "held-out examples. "
            + ("Averaging it with others did not help there." if tried else "No average was tried there.")
        )
    if not row.recipe.is_soup:
        return "One fine-tuned model as it was logged: the best of the sweep on the held-out split."
    if row.recipe.coefficients is not None:
        models, by = len(row.recipe.ingredients) - 1, shown(" and ".join(row.methods))
        return (
            f"The average of {models} fine-tuned models and the base that they started from, by {by}: each "
            "tensor has coefficients of its own, which the angles between the models' updates tell, and no "
            "score."
        )
    rule = next((s.rule for s in report.selections if s.method in row.methods and s.rule), "")
    laid = row.recipe.overlay
    anew = f" Its BatchNorm has {shown(str(laid))}, estimated anew." if isinstance(laid, OverlayRule) else ""
    groups, averaged = row.recipe.groups, f"{len(row.recipe.ingredients)} fine-tuned models"
    if groups is not None:
        averaged += f" in {len(groups)} groups, each of which counts the same"
    return (
        f"The average of {averaged}, selected by "
        f"{shown(' and '.join(row.methods))}{f' ({shown(rule)})' if rule else ''} on split "
        f"{shown(report.request.select_on)}.{anew}"
    )


def _beside(report: SoupReport) -> str:
    """What the figure's second half shows, where it has one."""
    if report.curve is None:
        return ""
    return (
        f"On the right: interpolations between the base and the {shown(report.curve.label)} (WiSE-FT), on "
        "splits that are not reported. It chose nothing."
    )


def _merging(ingredients: Sequence[Candidate]) -> str:
    """What became of adapters."""
    bases = [candidate.source.base for candidate in ingredients]
    places = dict.fromkeys(base.path.rpartition("/")[0] for base in bases if base is not None)
    if not places:
        return ""
    who = "They" if None not in bases else "Some"
    names = shown(" and ".join(places), most=ROOM // 8)
    return (
        f"{who} were logged as LoRA adapters, each merged into the base {names} before any average: this "
        "version is the merged model, and needs no adapter beside it."
    )


def _literal(name: str) -> str:
    """A model's name between backticks, where nothing is escaped. Braces go: they would be filled in."""
    return folded(re.sub("[`{}]", "", name), most=ROOM // 8)


def _ingredient_links(ingredients: Sequence[Candidate], room: int) -> str:
    lines: list[str] = []
    for place, candidate in enumerate(ingredients):
        run = candidate.run
        name = shown(run.name)
        linked = f"[{name}]({_run_page(run.experiment_id, run.run_id)})"
        line = f"- {linked if run.experiment_id else f'{name}, the base'}\n"
        if room < len(line):
            lines.append(f"- and {len(ingredients) - place} more, in stockpot.json\n")
            break
        room -= len(line)
        lines.append(line)
    return "".join(lines)
