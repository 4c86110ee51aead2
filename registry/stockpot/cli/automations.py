"""The command that prepares a Prefect server."""

import typer

from stockpot.cli import terminal
from stockpot.cli.options import Json


def add_to(app: typer.Typer) -> None:
    """Add it to the program."""
    app.command(epilog="Example: stockpot automations")(automations)


def automations(as_json: Json = False) -> None:  # noqa: FBT002 - typer reads flags from keyword defaults
    """Let Prefect end the runs of processes that are gone, and tell how to deploy the flows."""
    from stockpot_flows.deployments import deploy_command, deployments_file
    from stockpot_flows.server import require_server

    address = require_server()  # before what takes seconds to import
    from stockpot_flows.automations import apply_automations

    applied = apply_automations(address)
    lines = [f"{each.name}: {each.did}" for each in applied]
    terminal.tell(
        {
            "automations": [{"name": each.name, "did": each.did} for each in applied],
            "deployments": str(deployments_file()),
        },
        "\n".join([*lines, f"To deploy the flows: {deploy_command()}"]),
        as_json=as_json,
    )
