"""Which finished sweeps become soups, and of which kind: one TOML file."""

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, date, datetime, time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from stockpot.entities import SoupRequest, digest_of_document
from stockpot.errors import BadRequest, StockpotError
from stockpot.prose import can_be_kept, listed, near

EXAMPLE = """\
budget_per_day = 20             # jobs that these rules ask for within 24 hours

[[rule]]
name = "birds"
experiments = ["birds-*"]       # names of experiments, with * and ?
filter = "tags.stage = 'final'" # of parent runs, as MLflow writes it; may be left out
alias = "soup-this"             # a version of the model with this alias, also of another one
                                # ("other@soup-this"), asks for the sweep of its run, of any age
since = 2026-11-01              # when sweeps ended; from the first scan on where it is left out
partial_after_hours = 24        # then the finished runs of an unfinished sweep are averaged

[rule.request]                  # fields of stockpot.SoupRequest
model = "birds"
task = "arrays"
task_args = { data = "/data/birds.npz", model = "birds.net:make" }
"""
OF_FILE = {"budget_per_day", "rule"}
OF_RULE = {
    *("name", "experiments", "filter", "alias"),
    *("only_tagged", "since", "partial_after_hours", "request"),
}
ALIAS = re.compile(r"([^/@]+@)?[\w-]+", re.ASCII)
OF_SWEEP = {"sweep", "experiment", "filter"}
BY_A_PERSON = {"again", "verify_exact"}
"""A scan would register what somebody has deleted."""
"""Fields of a request that a scan fills in."""
PLACEHOLDER = "0" * 32
"""A sweep, so that a request can be tried."""


@dataclass(frozen=True)
class Rule:
    """Which sweeps, and what is made of them."""

    name: str
    experiments: tuple[str, ...]
    """Patterns of names, with * and ?."""
    request: Mapping[str, Any]
    """Fields of the request, but for the sweep."""
    filter: str | None = None
    """An MLflow filter over parent runs."""
    alias: str | None = None
    """Of the model that is registered, or ``NAME@ALIAS``: a version that has it asks for its run's sweep."""
    only_tagged: bool = False
    """Only parents that carry the tag `stockpot.soup`, or that such a version asks for."""
    since: float | None = None
    """Sweeps that ended before, in seconds since the epoch, are left alone; None: before the first scan."""
    partial_after_hours: float | None = None
    """How long nothing begins or ends in an unfinished sweep until its finished runs are averaged."""

    @property
    def awaited(self) -> str | None:
        """The URI of the version that has the alias, where there is one in the rule."""
        if self.alias is None:
            return None
        return (
            f"models:/{self.alias}" if "@" in self.alias else f"models:/{self.request['model']}@{self.alias}"
        )

    def covers(self, experiment: str) -> bool:
        """Whether the experiment of this name is the rule's."""
        return any(fnmatchcase(experiment, pattern) for pattern in self.experiments)

    def request_for(self, sweep: str, *, partial: bool = False) -> SoupRequest:
        """What is asked for where it is about this sweep. `partial`: although runs of it are unfinished."""
        asked = {**self.request, "sweep": sweep}
        return SoupRequest(**asked | ({"partial": True} if partial else {}))


@dataclass(frozen=True)
class Rules:
    """All rules of a file, in its order: the first that matches a sweep is the sweep's."""

    file: Path
    rules: tuple[Rule, ...]
    budget_per_day: int | None = None
    """How many jobs scans may ask for within 24 hours."""

    @property
    def names(self) -> list[str]:
        """In the file's order. In one store, rules of one name are one rule."""
        return [rule.name for rule in self.rules]

    @property
    def lease(self) -> str:
        """The name of the lease of their scan. Scans by other rules need not wait for it."""
        return f"scan {digest_of_document(sorted(self.names))}"

    def named(self, name: str) -> Rule | None:
        """The rule of this name."""
        return next((rule for rule in self.rules if rule.name == name), None)


def read_rules(file: Path) -> Rules:
    """Read a file of rules. Raises BadRequest, naming all faults of all rules at once, each with its rule."""
    mend = f"write it, or name another one: --rules FILE, or STOCKPOT_RULES. For example:\n\n{EXAMPLE}"
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(f"the rules {file} cannot be read: {error.strerror}", mend=mend) from error
    except (ValueError, RecursionError) as error:  # no TOML, or no text
        raise BadRequest(f"the rules {file} are no TOML: {error}", mend="mend that line") from error
    reading = _Reading()
    found = reading.rules(document)
    if reading.faults:
        raise BadRequest(
            f"the rules {file} cannot be used",
            faults=reading.faults,
            mend=f"mend the file, then try it: stockpot rules check --rules {file}",
        )
    return Rules(file, found, document.get("budget_per_day"))


def rule_named_by(tag: str, rules: Rules) -> Rule | str | None:
    """The rule that a parent's tag `stockpot.soup` names: by JSON with ``rule``, or by nothing but a rule's
    name. A text says what is wrong; None where the tag names no rule.
    """
    name: object = tag
    if tag.lstrip().startswith("{"):
        try:
            named = json.loads(tag)
        except (ValueError, RecursionError) as error:
            return f"its tag stockpot.soup is no JSON: {error}"
        name = named.get("rule")
        if name is None:
            return None
        if not isinstance(name, str) or rules.named(name) is None:
            return f"its tag stockpot.soup names the rule {name!r}; there are {listed(rules.names)}"
    return rules.named(str(name))


@dataclass
class _Reading:
    """Gathers what is wrong, where."""

    faults: list[str] = field(default_factory=list)

    def rules(self, document: Mapping[str, Any]) -> tuple[Rule, ...]:
        self._know(document, OF_FILE, "")
        budget = document.get("budget_per_day")
        if budget is not None and not (_is_number(budget) and isinstance(budget, int) and budget >= 0):
            self.faults.append(f"budget_per_day must be a whole number of jobs, got {budget!r}")
        tables = document.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.faults.append("rule must be written as a list of tables: [[rule]]")
            tables = []
        elif not tables:
            self.faults.append("there is no rule: write one below [[rule]]")
        found = [self._rule(number, table) for number, table in enumerate(tables, start=1)]
        names = [rule.name for rule in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        self.faults += [f"two rules have the name {name!r}" for name in twice]
        return tuple(found)

    def _rule(self, number: int, table: Mapping[str, Any]) -> Rule:
        name = table.get("name")
        named = isinstance(name, str) and bool(name.strip()) and can_be_kept(name)
        where = f"rule {name!r}: " if named else f"rule {number}: "
        if not named:
            self.faults.append(f"{where}name must be a text, got {name!r}")
        self._know(table, OF_RULE, where)
        experiments = table.get("experiments")
        if isinstance(experiments, str):
            experiments = [experiments]
        if not experiments or not _are_texts(experiments):
            self.faults.append(f"{where}experiments must be a list of names or patterns, got {experiments!r}")
            experiments = []
        condition = table.get("filter")
        if condition is not None and not isinstance(condition, str):
            self.faults.append(f"{where}filter must be a text, got {condition!r}")
        alias = table.get("alias")
        if alias is not None and not (isinstance(alias, str) and ALIAS.fullmatch(alias)):
            self.faults.append(f"{where}alias must be ALIAS or MODEL@ALIAS, got {alias!r}")
        tagged = table.get("only_tagged", False)
        if not isinstance(tagged, bool):
            self.faults.append(f"{where}only_tagged must be true or false, got {tagged!r}")
        hours = table.get("partial_after_hours")
        if hours is not None and not (_is_number(hours) and hours > 0):
            self.faults.append(f"{where}partial_after_hours must be a positive number, got {hours!r}")
        return Rule(
            name=str(name),
            experiments=tuple(experiments),
            request=self._request(table.get("request"), where),
            filter=condition,
            alias=alias,
            only_tagged=bool(tagged),
            since=self._since(table.get("since"), where),
            partial_after_hours=hours,
        )

    def _request(self, table: object, where: str) -> Mapping[str, Any]:
        if not isinstance(table, dict):
            self.faults.append(f"{where}there is no [rule.request], with at least model and task")
            return {}
        known = {field.name: field for field in fields(SoupRequest)}
        within = f"{where}request: "
        taken = sorted(OF_SWEEP & table.keys())
        self.faults += [f"{within}{name} is the sweep's: the scan fills it in" for name in taken]
        self.faults += [
            f"{within}{name} is for a person to ask, once: leave it out"
            for name in sorted(BY_A_PERSON & table.keys())
        ]
        unknown = self._know(table, known.keys(), within)
        needed = [name for name, one in known.items() if one.default is one.default_factory is MISSING]
        missing = [name for name in needed if name not in table]
        self.faults += [f"{within}{name} is missing" for name in missing]
        if not unknown and not missing and not taken:
            try:
                SoupRequest(**{**table, "sweep": PLACEHOLDER})
            except StockpotError as error:
                self.faults.append(f"{within}{error.what}")
        return table

    def _since(self, given: object, where: str) -> float | None:
        try:
            return None if given is None else _moment(given).timestamp()
        except (TypeError, ValueError, OverflowError):
            self.faults.append(f"{where}since must be a date such as 2026-11-01, got {given!r}")
            return None

    def _know(self, table: Mapping[str, Any], known: Collection[str], where: str) -> bool:
        """Whether there are keys that nobody knows."""
        unknown = [name for name in table if name not in known]
        self.faults += [f"{where}{name} is unknown{near(name, known)}" for name in unknown]
        return bool(unknown)


def _moment(given: object) -> datetime:
    if isinstance(given, str):
        given = datetime.fromisoformat(given)
    if isinstance(given, datetime):
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    if isinstance(given, date):
        return datetime.combine(given, time(), UTC)
    raise TypeError


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and value for value in values)
