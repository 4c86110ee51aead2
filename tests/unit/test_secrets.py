"""No password of a configured address is in a message, however the address is mistyped."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mlflow.exceptions import MlflowException

from stockpot import secrets
from stockpot.errors import BadRequest, StockpotError, TrackingError, Unexpected, telling_no_secrets
from stockpot.secrets import ADDRESSES, keep_secret, without_secrets
from stockpot.tracking.mlflow_calls import asking

MISTYPED = (
    "http://user:S3/PW@host:5000",
    "http://user:S3 PW@host:5000",
    "user:S3/PW@host:5000",
    "http:/user:S3/PW@host:5000",
    "http:///user:S3@PW@host",
    "http://user:S3%2FPW@host",
    "http://user:S3#PW?x@host/path",
)


@pytest.fixture(autouse=True)
def nothing_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process hand in addresses, too."""
    monkeypatch.setattr(secrets, "_told", set())


@pytest.mark.parametrize("variable", ADDRESSES)
@pytest.mark.parametrize("address", MISTYPED)
def test_a_mistyped_address_shows_no_part_of_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    monkeypatch.setenv(variable, address)
    quoted = f"{address!r} is no address: no port is 'S3', no path is '/PW@host/api'"
    for shown in (str(BadRequest(quoted, faults=[quoted], mend=address)), without_secrets(quoted)):
        assert "S3" not in shown
        assert "PW" not in shown
        assert "host" in shown


def test_faults_and_mend_are_told_without_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy")
    error = StockpotError("hush", mend="ask http://me:hush@proxy", faults=["it is hush"])
    assert (error.what, error.mend, error.faults) == ("***", "ask http://***@proxy", ("it is ***",))


def test_a_password_that_is_a_word_of_ours_leaves_the_mend_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_STORE_URL", "postgresql://stockpot:stockpot@db/stockpot")
    assert StockpotError("old", mend="stockpot db upgrade").mend == "stockpot db upgrade"


def test_an_address_that_was_handed_in_is_hidden_like_a_configured_one() -> None:
    keep_secret("http://me:handed-in@host")
    assert without_secrets("cannot reach me:handed-in@host, handed-in") == "cannot reach ***@host, ***"


def test_a_password_of_several_parts_is_hidden_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:some/more@proxy")
    assert without_secrets("some/more is wrong, so is more") == "*** is wrong, so is ***"


@pytest.mark.parametrize("other", ["s3://me:shared@a", "refusing://somebody-else:shared@a-longer-address"])
def test_two_addresses_that_share_a_password_hide_both_users(
    monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setenv("STOCKPOT_OUTPUTS", other)
    monkeypatch.setenv("HTTPS_PROXY", "http://admin:shared@proxy")
    told = without_secrets(f"http://admin:shared@proxy, {other}")
    assert told == f"http://***@proxy, {other.partition('//')[0]}//***@{other.rpartition('@')[2]}"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://host/db?password=S3%2FPW",
        "postgresql+psycopg://me@host:5432/db?sslmode=require&password=S3%2FPW",
        "postgresql:///db?host=host&sslpassword=S3%2FPW",
        "https://host/x?token=S3%2FPW#here",
    ],
)
def test_a_password_in_the_query_is_hidden_too(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("STOCKPOT_STORE_URL", address)
    error = StockpotError(f"{address} is down, since S3/PW is wrong at host", mend=f"write {address}")
    assert "S3" not in str(error)
    assert "host" in error.what
    assert "host" in error.mend


def test_a_text_without_secrets_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@host/a")
    for text in ("http://host/a is down", "some hushed words", "me and you", ""):
        assert without_secrets(text) == text


def test_a_databases_user_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_STORE_URL", "postgresql://stockpot@db/stockpot")
    assert without_secrets("stockpot cannot reach db") == "stockpot cannot reach db"


def test_the_cause_of_an_error_does_not_show_it_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "user:S3/PW@host")
    with pytest.raises(TrackingError) as caught, asking("anything"):
        raise MlflowException("no store for PW")
    assert caught.value.__cause__ is None
    assert "PW" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["sqlite:////home/me@corp/m.db", "/data/me@corp/mlruns", "http://host/me@corp"]
)
def test_an_at_sign_in_a_path_hides_nothing(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert without_secrets(f"{address}: me, home and data") == f"{address}: me, home and data"


@contextmanager
def _quoting(error: Exception) -> Iterator[None]:
    """Somebody's error, which quotes an address, becomes another one."""
    try:
        yield
    except OSError as cause:
        raise error from cause


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (BadRequest("the proxy is down"), BadRequest, "the proxy is down"),
        (ValueError("the proxy is down"), Unexpected, "ValueError: the proxy is down"),
        (ValueError("hush is no port"), Unexpected, "ValueError: *** is no port"),
    ],
)
def test_a_traceback_that_is_logged_tells_no_secret_of_a_cause(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[StockpotError], told: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy")
    with pytest.raises(kind) as caught, telling_no_secrets(), _quoting(error):
        raise OSError("no answer from http://me:hush@proxy")
    assert caught.value.what == told
    assert "hush" not in "".join(traceback.format_exception(caught.value, limit=0))


def test_one_that_tells_none_comes_out_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy")
    error = ValueError("plain")
    with pytest.raises(ValueError, match="plain") as caught, telling_no_secrets(), _quoting(error):
        raise OSError("no answer")
    assert caught.value is error
    assert isinstance(error.__cause__, OSError)
