"""The fleet's HPKE key pair and its two key files.  Vehicles seal their batches to the public key.  Pure.

    hpke.pub.json   {suite, key_id, public_key}    in every vehicle folder
    keys/hpke.json  {suite, key_id, private_key}   in the fleet folder: secret

Keys are in base64.  `key_id` is the beginning of a hash of the public key.  A file whose key does not fit its `key_id`
is refused, because it is damaged or has parts of two keys.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from agent.errors import Permanent
from agent.formats import telemetry_pb2 as pb

SuiteName = Literal["MLKEM768_X25519", "X25519"]
_KEMS: Final[dict[SuiteName, hpke.KEM]] = {"MLKEM768_X25519": hpke.KEM.MLKEM768_X25519, "X25519": hpke.KEM.X25519}
SUITES: Final[dict[SuiteName, hpke.Suite]] = {
    name: hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305) for name, kem in _KEMS.items()
}
SUITE_NUMBERS: Final[dict[SuiteName, pb.Suite]] = {
    "MLKEM768_X25519": pb.SUITE_MLKEM768_X25519,
    "X25519": pb.SUITE_X25519,
}
SUITE_NAMES: Final[dict[int, SuiteName]] = {number: name for name, number in SUITE_NUMBERS.items()}

_MLKEM_SEED_BYTES: Final = 64
_MLKEM_PUBLIC_BYTES: Final = 1_184


@dataclass(frozen=True, slots=True)
class RecipientPublicKey:
    """The fleet's public key, which every vehicle carries (`hpke.pub.json`).

    For the suite X25519, `raw` is the 32 bytes of the X25519 key.  For the suite MLKEM768_X25519, `raw` is the
    1,184 bytes of the ML-KEM-768 key followed by the 32 bytes of the X25519 key.
    """

    suite: SuiteName
    raw: bytes
    key: hpke.MLKEM768X25519PublicKey | x25519.X25519PublicKey

    @property
    def key_id(self) -> str:
        """Return the first 16 hex digits of SHA-256 of the public key."""
        return _key_id(self.raw)

    def to_json(self) -> bytes:
        """Return the content of `hpke.pub.json`."""
        return _to_json(self.suite, self.key_id, "public_key", self.raw)

    @staticmethod
    def from_json(document: bytes, source: str) -> "RecipientPublicKey":
        """Read the content of `hpke.pub.json`; messages name `source`.  Raises: Permanent if the file is damaged."""
        suite, key_id, raw = _from_json(document, "public_key", source)
        try:
            public = _public_key(suite, raw)
        except ValueError as error:
            raise Permanent(f"{source}: public_key is not a {suite} key ({error}); fetch the file again") from error
        if public.key_id != key_id:
            raise Permanent(
                f"{source}: key_id {key_id} does not belong to public_key ({public.key_id}); fetch the file again"
            )
        return public


@dataclass(frozen=True, slots=True)
class RecipientPrivateKey:
    """The fleet's private key (`keys/hpke.json`), which never leaves the cloud side.

    For the suite X25519, `raw` is the 32 bytes of the X25519 key.  For the suite MLKEM768_X25519, `raw` is the 64
    bytes of the ML-KEM-768 seed followed by the 32 bytes of the X25519 key.
    """

    suite: SuiteName
    raw: bytes
    key: hpke.MLKEM768X25519PrivateKey | x25519.X25519PrivateKey
    public: RecipientPublicKey

    def __repr__(self) -> str:
        # The `__repr__` that a dataclass generates would put the secret into logs and tracebacks.
        return f"RecipientPrivateKey(suite={self.suite!r}, key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """Return the key id of the public key."""
        return self.public.key_id

    @staticmethod
    def generate(suite: SuiteName = "MLKEM768_X25519") -> "RecipientPrivateKey":
        """Return a fresh key of `suite`."""
        secret = x25519.X25519PrivateKey.generate().private_bytes_raw()
        if suite == "MLKEM768_X25519":
            secret = mlkem.MLKEM768PrivateKey.generate().private_bytes_raw() + secret
        return _private_key(suite, secret)

    def to_json(self) -> bytes:
        """Return the content of `keys/hpke.json`, which is secret."""
        return _to_json(self.suite, self.key_id, "private_key", self.raw)

    @staticmethod
    def from_json(document: bytes, source: str) -> "RecipientPrivateKey":
        """Read the content of `keys/hpke.json`; messages name `source`.  Raises: Permanent if the file is damaged."""
        suite, key_id, raw = _from_json(document, "private_key", source)
        try:
            private = _private_key(suite, raw)
        except ValueError as error:
            raise Permanent(f"{source}: private_key is not a {suite} key; restore the file from the backup") from error
        if private.key_id != key_id:
            raise Permanent(
                f"{source}: key_id {key_id} does not belong to private_key ({private.key_id}); "
                "restore the file from the backup"
            )
        return private


# The result is cached, because every batch needs the id of its key.
@lru_cache(maxsize=16)
def _key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]


def _public_key(suite: SuiteName, raw: bytes) -> RecipientPublicKey:
    """Return the public key with the bytes `raw`.  Raises: ValueError if `raw` is not a key of `suite`."""
    if suite == "X25519":
        return RecipientPublicKey(suite, raw, x25519.X25519PublicKey.from_public_bytes(raw))
    key = hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES]),
        x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:]),
    )
    return RecipientPublicKey(suite, raw, key)


def _private_key(suite: SuiteName, raw: bytes) -> RecipientPrivateKey:
    """Return the private key with the bytes `raw`.  Raises: ValueError if `raw` is not a key of `suite`."""
    if suite == "X25519":
        only = x25519.X25519PrivateKey.from_private_bytes(raw)
        return RecipientPrivateKey(suite, raw, only, _public_key(suite, only.public_key().public_bytes_raw()))
    post_quantum = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED_BYTES])
    classical = x25519.X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED_BYTES:])
    public = post_quantum.public_key().public_bytes_raw() + classical.public_key().public_bytes_raw()
    key = hpke.MLKEM768X25519PrivateKey(post_quantum, classical)
    return RecipientPrivateKey(suite, raw, key, _public_key(suite, public))


def _to_json(suite: str, key_id: str, name: str, raw: bytes) -> bytes:
    document = {"suite": suite, "key_id": key_id, name: base64.b64encode(raw).decode()}
    return json.dumps(document, indent=2).encode() + b"\n"


def _from_json(document: bytes, name: str, source: str) -> tuple[SuiteName, str, bytes]:
    try:
        parsed = json.loads(document)
        suite, key_id, raw = (
            parsed["suite"],
            str(parsed["key_id"]),
            base64.b64decode(parsed[name], validate=True),
        )
    # json.loads raises RecursionError for deeply nested documents.
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        remedy = "fetch the file again" if name == "public_key" else "restore it from the backup"
        raise Permanent(
            f"{source}: this is not a key file with suite, key_id and {name} in base64; {remedy}"
        ) from error
    if not isinstance(suite, str) or suite not in SUITE_NUMBERS:
        raise Permanent(f"{source}: the suite {suite!r} is unknown; use one of {', '.join(SUITE_NUMBERS)}")
    return suite, key_id, raw
