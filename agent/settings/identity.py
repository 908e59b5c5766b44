"""Read the identity folder that `fleet enrol` wrote: the vehicle's name and key, and the keys that it trusts.

The device key stays in memory, because each batch is signed with it.

Loading checks that the certificate names the vehicle and fits the device key.  A folder that mixes files of two
vehicles therefore leads to one clear message at start, and not to rejected batches later.
"""

import tomllib
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
from agent.system.key_pair import Pair, read_pair

IDENTITY = "identity.toml"
DEVICE_KEY = "device.key.pem"
DEVICE_CERTIFICATE = "device.crt.pem"
AUTHORITY = "ca.crt.pem"
RECIPIENT = "hpke.pub.json"
ACKS = "acks.pub.pem"
ROOT = "root.json"
RENEWED = Path("identity") / "device.pem"
"""The file of the renewed key and certificate, in the folder of the agent's state, where the agent may write."""


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
    """Holds the one field of TUF metadata that shows whether a file is root metadata.

    The verifier of pushes reads all fields.
    """

    signed: _Signed


class Identity(msgspec.Struct, frozen=True, eq=False):
    """Holds the identity of one enrolled vehicle.

    `partition` is the partition of the fleet that the vehicle belongs to.  Two identities are equal if they come from
    the same folder and their files have equal content.  `certificate_file` and `key_file` hold the certificate and the
    device key for TLS; they lie in another folder after the vehicle has renewed its certificate.
    """

    folder: Path
    attributes: Attributes
    partition: int
    device_key: ec.EllipticCurvePrivateKey
    recipient: RecipientPublicKey
    acks_key: ed25519.Ed25519PublicKey
    certificate: x509.Certificate
    root: bytes
    certificate_file: Path
    key_file: Path

    @property
    def vehicle(self) -> str:
        """Return the pseudonym of the vehicle."""
        return self.attributes.vehicle

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self._content == other._content

    __hash__ = None  # type: ignore[assignment]

    @property
    def _content(self) -> tuple[object, ...]:
        # A key object may be equal only to itself, so the bytes of keys are compared.  The device key is left out,
        # because `load` has checked that it fits the certificate.
        keys = self.recipient.raw, self.acks_key.public_bytes_raw()
        return self.folder, self.attributes, self.partition, keys, self.certificate, self.root


def load(folder: Path, software: str = "", *, renewed: Path | None = None) -> Identity:
    """Read the identity in `folder`, with the certificate that the vehicle has renewed, if any.

    `software` is the version of the vehicle's software, or "" if it is not known.

    `renewed` is the file with the renewed key and certificate (agent/link/credentials.py).  The pair of a certificate
    and its key that was issued last is used.  A certificate that was brought to the vehicle may therefore be for the
    renewed key, and an identity of a later enrolment replaces what was renewed before.

    Raises: Permanent that names the file and the remedy.
    """
    if not folder.is_dir():
        raise Permanent(
            f"{folder}: the identity folder does not exist; make it with `fleet enrol --out {folder}`, "
            "or set identity.folder"
        )
    _refuse_nested(folder)
    document = _identity(folder / IDENTITY)
    pair = _pair(folder, document.vehicle, renewed)
    device_key, certificate = pair.key, pair.certificate
    # TLS reads the certificate of the authority from its file later.  Reading it here finds a damaged file at start.
    _certificate(folder / AUTHORITY)
    return Identity(
        folder,
        Attributes(document.vehicle, document.brand, document.model, document.market, document.model_year, software),
        document.partition,
        device_key,
        RecipientPublicKey.from_json(_read(folder / RECIPIENT), str(folder / RECIPIENT)),
        _acks_key(folder / ACKS),
        certificate,
        _root(folder / ROOT),
        pair.certificate_file,
        pair.key_file,
    )


def _pair(folder: Path, vehicle: str, renewed: Path | None) -> Pair:
    """Return the device key and certificate to use; see `load`."""
    key_file, certificate_file = folder / DEVICE_KEY, folder / DEVICE_CERTIFICATE
    enrolled = Pair(_device_key(key_file), _certificate(certificate_file), key_file, certificate_file)
    # The access list of the broker allows topics by the name in the certificate (%u in mosquitto).
    names = _common_names(enrolled.certificate)
    if names != [vehicle]:
        raise Permanent(
            f"{certificate_file}: the certificate is issued to "
            f"{', '.join(names) or 'no name'}, but {IDENTITY} names {vehicle}; "
            "copy all files in the folder of one `fleet enrol`"
        )
    later = None if renewed is None else _renewed_pair(renewed)
    pairs = [enrolled]
    if later is not None and _common_names(later.certificate) == [vehicle]:
        pairs += [later, Pair(later.key, enrolled.certificate, later.key_file, certificate_file)]
    fitting = [pair for pair in pairs if pair.certificate.public_key() == pair.key.public_key()]
    if not fitting:
        raise Permanent(
            f"{key_file}: this is not the key of {DEVICE_CERTIFICATE}; "
            "copy all files in the folder of one `fleet enrol`"
        )
    return max(fitting, key=lambda pair: pair.certificate.not_valid_before_utc)


def _renewed_pair(file: Path) -> Pair | None:
    try:
        return read_pair(file)
    except OSError as error:
        raise Permanent(
            f"{file}: the file cannot be read: {error.strerror}; run the command as the agent's user"
        ) from error


def _common_names(certificate: x509.Certificate) -> list[str]:
    return [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def pseudonym(folder: Path) -> str:
    """Return the pseudonym of the vehicle whose identity is in `folder`.  Raises: Permanent, as `load` does."""
    return _identity(folder / IDENTITY).vehicle


def _refuse_nested(folder: Path) -> None:
    """Refuse a folder in which the folder of `fleet enrol` lies, and not its files.  Raises: Permanent."""
    if _may_exist(folder / IDENTITY):
        return
    for inner in sorted(each for each in folder.iterdir() if each.is_dir()):
        if _may_exist(inner / IDENTITY):
            raise Permanent(
                f"{folder}: the files of the identity are in its subfolder {inner.name}, but they must be directly in "
                f"{folder}; move them: mv {inner}/* {folder}/"
            )


def _copy_again(path: Path) -> str:
    return f"copy all files in the folder of `fleet enrol` again, to {path.parent}"


def _may_exist(path: Path) -> bool:
    """Return whether the file exists, even if this user may not look into its folder."""
    try:
        return path.exists()
    except PermissionError:
        return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise Permanent(
            f"{path}: this user may not read the file; on a head unit, let the service read it: "
            "systemd-tmpfiles --create headunit-agent.conf"
        ) from error
    except OSError as error:
        raise Permanent(f"{path}: the file cannot be read: {error.strerror}; {_copy_again(path)}") from error


def _identity(path: Path) -> _Document:
    try:
        document = msgspec.convert(tomllib.loads(_read(path).decode()), type=_Document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Permanent(f"{path}: the file is damaged: {error}; {_copy_again(path)}") from error
    if not is_vehicle(document.vehicle):
        raise Permanent(
            f"{path}: vehicle {document.vehicle!r} is not a pseudonym (a UUID in lower case); " + _copy_again(path)
        )
    if not 0 <= document.partition < PARTITIONS:
        raise Permanent(
            f"{path}: partition {document.partition} does not exist, because a fleet has {PARTITIONS} partitions, "
            "numbered from 0; enrol the vehicle again"
        )
    return document


def _device_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Permanent(
            f"{path}: this is not an unencrypted private key in PEM format; enrol the vehicle again"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Permanent(f"{path}: the key is not a P-256 key; enrol the vehicle again")
    return key


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise Permanent(f"{path}: this is not a certificate in PEM format; {_copy_again(path)}") from error


def _acks_key(path: Path) -> ed25519.Ed25519PublicKey:
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Permanent(f"{path}: this is not a public key in PEM format; {_copy_again(path)}") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise Permanent(f"{path}: this is not an Ed25519 key; {_copy_again(path)}")
    return key


def _root(path: Path) -> bytes:
    content = _read(path)
    try:
        kind = msgspec.json.decode(content, type=_Root).signed.type
    except msgspec.DecodeError as error:
        raise Permanent(f"{path}: this is not TUF metadata ({error}); enrol the vehicle again") from error
    if kind != "root":
        raise Permanent(f"{path}: this is TUF metadata of type {kind!r}, not 'root'; enrol the vehicle again")
    return content
