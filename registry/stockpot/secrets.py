"""Passwords in configured addresses reach no message, however an address is written."""

import os
import re
import threading
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote, unquote_plus

ADDRESSES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "STOCKPOT_STORE_URL",
    "STOCKPOT_OUTPUTS",
    "PREFECT_API_URL",
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
)
"""Variables that hold an address."""

SCHEME = re.compile(r"^\s*\w[\w+.-]*:/{1,3}")
OF_FILES = re.compile(r"^\s*(?:[./~]|sqlite|file:)")
"""Paths, which may hold an @, and no password."""
OF_DATABASES = re.compile(r"^\s*postgres")
"""Where a lone name before the @ is a user, and no token."""
BETWEEN = re.compile(r"[:/@\s?#\\]+")

IN_QUERY = re.compile(
    r"[?&;]([\w.%-]*(?:password|passwd|pwd|secret|token)[\w.%-]*=([^&;#\s]*))", re.IGNORECASE
)
"""A password that a database's address has behind its path."""

_told: set[str] = set()
_lock = threading.Lock()


def keep_secret(address: str | None) -> None:
    """Hide this address's password from now on: for one that comes from no environment variable."""
    if address:
        with _lock:
            _told.add(address)


def without_secrets(text: str, *, parts: bool = True) -> str:
    """The text without the user and password of any configured address, and without parts of the password.
    Without `parts`, words of our own stay where one of them is the password: ``stockpot db upgrade``.

    An address may be mistyped: a slash or a space in the password, no scheme, one slash. Whoever reads it
    takes it apart elsewhere, and quotes a part. So nothing that stands before the last @ is shown.
    """
    with _lock:
        known = frozenset((*_told, *(os.environ.get(name, "") for name in ADDRESSES)))
    secrets = _secrets(known, parts=parts)
    return secrets.sub("***", text) if secrets else text


@lru_cache(maxsize=64)
def _secrets(addresses: frozenset[str], *, parts: bool) -> re.Pattern[str] | None:
    """What stands before the last @, the pieces of the password in it, and passwords in the query; None where
    nothing does. Longest first over all addresses: two may share a password.
    """
    found: set[str] = set()
    for address in addresses:
        found |= {*_before_at(address, parts=parts)}
        for told, password in IN_QUERY.findall(address):
            found |= {password, unquote(password), unquote_plus(password)} if parts else {told}
    secret = {piece for piece in found if len(piece) > 1}
    bounded = "|".join(map(re.escape, sorted(secret, key=len, reverse=True)))
    return re.compile(rf"(?<!\w)(?:{bounded})(?!\w)", re.IGNORECASE) if secret else None


def _before_at(address: str, *, parts: bool) -> Iterable[str]:
    user = SCHEME.sub("", address.rpartition("@")[0])
    name, colon, password = user.partition(":")
    if OF_FILES.match(address) or (not colon and ("/" in name or OF_DATABASES.match(address))):
        return ()
    password = password or name  # a token has no name
    pieces = BETWEEN.split(password) + BETWEEN.split(unquote(password))
    return (user, password, unquote(password), *pieces) if parts else (user,)
