"""Commands about proof: what a version is, and who says so."""

from pathlib import Path
from typing import Annotated

import typer

from stockpot.cli import terminal
from stockpot.cli.options import Json
from stockpot.errors import BadRequest
from stockpot.prose import counted
from stockpot.wiring import Workplace

commands = typer.Typer()

Version = Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS", metavar="URI")]


@commands.command(epilog="Example: stockpot verify models:/birds/3 --out proof --key public.pem")
def verify(
    uri: Version,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for an in-toto statement, a model card and a CycloneDX pedigree."),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="A public key, in PEM, that it must be signed with; repeatable: one of them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a registered soup again from its ingredients, and compare it with what is registered."""
    from stockpot.workflow import attesting

    if out is not None:
        attesting.require_folder(out)
    place = Workplace()
    found = attesting.verify(uri, place.tracker, place.supply, place.verifier, key or ())
    version, snapshot = found.version, found.snapshot
    written = attesting.write_documents(snapshot, out) if out else ()
    of = counted(len(snapshot.ingredients), "ingredient")
    told = f"{version.uri} is what is made of its {of}: {snapshot.checkpoint}"
    terminal.tell(
        {
            "uri": version.uri,
            "digest": snapshot.checkpoint,
            "written": [str(file) for file in written],
            "documents": found.proofs,
            "key": found.key,
            "signature_checked": found.checked,
        },
        "\n".join([told, found.proofs, found.signature, *(f"written: {file}" for file in written)]),
        as_json=as_json,
    )


@commands.command(epilog="Example: stockpot sign models:/birds/3")
def sign(uri: Version, *, as_json: Json = False) -> None:
    """Sign a version that was registered without a signature, or with an older key: STOCKPOT_SIGNING_KEY."""
    from stockpot.workflow import attesting

    place = Workplace()
    if place.signer is None:
        raise BadRequest(
            "no key is known to sign with", mend="export STOCKPOT_SIGNING_KEY=/the/file/of/a/private/key.pem"
        )
    version = attesting.sign(uri, place.tracker, place.supply, place.signer)
    key = place.signer.name
    told = f"all files of {version.uri} are signed with the key {key}"
    terminal.tell({"uri": version.uri, "key": key}, told, as_json=as_json)
