"""The rows of the table of ratios, each with what it is measured against and its goal."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Goal:
    """What the median shall be at most, or at least."""

    sign: Literal["<=", ">="]
    limit: float
    unit: str = "x"

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g} {self.unit}"

    def met(self, figure: float) -> bool:
        """Whether this figure reaches it."""
        return figure <= self.limit if self.sign == "<=" else figure >= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table. Without figures it was not measured, and the note says why."""

    work: str
    reference: str
    goal: Goal | str
    """Words where nothing is to be reached here."""
    figures: tuple[float, ...]
    unit: str
    note: str = ""

    @property
    def key(self) -> str:
        """What names the same row in another run."""
        return f"{self.work} | {self.reference}"

    @property
    def median(self) -> float:
        """Of its figures."""
        return statistics.median(self.figures)

    @property
    def over(self) -> bool:
        """Whether it was measured and misses its goal."""
        return bool(self.figures) and isinstance(self.goal, Goal) and not self.goal.met(self.median)

    def line(self, kept: float | None = None) -> str:
        """As a line of Markdown, beside the median that a release had."""
        measured, spread = "", ""
        if self.figures:
            measured = f"{_shown(self.median)} {self.unit}"
        if len(self.figures) > 1:
            spread = f"{_shown(min(self.figures))} to {_shown(max(self.figures))}"
        before = "" if kept is None else _shown(kept)
        note = "; ".join(filter(None, ("**MISSES ITS GOAL**" if self.over else "", self.note)))
        cells = (self.work, self.reference, str(self.goal), measured, spread, before, note)
        return f"| {' | '.join(cells)} |"

    def document(self) -> dict[str, Any]:
        """For the file that is kept of a release."""
        return {
            "work": self.work,
            "against": self.reference,
            "goal": str(self.goal),
            "unit": self.unit,
            "median": self.median if self.figures else None,
            "figures": list(self.figures),
            "over": self.over,
            "note": self.note,
        }


def head(version: str | None) -> str:
    """The table's first two lines; the release that it is compared with, if there is one."""
    kept = f"{version} had" if version else "no release kept"
    return f"| work | against | goal | median | spread | {kept} | remarks |\n|---|---|---|---|---|---|---|"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Turn by turn."""
    return tuple(mine / other for mine, other in zip(ours, theirs, strict=True))


def _shown(figure: float) -> str:
    assert math.isfinite(figure), figure
    return f"{figure:.0f}" if figure == int(figure) else f"{figure:.2f}"
