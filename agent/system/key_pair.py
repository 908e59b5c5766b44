"""Read a private key and its certificate from one PEM file."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key


@dataclass(frozen=True, slots=True)
class Pair:
    """Holds a private key with a certificate, and the files that TLS reads them from."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path


def read_pair(file: Path) -> Pair | None:
    """Return the key and certificate in `file`, or None if the file is missing, damaged or holds no pair.

    Raises: OSError if the file exists and cannot be read.
    """
    try:
        content = file.read_bytes()
        key = load_pem_private_key(content, password=None)
        certificate = x509.load_pem_x509_certificate(content)
        fits = key.public_key() == certificate.public_key()
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    return Pair(key, certificate, file, file) if fits and isinstance(key, ec.EllipticCurvePrivateKey) else None
