"""Signatures: by model-signing, and by the fake that stands for it. One suite for both."""

import base64
import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from model_signing import hashing, signing, verifying
from tests.contracts.signing_keys import private_pem, public_of, write_pair

from stockpot.errors import BadRequest, BadSignature
from stockpot.ports.signing import ADDED_BY_MLFLOW, SIGNATURE
from stockpot.signing import MOST_BYTES, KeySigner, KeyVerifier
from stockpot.testing.signers import PlainSigner, PlainVerifier, plain_key
from stockpot.testing.signing_contract import Pair, SigningContract, model_folder

MODEL_SIGNING = Path(sys.executable).with_name("model_signing")


class TestKeys(SigningContract):
    @pytest.fixture
    def pair(self, tmp_path: Path) -> Pair:
        numbers = count()

        def made() -> tuple[KeySigner, Path]:
            private, public = write_pair(tmp_path / f"keys-{next(numbers)}")
            return KeySigner(private), public

        return made

    @pytest.fixture
    def verifier(self) -> KeyVerifier:
        return KeyVerifier()


class TestPlain(SigningContract):
    @pytest.fixture
    def pair(self, tmp_path: Path) -> Pair:
        numbers = count()

        def made() -> tuple[PlainSigner, Path]:
            key = plain_key(tmp_path / f"key-{(number := next(numbers))}", f"secret {number}")
            return PlainSigner(key), key

        return made

    @pytest.fixture
    def verifier(self) -> PlainVerifier:
        return PlainVerifier()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def _verified_by_its_own_command(folder: Path, public: Path) -> "subprocess.CompletedProcess[str]":
    given = ["--public_key", str(public), "--signature", str(folder / SIGNATURE), str(folder)]
    return subprocess.run(
        [MODEL_SIGNING, "verify", "key", *given], capture_output=True, text=True, check=False
    )


def test_a_stranger_verifies_by_the_librarys_own_command(folder: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path / "keys")
    KeySigner(private).sign(folder)
    (folder / ADDED_BY_MLFLOW).write_text("model_name: birds")
    assert _verified_by_its_own_command(folder, public).returncode == 0
    (folder / "model.safetensors").write_bytes(b"other")
    refused = _verified_by_its_own_command(folder, public)
    assert refused.returncode == 1
    assert "model.safetensors" in refused.stderr


def test_a_signature_that_leaves_files_out_is_told_although_it_verifies(folder: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path / "keys")
    hashed = hashing.Config().set_ignored_paths(paths=[SIGNATURE, "model.safetensors"])
    theirs = signing.Config().use_elliptic_key_signer(private_key=private)
    theirs.set_hashing_config(hashed).sign(folder, folder / SIGNATURE)
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, folder / SIGNATURE)
    with pytest.raises(BadSignature, match=r"does not cover .*model\.safetensors"):
        KeyVerifier().verify(folder, [public])


@pytest.mark.parametrize("path", [".gitignore", ".git/config"])
def test_what_the_library_leaves_out_is_not_signed_in_silence(
    folder: Path, tmp_path: Path, path: str
) -> None:
    private, _ = write_pair(tmp_path / "keys")
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(b"x")
    with pytest.raises(BadSignature, match=f"leaves out {path}"):
        KeySigner(private).sign(folder)
    assert not (folder / SIGNATURE).exists()


def test_a_signature_that_was_edited_to_fit_the_files_is_none(folder: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path / "keys")
    signer = KeySigner(private)
    signer.sign(folder)
    ours = json.loads((folder / SIGNATURE).read_bytes())
    (folder / "model.safetensors").write_bytes(b"other")
    KeySigner(write_pair(tmp_path / "others")[0]).sign(folder)
    theirs = json.loads((folder / SIGNATURE).read_bytes())
    theirs["verificationMaterial"] = ours["verificationMaterial"]  # the key that it says it is of
    (folder / SIGNATURE).write_text(json.dumps(theirs))
    with pytest.raises(BadSignature, match="was not made with it"):
        KeyVerifier().verify(folder, [public])
    ours["dsseEnvelope"]["payload"] = theirs["dsseEnvelope"]["payload"]
    (folder / SIGNATURE).write_text(json.dumps(ours))
    with pytest.raises(BadSignature, match="was not made with it"):
        KeyVerifier().verify(folder, [public])
    ours["dsseEnvelope"]["payload"] = base64.b64encode(b"{}").decode()
    ours["dsseEnvelope"]["signatures"] = []
    (folder / SIGNATURE).write_text(json.dumps(ours))
    with pytest.raises(BadSignature, match="not those that were signed"):
        KeyVerifier().verify(folder, [public])


def test_a_signature_of_a_size_that_none_has_is_not_read(folder: Path, tmp_path: Path) -> None:
    _, public = write_pair(tmp_path / "keys")
    with (folder / SIGNATURE).open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(BadSignature, match=f"more than {MOST_BYTES:,} bytes"):
        KeyVerifier().verify(folder, [public])


def test_a_signature_that_does_not_name_its_key_prints_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = write_pair(tmp_path / "keys")
    KeySigner(private).sign(folder)
    told = json.loads((folder / SIGNATURE).read_bytes())
    told["verificationMaterial"]["publicKey"]["hint"] = ""
    (folder / SIGNATURE).write_text(json.dumps(told))
    with pytest.raises(BadSignature, match="does not name its key"):
        KeyVerifier().verify(folder, [public])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["secp256r1", "secp384r1", "secp521r1"])
def test_a_key_with_a_password_signs(folder: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "signing.pem"
    file.write_bytes(private_pem(kind, b"hunter2 and more"))
    public = public_of(file, b"hunter2 and more")
    KeySigner(file, b"hunter2 and more").sign(folder)
    assert KeyVerifier().verify(folder, [public])


@pytest.mark.parametrize(
    ("content", "password", "told"),
    [
        (private_pem("secp256r1", b"right"), b"wrong", "with this password"),
        (private_pem("secp256r1", b"right"), None, "has a password, and none is set"),
        (private_pem("secp256r1"), b"any", "has no password, and one is set"),
        (private_pem("rsa"), None, "is of another kind than secp256r1"),
        (private_pem("ed25519"), None, "is of another kind than secp256r1"),
        (private_pem("secp256k1"), None, "is of another kind than secp256r1"),
        (b"no key", None, "holds no private key"),
        (None, None, "cannot be read: No such file"),
    ],
)
def test_a_key_that_cannot_sign_is_told_before_anything_is_signed(
    tmp_path: Path, content: bytes | None, password: bytes | None, told: str
) -> None:
    file = tmp_path / "signing.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadRequest, match=told) as raised:
        KeySigner(file, password)
    assert "STOCKPOT_SIGNING_KEY" in raised.value.what
    assert raised.value.mend
    assert "wrong" not in str(raised.value)


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "secp256k1"])
def test_a_public_key_of_another_kind_is_told(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "signing.pem"
    file.write_bytes(private_pem(kind))
    with pytest.raises(BadRequest, match=r"public\.pem is of another kind"):
        KeyVerifier().require([public_of(file)])


@pytest.mark.parametrize(("missing", "told"), [("model_signing", "model-signing"), ("OpenSSL", "pyopenssl")])
def test_without_the_extra_its_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, told: str
) -> None:
    private, public = write_pair(tmp_path / "keys")
    monkeypatch.setattr("stockpot.signing.find_spec", lambda name: None if name == missing else name)
    for asked in (lambda: KeySigner(private), lambda: KeyVerifier().require([public])):
        with pytest.raises(BadRequest, match=f"signatures need {told}\n") as raised:
            asked()
        assert raised.value.mend == "pip install 'stockpot[signing]'"
