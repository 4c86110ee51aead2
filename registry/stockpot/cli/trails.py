"""Commands about aliases that moved: a look at them, and what is on record."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stockpot import calls
from stockpot.cli.options import Json
from stockpot.cli.terminal import add_row, echo, new_table, out, plain, print_heading
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.entities import Seen, TrailEntry, TrailKind, WatchEvent
from stockpot.prose import counted, one_line
from stockpot.workflow.promotion.auditing import Audited, require_whole
from stockpot.workflow.promotion.watching import sentence
from stockpot.workflow.selecting.rows import score

if TYPE_CHECKING:
    from stockpot.workflow.promotion.asking import Answered

commands = typer.Typer()


@commands.command(epilog="Example: stockpot watch")
def watch(
    *,
    gate: Annotated[
        bool, typer.Option("--gate", help="Then let the gate answer what people asked for in MLflow.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at the aliases of all models once, and write down what moved since somebody looked last."""
    answered: tuple[Answered, ...] = ()
    if gate:
        found, answered = watched(lambda told: calls.answer(watch=told))
    else:
        found = watched(lambda told: calls.watch(watch=told))
    if as_json:
        echo({**to_document(found), **({"answered": [to_document(one) for one in answered]} if gate else {})})
        return
    print_heading(sentence(found))
    for entry in found.entries:
        out.print(plain(one_line(f"{entry.model}: {told_of(entry)}")), soft_wrap=True)
    for told in (*found.notes, *(one.told for one in answered)):
        out.print(plain(f"- {one_line(told)}"), soft_wrap=True)


@commands.command(epilog="Example: stockpot audit birds --verify")
def audit(
    model: Annotated[str, typer.Argument(help="The registered model's name.", metavar="MODEL")],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hold the record against its digests and MLflow's tag, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell who moved which alias of a model, when and why, what the gate said, and when nobody looked."""
    found = watched(lambda told: calls.audit(model, verify=verify, watch=told))
    if as_json:
        echo([to_document(one) for one in found])
    else:
        for one in found:
            _show(one)
    require_whole(found)


def _show(one: Audited) -> None:
    gone = "" if one.here else ", which is not there any more"
    number = counted(len(one.entries), "entry", "entries")
    print_heading(one.model, f", made {_when(one.born / 1000)} UTC{gone}: {number}")
    table = new_table("", "at (UTC)", "kind", "by", "what", "why")
    for entry in one.entries:
        add_row(table, str(entry.number), _when(entry.at), entry.kind, entry.by, told_of(entry), entry.reason)
    for column in table.columns:
        column.justify = "left"
    out.print(table)
    if one.verification is not None:
        out.print(plain(one_line(one.verification.sentence)), soft_wrap=True)


def told_of(entry: TrailEntry) -> str:
    """What happened, in a clause."""
    fact = entry.fact
    if entry.kind is TrailKind.MOVE:
        return _move(fact)
    if entry.kind is TrailKind.WATCH:
        return _watching(fact)
    if entry.kind is TrailKind.DECISION and {"version", "champion", "checks"} <= fact.keys():
        return _decision(fact)
    plainly = {name: value for name, value in fact.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{name} {value}" for name, value in plainly.items())


def _move(fact: Any) -> str:
    before = f"version {fact['before']}" if fact["before"] else "nothing"
    after = f"version {fact['after']}" if fact["after"] else "nothing"
    clauses = [f"{fact['alias']}: {before} -> {after}"]
    if fact["deleted"]:
        clauses.append(f"{before} was deleted")
    if fact["ours"] is False:
        clauses.append("not made by Stockpot")
    if fact["unwatched_since"] is not None:
        clauses.append(f"at some time since {_when(fact['unwatched_since'])}")
    known = "moved by Stockpot" if fact["seen"] == Seen.PROMOTE else f"seen by {fact['seen']}"
    return ", ".join([*clauses, known])


def _decision(fact: Any) -> str:
    against = fact["champion"]["uri"] if fact["champion"] else "nobody"
    failed = [f"{check['name']}: {check['told']}" for check in fact["checks"] if check["outcome"] == "failed"]
    before = {one["split"]: one["value"] for one in (fact["champion"] or {"scores": ()})["scores"]}
    scores = [
        f"{one['split']} {_score(one['value'], fact)}"
        + (f" after {_score(before[one['split']], fact)}" if one["split"] in before else "")
        for one in fact["version"]["scores"]
    ]
    clauses = [f"{fact['version']['uri']} against {against}, for {fact['alias']}: {fact['verdict']}"]
    clauses += [*failed, *scores]
    return "; ".join([*clauses, *([f"overridden: {fact['override']}"] if fact["override"] else [])])


def _score(value: float | str, decision: Any) -> str:
    """As the gate told it. Documents tell NaN and infinities as texts."""
    return value if isinstance(value, str) else score(value, decision.get("unit"))


def _watching(fact: Any) -> str:
    if fact["event"] == WatchEvent.UNWATCHED:
        return f"nobody looked from {_when(fact['since'])} to {_when(fact['until'])}"
    other = f" {fact['other']}" if fact["other"] else ""
    if fact["event"] == WatchEvent.GONE:
        return f"renamed to{other}" if other else "the model is gone: deleted, or not to be seen"
    aliases = ", ".join(f"{alias} is version {version}" for alias, version in sorted(fact["aliases"].items()))
    return f"watching began{f', the model was called{other}' if other else ''}: {aliases or 'no alias'}"


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
