"""The gate's check of signatures: who signed, over which files, as they are downloaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.gate_site import GOOD, WORSE, Site, content, outcomes, tagged, told

from stockpot.entities import CheckOutcome, GateVerdict, ModelVersion
from stockpot.errors import (
    BadRequest,
    NotArrived,
    NotPermitted,
    RegistryConflict,
    StockpotError,
    TrackingError,
    Unreachable,
)
from stockpot.ports.signing import SIGNATURE
from stockpot.testing.signers import PlainSigner, plain_key
from stockpot.workflow.attesting import sign
from stockpot.workflow.promotion.promote import Mover

pytestmark = pytest.mark.usefixtures("one_thread")
PASSED, FAILED, NOT_APPLICABLE = (outcome.value for outcome in CheckOutcome)
FILES = {"model.safetensors": content(GOOD), "MLmodel": b"flavors: {}\n"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    return {
        name: plain_key(tmp_path / f"{name}.pem", f"secret of {name}") for name in ("ours", "new", "other")
    }


def signed(version: ModelVersion, site: Site, key: Path) -> ModelVersion:
    """The same, with a signature among its files."""
    files = held(version, site)
    folder = site.folder / f"signing-{version.version}"
    folder.mkdir()
    for name, one in files.items():
        (folder / name).write_bytes(one)
    PlainSigner(key).sign(folder)
    files[SIGNATURE] = (folder / SIGNATURE).read_bytes()
    return version


def held(version: ModelVersion, site: Site) -> dict[str, bytes]:
    return site.tracker.models_kept[version.model_id or ""].files


def test_a_version_that_one_of_the_keys_signed_passes_and_the_key_is_told(
    site: Site, keys: dict[str, Path]
) -> None:
    version = signed(site.register(FILES, tagged(GOOD)), site, keys["ours"])
    decision = site.judge(version, signed_by=(str(keys["new"]), str(keys["ours"])))
    assert decision.verdict is GateVerdict.PASSED
    assert outcomes(decision)["signature"] == PASSED
    name = told(decision, "signature").rpartition(" ")[2]
    other = signed(site.register(FILES, tagged(GOOD)), site, keys["new"])
    assert name not in told(site.judge(other, signed_by=(str(keys["new"]),)), "signature")


def test_a_version_without_a_signature_fails_where_the_policy_names_a_key(
    site: Site, keys: dict[str, Path]
) -> None:
    version = site.register(FILES, tagged(GOOD))
    decision = site.judge(version, signed_by=(str(keys["ours"]),))
    assert [check.name for check in decision.failed] == ["signature"]
    assert told(decision, "signature") == "it is not signed: it holds no model.sig"
    assert outcomes(site.judge(version))["signature"] == NOT_APPLICABLE


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (
            lambda files, _: files.update(MLmodel=b"loader_module: evil"),
            "not those that were signed: MLmodel",
        ),
        (lambda files, _: files.update({"evil.py": b"x"}), "not those that were signed: evil.py"),
        (lambda files, _: files.pop("MLmodel"), "not those that were signed: MLmodel"),
        (lambda files, _: files.update({SIGNATURE: b"{"}), "is no signature"),
        (lambda files, theirs: files.update({SIGNATURE: theirs[SIGNATURE]}), "not those that were signed"),
    ],
    ids=["altered", "added", "lost", "torn", "copied"],
)
def test_what_is_not_as_it_was_signed_fails_and_why_is_told(
    site: Site,
    keys: dict[str, Path],
    harm: Callable[[dict[str, bytes], dict[str, bytes]], object],
    why: str,
) -> None:
    other = signed(site.register({**FILES, "model.safetensors": content(WORSE)}), site, keys["ours"])
    version = signed(site.register(FILES, tagged(GOOD)), site, keys["ours"])
    policy = {"signed_by": (str(keys["ours"]),)}
    assert outcomes(site.judge(version, **policy))["signature"] == PASSED
    harm(held(version, site), held(other, site))
    decision = site.judge(version, **policy)
    assert [check.name for check in decision.failed] == ["signature"]
    assert why in told(decision, "signature")


def test_a_version_that_another_key_signed_fails_and_its_name_is_told(
    site: Site, keys: dict[str, Path]
) -> None:
    version = signed(site.register(FILES, tagged(GOOD)), site, keys["other"])
    decision = site.judge(version, signed_by=(str(keys["ours"]), str(keys["new"])))
    assert [check.name for check in decision.failed] == ["signature"]
    assert "signed with another key" in told(decision, "signature")


@pytest.mark.parametrize("replaced", [content(WORSE), None], ids=["another", "missing"])
def test_the_weights_that_were_measured_are_those_that_are_signed(
    site: Site, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, replaced: bytes | None
) -> None:
    version = signed(site.register(FILES, tagged(GOOD)), site, keys["ours"])
    download = site.tracker.download_version

    def served(version: ModelVersion, into: Path) -> Path:
        """What was signed; to whoever lists the weights, others."""
        folder = download(version, into)
        (folder / "model.safetensors").unlink()
        if replaced is not None:
            (folder / "model.safetensors").write_bytes(replaced)
        PlainSigner(keys["ours"]).sign(folder)
        return folder

    monkeypatch.setattr(site.tracker, "download_version", served)
    decision = site.judge(version, signed_by=(str(keys["ours"]),))
    assert "another than the one that was measured" in told(decision, "signature")


def test_a_key_that_is_gone_judges_nothing_and_the_alias_stays(site: Site, keys: dict[str, Path]) -> None:
    version = signed(site.register(FILES, tagged(GOOD)), site, keys["ours"])
    policy = {"signed_by": (str(keys["ours"]),)}
    keys["ours"].unlink()
    with pytest.raises(BadRequest, match=r"ours\.pem is no key"):
        site.judge(version, **policy)
    assert site.passes() == 0


@pytest.mark.parametrize("fault", [Unreachable, NotPermitted, NotArrived, TrackingError])
def test_a_download_that_fails_is_no_fault_of_the_version(
    site: Site, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, fault: type[StockpotError]
) -> None:
    version = signed(site.register(FILES, tagged(GOOD)), site, keys["ours"])

    def down(*_: object) -> Path:
        raise fault("the connection broke")

    monkeypatch.setattr(site.tracker, "download_version", down)
    with pytest.raises(fault):
        site.judge(version, signed_by=(str(keys["ours"]),))


def test_a_person_may_override_a_missing_signature_with_a_reason(site: Site, keys: dict[str, Path]) -> None:
    from dataclasses import replace

    from tests.unit.gate_site import POLICY

    from stockpot.watching import Silent

    version = site.register(FILES, tagged(GOOD))
    promoter = site.promoter(replace(POLICY, signed_by=(str(keys["ours"]),)))
    assert not promoter.promote(version.uri, Mover("me", "why"), Silent()).moved
    done = promoter.promote(version.uri, Mover("me", "why", "signed before we had keys"), Silent())
    assert done.moved
    assert done.decision is not None
    assert [check.name for check in done.decision.failed] == ["signature"]


@pytest.mark.parametrize("arrives", [None, b"another's"], ids=["nothing", "another's"])
def test_a_signature_that_did_not_arrive_is_told(
    site: Site, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, arrives: bytes | None
) -> None:
    version = site.register(FILES, tagged(GOOD))

    def upload(*_: object) -> None:
        if arrives is not None:
            held(version, site)[SIGNATURE] = arrives

    monkeypatch.setattr(site.tracker, "upload", upload)
    with pytest.raises(RegistryConflict, match="something else came back"):
        sign(version.uri, site.tracker, site.supply, PlainSigner(keys["ours"]))
    monkeypatch.undo()
    assert sign(version.uri, site.tracker, site.supply, PlainSigner(keys["ours"])) == version
    assert outcomes(site.judge(version, signed_by=(str(keys["ours"]),)))["signature"] == PASSED
