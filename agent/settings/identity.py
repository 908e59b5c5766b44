"""The identity folder that `fleet enrol` wrote, read once at start: who this vehicle is and which keys it trusts.

The device key stays in memory.  Invariant: the files that were loaded belong together (the certificate names the
vehicle and fits the key), so that a mixed-up folder is one clear message at start and not a rejected batch later.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509.oid import NameOID

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.topics import PARTITIONS, is_vehicle
from agent.formats.up.recipient import RecipientPublicKey

IDENTITY = "identity.toml"
DEVICE_KEY = "device.key.pem"
DEVICE_CERTIFICATE = "device.crt.pem"
AUTHORITY = "ca.crt.pem"
RECIPIENT = "hpke.pub.json"
ACKS = "acks.pub.pem"
ROOT = "root.json"


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    vehicle: str
    brand: str
    model: str
    market: str
    model_year: int
    partition: int
    fleet: str


class _Signed(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="_type")


class _Root(msgspec.Struct, frozen=True):
    """The little of TUF's root metadata that reveals a mixed-up file; the verifier of pushes reads all of it."""

    signed: _Signed


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """One enrolled vehicle.  `partition` is the share of the fleet whose receiver takes its batches.

    Two identities are equal if their files say the same.
    """

    folder: Path
    attributes: Attributes
    partition: int
    device_key: ec.EllipticCurvePrivateKey
    recipient: RecipientPublicKey
    acks_key: ed25519.Ed25519PublicKey
    certificate: x509.Certificate
    root: bytes

    @property
    def vehicle(self) -> str:
        """Return the pseudonym of the vehicle."""
        return self.attributes.vehicle

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self._content == other._content

    __hash__ = None  # type: ignore[assignment]

    @property
    def _content(self) -> tuple[object, ...]:
        # Keys of some kinds are equal to themselves only, so their bytes are compared.  The certificate stands for the
        # device key, because `load` has checked that they fit.
        keys = self.recipient.raw, self.acks_key.public_bytes_raw()
        return self.folder, self.attributes, self.partition, keys, self.certificate, self.root


def load(folder: Path) -> Identity:
    """Read the identity in `folder`.  Raises: Permanent that names the file and the remedy."""
    if not folder.is_dir():
        raise Permanent(f"{folder}: no such folder; make it with `fleet enrol --out {folder}`, or set identity.folder")
    document = _identity(folder / IDENTITY)
    device_key = _device_key(folder / DEVICE_KEY)
    certificate = _certificate(folder / DEVICE_CERTIFICATE)
    # The access list of the broker allows topics by this name (mosquitto: %u).
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [document.vehicle]:
        raise Permanent(
            f"{folder / DEVICE_CERTIFICATE}: issued to {', '.join(str(name.value) for name in names) or 'no name'}, "
            f"but {IDENTITY} says {document.vehicle}; copy the whole folder of one `fleet enrol`"
        )
    if certificate.public_key() != device_key.public_key():
        raise Permanent(f"{folder / DEVICE_KEY}: not the key of {DEVICE_CERTIFICATE}; copy the whole folder again")
    # Only read to find a damaged file now; TLS reads the authority's certificate from the file.
    _certificate(folder / AUTHORITY)
    return Identity(
        folder,
        Attributes(document.vehicle, document.brand, document.model, document.market, document.model_year),
        document.partition,
        device_key,
        RecipientPublicKey.from_json(_read(folder / RECIPIENT), str(folder / RECIPIENT)),
        _acks_key(folder / ACKS),
        certificate,
        _root(folder / ROOT),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path}: {error.strerror}; copy the folder that `fleet enrol` made again") from error


def _identity(path: Path) -> _Document:
    try:
        document = msgspec.convert(tomllib.loads(_read(path).decode()), type=_Document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Permanent(f"{path}: {error}; copy the folder that `fleet enrol` made again") from error
    if not is_vehicle(document.vehicle):
        raise Permanent(f"{path}: vehicle {document.vehicle!r} is not a pseudonym of `fleet enrol` (a UUID)")
    if not 0 <= document.partition < PARTITIONS:
        raise Permanent(f"{path}: partition {document.partition} is not one of the fleet's {PARTITIONS}; enrol again")
    return document


def _device_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Permanent(f"{path}: not an unencrypted private key in PEM form; enrol the vehicle again") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Permanent(f"{path}: the key is not a P-256 key; enrol the vehicle again")
    return key


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise Permanent(f"{path}: not a certificate in PEM form; copy it again") from error


def _acks_key(path: Path) -> ed25519.Ed25519PublicKey:
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Permanent(f"{path}: not a public key in PEM form; copy it again") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise Permanent(f"{path}: not an Ed25519 key; copy the folder that `fleet enrol` made again")
    return key


def _root(path: Path) -> bytes:
    content = _read(path)
    try:
        kind = msgspec.json.decode(content, type=_Root).signed.type
    except msgspec.DecodeError as error:
        raise Permanent(f"{path}: not TUF metadata ({error}); enrol the vehicle again") from error
    if kind != "root":
        raise Permanent(f"{path}: TUF metadata of type {kind!r}, not root; enrol the vehicle again")
    return content
