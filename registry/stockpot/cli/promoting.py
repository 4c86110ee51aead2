"""Commands about the alias that people rely on."""

from pathlib import Path
from typing import Annotated

import typer

from stockpot import calls
from stockpot.cli.options import Json
from stockpot.cli.terminal import add_row, echo, new_table, out, plain, print_heading
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.entities import Decision, GateVerdict

commands = typer.Typer()

Version = Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS", metavar="URI")]
PoliciesFile = Annotated[
    Path | None,
    typer.Option(
        "--policies", help="File of policies; STOCKPOT_POLICIES, else policies.toml in STOCKPOT_HOME."
    ),
]


@commands.command(epilog="Example: stockpot gate models:/birds@candidate")
def gate(uri: Version, *, policies: PoliciesFile = None, as_json: Json = False) -> None:
    """Judge a version by its model's policy, against the champion. Moves nothing; exit code 11: it fails."""
    decision = watched(lambda watch: calls.gate(uri, policies=policies, watch=watch))
    if as_json:
        echo({**to_document(decision), "verdict": decision.verdict})
    else:
        _show(decision)
    decision.require_passed()


@commands.command(epilog="Example: stockpot promote models:/birds/7 --to champion --reason 'better in fog'")
def promote(
    uri: Version,
    *,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the trail.")],
    to: Annotated[str | None, typer.Option(help="The alias; that of the policy, which guards one.")] = None,
    override: Annotated[str, typer.Option(help="Why it is to move although checks fail.")] = "",
    by: Annotated[
        str | None, typer.Option(help="Who asks; by default as git or the system tells, with the host.")
    ] = None,
    policies: PoliciesFile = None,
    as_json: Json = False,
) -> None:
    """Judge a version, and move the alias to it where it passes. Exit code 11: it fails, nothing moved."""
    done = watched(
        lambda watch: calls.promote(
            uri, reason=reason, to=to, override=override, by=by, policies=policies, watch=watch
        )
    )
    if as_json:
        verdict = {"verdict": done.decision.verdict} if done.decision else {}
        echo({**to_document(done), **verdict, "told": done.told})
    else:
        if done.decision is not None:
            _show(done.decision)
        out.print(plain(done.told), soft_wrap=True)
    done.require_moved()


def _show(decision: Decision) -> None:
    against = decision.champion.uri if decision.champion else "nobody"
    print_heading(decision.version.uri, f" against {against}, for {decision.alias}: {decision.verdict}")
    table = new_table("check", "", "why")
    for check in decision.checks:
        add_row(table, check.name, check.outcome, check.told)
    for column in table.columns:
        column.justify = "left"
    out.print(table)
    if decision.verdict is GateVerdict.OVERRIDDEN:
        out.print(plain(f"overridden: {decision.override}"), soft_wrap=True)
