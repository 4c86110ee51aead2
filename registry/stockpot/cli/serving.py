"""The command that receives MLflow's webhooks."""

from typing import TYPE_CHECKING, Annotated

import typer

from stockpot.cli import terminal
from stockpot.cli.options import Json
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.ports import Watcher
from stockpot.prose import listed

if TYPE_CHECKING:
    from stockpot.tracking.mlflow_webhooks import Subscription


def add_to(app: typer.Typer) -> None:
    """Add it to the program."""
    app.command(epilog="Example: stockpot serve --port 4300")(serve)


def serve(
    *,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 4300,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Have MLflow deliver to this address, and end: make its webhook, or bring it up to date.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="With --register: the webhook's name in MLflow.")] = "stockpot",
    as_json: Json = False,
) -> None:
    """Receive MLflow's webhooks, so that a moved alias is noticed at once. Scheduled looks find it anyway."""
    from stockpot import serving

    if register is not None:
        _show(serving.register(register, name), as_json=as_json)
        return

    def ready(url: str) -> None:
        terminal.tell({"url": url}, f"MLflow's webhooks are received at {url}", as_json=as_json)

    def served(watch: Watcher) -> None:
        serving.serve(host, port, ready=ready, say=watch.say)

    watched(served)


def _show(made: "Subscription", *, as_json: bool) -> None:
    lines = [
        f"the webhook {made.name} is {'made' if made.made else 'up to date'}: MLflow delivers to {made.url}",
        f"- {listed(made.events)}",
    ]
    if made.before:
        lines.append(f"- before, it delivered to {made.before}")
    if made.removed:
        lines.append(
            f"- {made.removed:,} more of this name, each of which delivered everything again, are removed"
        )
    if not made.active:
        lines.append("- somebody has disabled it in MLflow, and it stays so: nothing is delivered")
    terminal.tell(to_document(made), "\n".join(lines), as_json=as_json)
