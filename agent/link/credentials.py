"""Keeps the key and certificate by which the vehicle connects, and replaces them when a new certificate arrives.

    <folder>/next.key.pem     a new key, for which a certificate was asked
    <folder>/candidate.pem    the new key with its certificate, until it has connected once
    <folder>/device.pem       key and certificate in use; without this file, those from the enrolment are in use

    no files ---(due)---> next.key ---(answer)---> candidate ---(connected)---> device
                              ^                        |
                              +--- asks again ---------+--- cannot connect: old and new take turns

Invariants: a key is durable before a certificate is asked for it.  Key and certificate change together, because they
are in one file.  The old certificate stays in use until the new one has connected once.  A power cut at any moment
leaves one of the states above.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent, Transient, Untrusted
from agent.formats.renewal import build_request, read_certificate
from agent.link.authorities import Authorities
from agent.link.connection import Connection
from agent.link.endpoint import Endpoint
from agent.link.mqtt import connect
from agent.system.durable import make_folder, remove, write_file
from agent.system.key_pair import Pair, read_pair

NEXT_KEY: Final = "next.key.pem"
CANDIDATE: Final = "candidate.pem"
DEVICE: Final = "device.pem"

RENEW_AT: Final = 1 / 3
"""The vehicle asks for a new certificate when less than this share of the old one's validity is left.

With the usual fifteen years, a vehicle may be off for five years and still renew in time.
"""

WARN: Final = timedelta(days=30)
"""A certificate that expires within this time, and was not renewed although it was due, is worth a warning."""

Connect = Callable[[Endpoint], AbstractAsyncContextManager[Connection]]

log = structlog.get_logger()


class Credentials:
    """Owns the folder of renewed credentials of one vehicle.

    Call `connect` in place of `agent.link.mqtt.connect`.  Methods block for a few milliseconds.
    """

    def __init__(
        self,
        folder: Path,
        vehicle: str,
        pair: Pair,
        authorities: Authorities,
        on_change: Callable[[ec.EllipticCurvePrivateKey], None],
        *,
        connect_with: Connect = connect,
    ) -> None:
        """Begin with `pair`.  `on_change` is called with the new key when a new certificate has connected."""
        self._folder = folder
        self._vehicle = vehicle
        self._pair = pair
        self._authorities = authorities
        self._on_change = on_change
        self._connect = connect_with
        self._failed = False

    @property
    def expires(self) -> datetime:
        """Return when the certificate in use expires."""
        return self._pair.certificate.not_valid_after_utc

    def is_late(self, now: datetime) -> bool:
        """Return whether the certificate should have been renewed long ago, and expires within WARN."""
        left = self.expires - now
        return left < WARN and self._share_left(now) < RENEW_AT / 2

    @contextlib.asynccontextmanager
    async def connect(self, endpoint: Endpoint) -> AsyncIterator[Connection]:
        """Yield a connection to the broker, made with the candidate if there is one and it is its turn."""
        # What has never connected must not keep the vehicle offline, so the new and the old take turns.
        is_turn = not self._failed
        candidate = read_pair(self._folder / CANDIDATE) if is_turn else None
        following = self._authorities.following if is_turn else None
        self._failed = candidate is not None or following is not None
        pair = candidate or self._pair
        async with self._connect(
            replace(
                endpoint,
                cert_file=pair.certificate_file,
                key_file=pair.key_file,
                ca_file=following or self._authorities.in_use,
            )
        ) as connection:
            self._failed = False
            if following is not None:
                self._authorities.confirm()
            if candidate is not None:
                self._promote(candidate)
            yield connection

    def request(self, now: datetime) -> bytes | None:
        """Return a request for a new certificate, or None if none is due.

        Raises: Transient if the disk refuses to store the new key; Permanent if the authorities cannot be read.
        """
        is_due = self._share_left(now) < RENEW_AT or self._issuer_changes()
        if not is_due or read_pair(self._folder / CANDIDATE) is not None:
            return None
        return build_request(self._vehicle, self._next_key(), self._pair.key)

    def issuer(self) -> str | None:
        """Return the name of the authority that issues certificates now, or None if the authorities cannot be read."""
        try:
            return self._authorities.read()[0].subject.rfc4514_string()
        except Permanent:
            return None

    def take(self, payload: bytes) -> None:
        """Store the certificate that the fleet has sent.  The next connection is made with it.

        Raises: Untrusted if it is not a certificate of this vehicle for the key that it was asked for; Transient if the
        disk refuses; Permanent if the authorities cannot be read.
        """
        key = _read_key(self._folder / NEXT_KEY)
        if key is None:
            raise Untrusted("A certificate arrived although this vehicle has not asked for one.")
        certificate = read_certificate(payload, self._vehicle, key.public_key(), self._authorities.read())
        self._write(CANDIDATE, _pem_of(key) + certificate.public_bytes(serialization.Encoding.PEM))
        self._failed = False
        log.info("certificate_renewed", expires=f"{certificate.not_valid_after_utc:%Y-%m-%d}")

    def _share_left(self, now: datetime) -> float:
        """Return the share of the certificate's validity that is left, which is negative after its expiry."""
        return (self.expires - now) / (self.expires - self._pair.certificate.not_valid_before_utc)

    def _issuer_changes(self) -> bool:
        """Return whether another authority issues certificates now than the one that issued ours."""
        return self._authorities.read()[0].subject != self._pair.certificate.issuer

    def _next_key(self) -> ec.EllipticCurvePrivateKey:
        key = _read_key(self._folder / NEXT_KEY)
        # After a power cut, the key in use may still be here under the name of the next one.
        if key is None or key.public_key() == self._pair.key.public_key():
            key = ec.generate_private_key(ec.SECP256R1())
            self._write(NEXT_KEY, _pem_of(key))
        return key

    def _promote(self, candidate: Pair) -> None:
        content = candidate.key_file.read_bytes()
        try:
            self._write(DEVICE, content)
        except Transient as error:
            # The disk is full.  The candidate connects again next time, and is then tried again.
            log.warning("certificate_not_stored", reason=str(error))
            return
        file = self._folder / DEVICE
        self._pair = Pair(candidate.key, candidate.certificate, file, file)
        # If a power cut keeps these files, the candidate is promoted once more.
        with contextlib.suppress(OSError):
            remove(self._folder / CANDIDATE)
            remove(self._folder / NEXT_KEY)
        self._on_change(candidate.key)
        log.info("certificate_in_use", expires=f"{self.expires:%Y-%m-%d}")

    def _write(self, name: str, content: bytes) -> None:
        try:
            make_folder(self._folder)
            write_file(self._folder / name, content, mode=0o600)
        except OSError as error:
            raise Transient(f"cannot store {self._folder / name}: {error.strerror}; free some space") from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
