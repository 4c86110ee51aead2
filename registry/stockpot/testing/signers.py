"""Signatures without cryptography: anybody who has the public key may sign. For tests alone."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from stockpot.errors import BadRequest, BadSignature
from stockpot.ports import Signer, Verifier
from stockpot.ports.signing import ADDED_BY_MLFLOW, SIGNATURE
from stockpot.prose import listed

BEGIN = "-----BEGIN PUBLIC KEY-----"
"""The line by which a file is known as a public key, and by which ours is one of this kind."""


def plain_key(file: Path, secret: str) -> Path:
    """Write a key to this file, which signs and verifies. Returns the file."""
    file.write_text(f"{BEGIN}\n{secret}\n")
    return file


class PlainSigner(Signer):
    """Signs with a key by `plain_key`."""

    def __init__(self, key: Path) -> None:
        self._key = key

    @property
    def name(self) -> str:
        return _name(_secret(self._key))

    def sign(self, folder: Path) -> None:
        files, secret = _files(folder), _secret(self._key)
        told = {"key": _name(secret), "files": files, "proof": _proof(secret, files)}
        (folder / SIGNATURE).write_text(json.dumps(told))


class PlainVerifier(Verifier):
    """Verifies what `PlainSigner` signs."""

    def require(self, keys: Sequence[Path]) -> None:
        for key in keys:
            _secret(key)

    def verify(self, folder: Path, keys: Sequence[Path]) -> str:
        secrets = {_name(secret): secret for secret in map(_secret, keys)}
        if not (folder / SIGNATURE).is_file():
            raise BadSignature(f"it is not signed: it holds no {SIGNATURE}")
        key, signed, proof = _told((folder / SIGNATURE).read_bytes())
        if key not in secrets:
            raise BadSignature(f"it is signed with another key, {key[:12]}")
        if proof != _proof(secrets[key], signed):
            raise BadSignature(f"its {SIGNATURE} was not made with its key")
        found = _files(folder)
        odd = {path for path in {*found, *signed} if found.get(path) != signed.get(path)}
        if odd:
            raise BadSignature(f"its files are not those that were signed: {listed(sorted(odd))}")
        return key

    def named_in(self, signature: bytes) -> str:
        return _told(signature)[0]


def _told(signature: bytes) -> tuple[str, Mapping[str, str], str]:
    """Key, files and proof."""
    try:
        told = json.loads(signature)
        return told["key"], told["files"], told["proof"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadSignature(f"its {SIGNATURE} is no signature") from error


def _secret(key: Path) -> str:
    try:
        begin, secret = key.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise BadRequest(f"{key} is no key", mend="make one: plain_key(file, secret)") from error
    if begin != BEGIN:
        raise BadRequest(f"{key} is no key", mend="make one: plain_key(file, secret)")
    return secret


def _name(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _proof(secret: str, files: Mapping[str, str]) -> str:
    return hmac.new(secret.encode(), json.dumps(files, sort_keys=True).encode(), "sha256").hexdigest()


def _files(folder: Path) -> dict[str, str]:
    """Digests of those that count, by path."""
    found = ((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())
    return {
        path: hashlib.sha256(file.read_bytes()).hexdigest()
        for path, file in found
        if path not in {SIGNATURE, ADDED_BY_MLFLOW}
    }
