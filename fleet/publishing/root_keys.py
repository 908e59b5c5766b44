"""Makes and reads root keys: private keys in files, and public halves of keys in files and tokens."""

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import Key, SSlibKey

from agent.errors import Permanent
from fleet.state.keys import PublicKey, create_ed25519, write_public


def make_root_key(file: Path) -> Path:
    """Make a new root key in `file`, write its public half beside it, and return the public file.

    Raises: Permanent if the file exists.
    """
    if file.exists():
        raise Permanent(f"{file} exists. Choose another --out, because a key must not be overwritten.")
    public = file.with_name(f"{file.stem}.pub.pem")
    key = create_ed25519(file)
    write_public(public, key.public_key())
    return public


def write_root_key(file: Path, public_key: Callable[[], PublicKey]) -> None:
    """Write the public half of a key in a token to `file`.  `public_key` makes or reads it once `file` may be written.

    Raises: Permanent if the file exists.
    """
    if file.exists():
        raise Permanent(f"{file} exists. Choose another --out, because a key must not be overwritten.")
    write_public(file, public_key())


def read_public(file: Path) -> Key:
    """Read the public key of a root key.  Raises: Permanent if the file is missing or holds something else."""
    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise Permanent(f"{file} cannot be read ({error.strerror}). Check the path.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Permanent(f"{file} is not a public key in PEM. Make one with `fleet keys root key`.") from error
    if isinstance(key, Ed25519PublicKey) or (isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1"):
        return SSlibKey.from_crypto(key)
    raise Permanent(f"{file} is neither an Ed25519 key nor an EC P-256 key. Make one with `fleet keys root key`.")
