"""Signatures by OpenSSF's model-signing, with a key and without any network."""
# ruff: noqa: D102 - the ports' docstrings are the contract

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import digest_of_file
from stockpot.errors import BadRequest, BadSignature
from stockpot.ports import Signer, Verifier
from stockpot.ports.signing import ADDED_BY_MLFLOW, SIGNATURE
from stockpot.prose import listed
from stockpot.soup.disk_faults import is_the_machines

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

KEY, PASSWORD = "STOCKPOT_SIGNING_KEY", "STOCKPOT_SIGNING_PASSWORD_FILE"
DRAW = (
    "openssl ecparam -name prime256v1 -genkey -noout -out signing.pem && "
    "openssl ec -in signing.pem -pubout -out public.pem"
)
NEEDED = {"model_signing": "model-signing", "OpenSSL": "pyopenssl"}
"""The second by the first, which does not ask for it. By module."""
CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Those that model-signing knows."""
MOST_BYTES = 64 << 20
"""Of a signature: it holds a line for each file."""
FILES_NAMED = 3


class KeySigner(Signer):
    """Signs with an elliptic curve key in a PEM file. Raises BadRequest where that cannot be used."""

    def __init__(self, key: Path, password: bytes | None = None) -> None:
        _require_installed()
        private = _private_key(key, password)
        _require_curve(private, f"{key}, from {KEY},")
        from model_signing.signing import Config

        self._name = _name(private.public_key())

        # Its annotation says text, which the library under it refuses.
        self._config = Config().use_elliptic_key_signer(private_key=key, password=password)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        return self._name

    def sign(self, folder: Path) -> None:
        from model_signing.hashing import Config

        counted = Config().set_ignored_paths(paths=[SIGNATURE, ADDED_BY_MLFLOW])
        self._config.set_hashing_config(counted).sign(folder, folder / SIGNATURE)
        if stray := _uncovered(folder):
            (folder / SIGNATURE).unlink()
            raise BadSignature(
                f"it cannot be signed: model-signing leaves out {stray}",
                mend="register it without those files",
            )


class KeyVerifier(Verifier):
    """Verifies signatures by elliptic curve keys."""

    def require(self, keys: Sequence[Path]) -> None:
        _named(keys)

    def verify(self, folder: Path, keys: Sequence[Path]) -> str:
        named, signature = _named(keys), folder / SIGNATURE
        if not signature.is_file():
            raise BadSignature(f"it is not signed: it holds no {SIGNATURE}")
        if signature.stat().st_size > MOST_BYTES:
            raise BadSignature(f"its {SIGNATURE} has more than {MOST_BYTES:,} bytes")
        content = signature.read_bytes()
        name = self.named_in(content)
        if name not in named:
            known = listed([f"{file} ({one[:12]})" for one, file in named.items()])
            raise BadSignature(f"it is signed with another key, {name[:12]}, than {known}")
        _require_signed(folder, named[name])
        if stray := _uncovered(folder):
            raise BadSignature(f"its signature does not cover {stray}")
        return name

    def named_in(self, signature: bytes) -> str:
        try:
            name = json.loads(signature)["verificationMaterial"]["publicKey"]["hint"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise BadSignature(f"its {SIGNATURE} is no signature with a key, by model-signing") from error
        if not (isinstance(name, str) and len(name) == 64 and name.isalnum() and name.isascii()):
            raise BadSignature(f"its {SIGNATURE} does not name its key")
        return name


def _require_signed(folder: Path, key: Path) -> None:
    from cryptography.exceptions import InvalidSignature
    from model_signing.verifying import Config

    try:
        Config().use_elliptic_key_verifier(public_key=key).verify(folder, folder / SIGNATURE)
    except InvalidSignature as error:
        raise BadSignature(f"its {SIGNATURE} names the key of {key}, and was not made with it") from error
    except Exception as error:  # whatever the library raises of a stranger's file
        if is_the_machines(error):
            raise
        what = _differing(folder) or f"{type(error).__name__}: {error}"
        raise BadSignature(f"its files are not those that were signed: {what}") from error


def _differing(folder: Path) -> str:
    """Files that are others than those that the signature is about, for people; empty where that is no list
    of SHA-256 of files. The library's own words are digests as Python shows them.
    """
    try:
        told, found = _signed_files(folder), _files(folder)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    odd = {*told} ^ found
    for path in found & {*told}:
        if digest_of_file(folder / path) != f"sha256:{told[path]}":
            odd.add(path)
    return listed(sorted(odd), FILES_NAMED)


def _uncovered(folder: Path) -> str:
    """The files that its signature, which holds, does not cover: it may leave out whatever its signer liked,
    and leaves out what belongs to git.
    """
    return listed(sorted(_files(folder) - {*_signed_files(folder)}), FILES_NAMED)


def _signed_files(folder: Path) -> dict[str, str]:
    """What the signature tells of files: digests by path."""
    bundle = json.loads((folder / SIGNATURE).read_bytes())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return {str(one["name"]): one["digest"] for one in payload.get("predicate", {}).get("resources", ())}


def _files(folder: Path) -> set[str]:
    """Those that a signature has to cover, by path."""
    found = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())
    return {*found} - {SIGNATURE, ADDED_BY_MLFLOW}


def _named(keys: Sequence[Path]) -> dict[str, Path]:
    """Public keys by their names, as model-signing has them: the SHA-256 of the PEM. Raises BadRequest."""
    _require_installed()
    found = {}
    for file in keys:
        key = _public_key(file)
        _require_curve(key, str(file))
        found[_name(key)] = file
    return found


def _name(key: "PublicKeyTypes") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _public_key(file: Path) -> "PublicKeyTypes":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    mend = f"make it of the private key: openssl ec -in signing.pem -pubout -out {file}"
    try:
        return load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise BadRequest(f"the public key {file} cannot be read: {error.strerror}", mend=mend) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadRequest(f"{file} holds no public key in PEM", mend=mend) from error


def _private_key(file: Path, password: bytes | None) -> "PrivateKeyTypes":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(file.read_bytes(), password)
    except OSError as error:
        what, mend = f"cannot be read: {error.strerror}", f"correct {KEY}, or make one: {DRAW}"
    except TypeError:  # one of the two is there without the other
        what, mend = (
            ("has a password, and none is set", f"export {PASSWORD}=/a/file/that/holds/it")
            if password is None
            else ("has no password, and one is set", "unset the variables STOCKPOT_SIGNING_PASSWORD...")
        )
    except (ValueError, UnsupportedAlgorithm):
        what, mend = "holds no private key in PEM that can be used", f"make one: {DRAW}"
        if password is not None:
            what, mend = f"{what} with this password", f"correct the password, or {mend}"
    raise BadRequest(f"{file}, from {KEY}, {what}", mend=mend)


def _require_curve(key: object, told: str) -> None:
    if getattr(getattr(key, "curve", None), "name", "") not in CURVES:
        raise BadRequest(f"{told} is of another kind than {listed(CURVES)}", mend=f"make one: {DRAW}")


def _require_installed() -> None:
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise BadRequest(f"signatures need {listed(missing)}", mend="pip install 'stockpot[signing]'")
