"""Versions that ask for the sweep of their run, by an alias that a rule names."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities.tags import RECIPE
from stockpot.errors import BadRequest, NotPermitted
from stockpot.workflow.scanning.forest import Forest
from stockpot.workflow.scanning.rules import Rule, Rules

if TYPE_CHECKING:
    from stockpot.ports import Tracker


@dataclass(frozen=True)
class AliasedVersion:
    """A version, of whichever registered model, that has the alias of a rule."""

    rule: Rule
    uri: str
    """The version's."""
    run_id: str
    """Of the run that it comes from."""

    @property
    def told(self) -> str:
        """In a clause."""
        return f"{self.rule.awaited} is {self.uri}"


def aliased_versions(rules: Rules, tracker: "Tracker") -> tuple[list[AliasedVersion], list[str]]:
    """Those of these rules, in their order, and what is to be said; one question for each rule with an alias.
    A soup asks for nothing: its sweep has one.
    """
    found: list[AliasedVersion] = []
    notes: list[str] = []
    for rule in rules.rules:
        if rule.awaited is None:
            continue
        try:
            version = tracker.version(rule.awaited)
        except BadRequest:  # nobody has given it so far
            continue
        except NotPermitted as error:
            notes.append(f"rule {rule.name!r}: {error.what}")
            continue
        if version.run_id is not None and RECIPE not in version.tags:
            found.append(AliasedVersion(rule, version.uri, version.run_id))
    return found, notes


def by_sweep(versions: Iterable[AliasedVersion], forest: Forest) -> dict[str | None, AliasedVersion]:
    """The first of these versions for each sweep, by its parent's id; None: of a run that is not here."""
    found: dict[str | None, AliasedVersion] = {}
    for version in versions:
        found.setdefault(forest.root(version.run_id), version)
    return found
