"""Keys of several kinds, in PEM."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

CURVES = {curve.name: curve for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1())}


def private_pem(kind: str = "secp256r1", password: bytes | None = None) -> bytes:
    """A new private key: of this curve, or "rsa" or "ed25519"."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    else:
        key = (
            ed25519.Ed25519PrivateKey.generate()
            if kind == "ed25519"
            else ec.generate_private_key(CURVES[kind])
        )
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_of(private: Path, password: bytes | None = None) -> Path:
    """Write the private key's public one beside it, as ``public.pem``."""
    key = load_pem_private_key(private.read_bytes(), password).public_key()
    file = private.with_name("public.pem")
    file.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return file


def write_pair(folder: Path) -> tuple[Path, Path]:
    """A new pair of keys in this folder: ``signing.pem`` and ``public.pem``."""
    folder.mkdir(parents=True)
    private = folder / "signing.pem"
    private.write_bytes(private_pem())
    return private, public_of(private)
