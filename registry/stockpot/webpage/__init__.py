"""A version's page as one HTML file: it needs no other file, no network and no script.

It is read in MLflow's artifact viewer, which shows it in a frame that may neither leave nor open windows, and
as a file that somebody was sent. Names of runs, splits and models are strangers' texts: jinja2 escapes each,
after it was folded into one line, and the page's own policy forbids a browser to run or fetch anything.
"""

import base64
import shlex
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from stockpot.entities import MEAN_OF_SHIFTS, short
from stockpot.prose import minute
from stockpot.soup import CONVERSION, RUN_IDS
from stockpot.webpage import figures
from stockpot.workflow.publishing import collisions_told, domains_told, verdict
from stockpot.workflow.publishing.markdown import folded
from stockpot.workflow.reporting.version_page import VersionPage
from stockpot.workflow.selecting import rows

TEMPLATE = "report.html.jinja"
MOST = 400
"""Characters that are shown of any one text."""
NAME = 48
"""Of a name in a table."""


def render(page: VersionPage, figure: bytes) -> str:
    """The page, with the figure of candidates and soups as PNG bytes. The same page is the same text."""
    unit = page.report.unit
    return _template().render(
        page=page,
        report=page.report,
        request=page.report.request,
        row=page.row,
        uri=page.version.uri,
        image=Markup(base64.b64encode(figure).decode()),  # noqa: S704 - letters, digits and three marks
        unit="points" if unit is None else unit,
        columns=verdict.columns(page.report.request),
        compared=[
            split
            for split in verdict.columns(page.report.request)
            if any(split in row.versus_best for row in page.report.table)
        ],
        mean_of_shifts=MEAN_OF_SHIFTS,
        word=verdict,
        protocol=next(iter(page.report.protocols), None),
        trajectories=[(one, figures.trajectory(one, unit)) for one in page.searches],
        heat=figures.heat(page, unit),
        by_domain=figures.by_domain(page.report),
        domain_columns=domains_told.domain_columns(page.report),
        domains_told=list(domains_told.domain_sentences(page.report)),
        not_dominated=domains_told.NOT_DOMINATED,
        not_dominated_is=domains_told.NOT_DOMINATED_IS,
        front=figures.front(page.report),
        collisions=collisions_told.collision_tables(page.report),
        costs_are=collisions_told.COSTS_ARE,
        conversion=CONVERSION,
        pickled=_lines_that_convert(page),
        bars=figures.bars(page),
        sentence=verdict.clause(page.row, page.report.request.report_on, unit),
        judged=verdict.judge(page.row, page.report.request.report_on).value,
        whom=verdict.whom(page.row),
        gains=verdict.gains(page.row, page.report),
        deciding=len(verdict.specialties(page.row)) if verdict.is_specialist(page.row) else 1,
        reasons=[] if verdict.is_specialist(page.row) else list(verdict.reasons(page.report)),
        **_words(unit),
    )


def _words(unit: str | None) -> dict[str, Callable[..., object]]:
    """What turns numbers into text, in the unit of the scores."""
    return {
        "score": partial(rows.score, unit=unit),
        "signed": partial(verdict.signed, unit=unit),
        "difference": partial(verdict.difference, unit=unit),
        "interval": partial(verdict.interval, unit=unit),
        "cells": partial(verdict.cells, unit=unit),
    }


@cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(lambda name: files(__name__).joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": partial(folded, most=NAME),
        "short": short,
        "setting": _setting,
        "when": minute,
        "shell": lambda text: shlex.quote(folded(text, MOST)),
        "python": lambda text: repr(folded(text, MOST)),
    }
    return environment.get_template(TEMPLATE)


def _lines_that_convert(page: VersionPage) -> Markup:
    """Several lines, which people copy; empty where no run was left out for a pickle."""
    runs = [f'"{one.run_id}"' for one in page.report.exclusions if one.mend == CONVERSION]
    return escape(CONVERSION.replace(RUN_IDS, ", ".join(runs))) if runs else Markup("")


def _setting(text: str) -> str:
    """Of a number so many digits as people read."""
    try:
        shortened = f"{float(text):.6g}"
    except ValueError:
        return folded(text, NAME)
    return shortened if len(shortened) < len(text) else text


def _text(value: object) -> object:
    """In one line, and no longer than anybody reads; what the template itself made stays."""
    return folded(value, MOST) if isinstance(value, str) and not isinstance(value, Markup) else value
