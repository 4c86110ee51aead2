"""The promises of `stockpot.ports.Signer` and `Verifier`, as a suite: subclass it and give it keys."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stockpot.errors import BadRequest, BadSignature
from stockpot.ports import Signer, Verifier
from stockpot.ports.signing import ADDED_BY_MLFLOW, SIGNATURE

FILES = {
    "MLmodel": b"flavors: {}\n",
    "model.safetensors": b"weights",
    "data/model.pt2": b"graph",
    "code/a name.py": b"x = 1",
}
Pair = Callable[[], tuple[Signer, Path]]


def model_folder(folder: Path) -> Path:
    """A model's folder at this path."""
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


class SigningContract:
    """Subclass it as ``Test...`` and write the two fixtures."""

    @pytest.fixture
    def pair(self) -> Pair:
        """Makes a signer, and the file of its public key: another one each time."""
        raise NotImplementedError

    @pytest.fixture
    def verifier(self) -> Verifier:
        """What verifies what those sign."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A model's folder, not signed."""
        return model_folder(tmp_path / "model")

    def test_a_folder_is_signed_by_its_key_wherever_it_lies_and_holds_the_same_files(
        self, pair: Pair, verifier: Verifier, folder: Path
    ) -> None:
        signer, public = pair()
        for _ in range(2):  # the second in place of the first
            signer.sign(folder)
            name = verifier.verify(folder, [public])
            assert len(name) == 64
            assert signer.name == name
            assert verifier.named_in((folder / SIGNATURE).read_bytes()) == name
        held = {
            str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }
        del held[SIGNATURE]
        assert held == FILES
        moved = folder.rename(folder.with_name("downloaded"))
        assert verifier.verify(moved, [public]) == name

    def test_one_of_several_keys_is_enough_and_another_one_is_named(
        self, pair: Pair, verifier: Verifier, folder: Path
    ) -> None:
        (old, old_key), (new, new_key), (_, other) = pair(), pair(), pair()
        names = []
        for signer in (old, new):
            signer.sign(folder)
            names.append(verifier.verify(folder, [new_key, old_key]))
            with pytest.raises(BadSignature, match=f"another key, {names[-1][:12]}"):
                verifier.verify(folder, [other])
        assert len({*names}) == 2

    def test_a_file_that_mlflow_adds_when_it_downloads_changes_nothing(
        self, pair: Pair, verifier: Verifier, folder: Path
    ) -> None:
        signer, public = pair()
        (folder / ADDED_BY_MLFLOW).write_text("model_name: birds")
        signer.sign(folder)
        (folder / ADDED_BY_MLFLOW).write_text("model_name: fish")
        assert verifier.verify(folder, [public])
        (folder / ADDED_BY_MLFLOW).unlink()
        assert verifier.verify(folder, [public])

    @pytest.mark.parametrize("path", FILES)
    def test_a_file_that_was_altered_or_lost_is_named(
        self, pair: Pair, verifier: Verifier, folder: Path, path: str
    ) -> None:
        signer, public = pair()
        signer.sign(folder)
        (folder / path).write_bytes(FILES[path] + b"!")
        with pytest.raises(BadSignature, match=path):
            verifier.verify(folder, [public])
        (folder / path).unlink()
        with pytest.raises(BadSignature, match=path):
            verifier.verify(folder, [public])

    @pytest.mark.parametrize(
        "path",
        [
            "more.py",
            ".gitattributes",
            ".git/config",
            f"code/{ADDED_BY_MLFLOW}",
            f"{ADDED_BY_MLFLOW}/evil.py",
            f"data/{SIGNATURE}",
        ],
    )
    def test_a_file_that_was_added_is_named(
        self, pair: Pair, verifier: Verifier, folder: Path, path: str
    ) -> None:
        signer, public = pair()
        signer.sign(folder)
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"added")
        with pytest.raises(BadSignature, match=path):
            verifier.verify(folder, [public])

    def test_the_signature_of_another_folder_is_none_of_this_one(
        self, pair: Pair, verifier: Verifier, folder: Path, tmp_path: Path
    ) -> None:
        signer, public = pair()
        other = model_folder(tmp_path / "other")
        (other / "model.safetensors").write_bytes(b"other weights")
        signer.sign(other)
        (folder / SIGNATURE).write_bytes((other / SIGNATURE).read_bytes())
        with pytest.raises(BadSignature, match=r"model\.safetensors"):
            verifier.verify(folder, [public])

    @pytest.mark.parametrize(
        "content",
        [b"", b"{}", b"[]", b"null", b'"x"', b"\xff", b'{"verificationMaterial": 1}', b"[" * 100_000],
    )
    def test_what_is_no_signature_is_told_as_such(
        self, pair: Pair, verifier: Verifier, folder: Path, content: bytes
    ) -> None:
        (folder / SIGNATURE).write_bytes(content)
        with pytest.raises(BadSignature, match=SIGNATURE):
            verifier.verify(folder, [pair()[1]])
        with pytest.raises(BadSignature, match=SIGNATURE):
            verifier.named_in(content)

    def test_without_a_signature_it_is_not_signed(self, pair: Pair, verifier: Verifier, folder: Path) -> None:
        with pytest.raises(BadSignature, match="not signed"):
            verifier.verify(folder, [pair()[1]])

    @pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PUBLIC KEY-----\n", b"\xff\xfe"])
    def test_a_key_that_is_none_is_the_requests_fault(
        self, pair: Pair, verifier: Verifier, tmp_path: Path, content: bytes | None
    ) -> None:
        verifier.require([pair()[1], pair()[1]])
        file = tmp_path / "no-key.pem"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(BadRequest, match=r"no-key\.pem") as raised:
            verifier.require([pair()[1], file])
        assert raised.value.mend
