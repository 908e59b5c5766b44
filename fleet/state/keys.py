"""Makes keys, and writes and reads keys and certificates as files.  Errors name the file.

Keys whose signatures only this project's programs verify (TUF roles, acknowledgements) are Ed25519.  Keys that TLS
stacks and secure elements must support (certificate authority, TLS) are EC P-256.  Private keys are unencrypted PKCS#8
files of mode 0600.  The mode of the folder protects the private keys as well.  The most important keys belong offline
(`fleet init --help`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from agent.errors import Permanent
from agent.formats.up.recipient import RecipientPrivateKey
from agent.system.durable import write_file
from fleet.state.folder import FleetFolder

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

_CRL_BEGIN: Final = b"-----BEGIN X509 CRL-----"


def create_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """Make a new Ed25519 key, store it durably at `path`, and return it."""
    key = ed25519.Ed25519PrivateKey.generate()
    write_private(path, key)
    return key


def create_p256(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a new EC P-256 key, store it durably at `path`, and return it."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, key)
    return key


def write_private(path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """Store `key` durably at `path` in PEM (PKCS#8, unencrypted), with mode 0600."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_file(path, pem, mode=0o600)


def write_public(path: Path, key: PublicKey) -> None:
    """Store the public `key` durably at `path` in PEM, with mode 0644."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_file(path, pem, mode=0o644)


def write_certificate(path: Path, certificate: x509.Certificate) -> None:
    """Store `certificate` durably at `path` in PEM, with mode 0644."""
    write_file(path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def write_certificates(path: Path, certificates: Iterable[x509.Certificate]) -> None:
    """Store `certificates` durably at `path` in PEM, one after the other, with mode 0644."""
    pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
    write_file(path, pem, mode=0o644)


def write_revocation_lists(path: Path, lists: Iterable[x509.CertificateRevocationList]) -> None:
    """Store revocation lists durably at `path` in PEM, one after the other, with mode 0644."""
    write_file(path, b"".join(each.public_bytes(serialization.Encoding.PEM) for each in lists), mode=0o644)


def read_revocation_lists(path: Path) -> list[x509.CertificateRevocationList]:
    """Read the revocation lists at `path`.  Raises: Permanent if the file is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Permanent(
            f"The revocation lists {path} cannot be read ({error.strerror}). Restore the file from the fleet's backup."
        ) from error
    try:
        return [x509.load_pem_x509_crl(_CRL_BEGIN + part) for part in content.split(_CRL_BEGIN)[1:]]
    except ValueError as error:
        raise Permanent(f"{path} has no revocation lists in PEM. Restore the file from the fleet's backup.") from error


def read_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """Read the Ed25519 private key at `path`.  Raises: Permanent if the file is missing or holds something else."""
    key = _read_private(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise Permanent(f"{path} is not an Ed25519 private key. Restore the file from the fleet's backup.")
    return key


def read_p256(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the EC P-256 private key at `path`.  Raises: Permanent if the file is missing or holds something else."""
    key = _read_private(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Permanent(f"{path} is not an EC P-256 private key. Restore the file from the fleet's backup.")
    return key


def read_certificate(path: Path) -> x509.Certificate:
    """Read the certificate at `path`.  Raises: Permanent if the file is missing or damaged."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise Permanent(
            f"The certificate {path} cannot be read ({error.strerror}). Restore the file from the fleet's backup."
        ) from error
    except ValueError as error:
        raise Permanent(f"{path} is not a certificate in PEM. Restore the file from the fleet's backup.") from error


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Read one or more certificates at `path`.  Raises: Permanent if the file is missing or damaged."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Permanent(
            f"The certificates {path} cannot be read ({error.strerror}). Restore the file from the fleet's backup."
        ) from error
    except ValueError as error:
        raise Permanent(f"{path} has no certificates in PEM. Restore the file from the fleet's backup.") from error


def read_recipient(fleet: FleetFolder) -> RecipientPrivateKey:
    """Read the HPKE private key in use.  Raises: Permanent if the file is missing or damaged."""
    return read_sealing_key(fleet.hpke_private)


def read_sealing_key(path: Path) -> RecipientPrivateKey:
    """Read the HPKE private key at `path`.  Raises: Permanent if the file is missing or damaged."""
    try:
        return RecipientPrivateKey.from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise Permanent(
            f"The HPKE private key {path} cannot be read ({error.strerror}). Restore the file from the fleet's backup."
        ) from error


def _read_private(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise Permanent(
            f"The private key {path} cannot be read ({error.strerror}). Restore the file from its offline copy "
            "or from the fleet's backup."
        ) from error
    except (ValueError, TypeError) as error:
        raise Permanent(
            f"{path} is not an unencrypted private key in PEM. Restore the file from the fleet's backup."
        ) from error
