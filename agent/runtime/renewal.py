"""Ask the fleet for a new certificate when one is due, and connect again with the certificate that it sends.

Invariant: a wrong answer changes nothing.  The vehicle goes on with the certificate in use, and asks again.
"""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import AgentError, Permanent, Transient, Untrusted
from agent.link.authorities import Authorities
from agent.link.connection import NO_MATCHING_SUBSCRIBERS, Connection
from agent.link.credentials import Credentials
from agent.settings.identity import RENEWED, Identity
from agent.system.key_pair import Pair
from agent.system.tasks import whole
from agent.telemetry.outbox.outbox import Outbox

ASK_AGAIN_S: Final = 3_600.0
"""The interval between two requests on one connection.  The authority's key may be offline, and then people sign."""
_REFUSED_S: Final = 10.0  # after a wrong answer, further answers are dropped unread for this time
_WARN_AGAIN_S: Final = 86_400.0
LOOK_S: Final = 20.0
"""The interval at which the vehicle looks whether a certificate is due.  Looking reads two small files."""

log = structlog.get_logger()


def make_credentials(state: Path, identity: Identity, authorities: Authorities, outbox: Outbox) -> Credentials:
    """Return the credentials of this vehicle, whose newest key also signs the batches of `outbox`."""

    def sign_with(key: ec.EllipticCurvePrivateKey) -> None:
        outbox.sealer = outbox.sealer.with_device_key(key)

    pair = Pair(identity.device_key, identity.certificate, identity.key_file, identity.certificate_file)
    return Credentials((state / RENEWED).parent, identity.vehicle, pair, authorities, sign_with)


class Renewal:
    """Renews the certificate of one vehicle."""

    def __init__(self, credentials: Credentials, *, ask_again_s: float = ASK_AGAIN_S, look_s: float = LOOK_S) -> None:
        self._credentials = credentials
        self._ask_again_s = ask_again_s
        self._look_s = look_s
        self._warn_at_s = 0.0
        self._quiet_until_s = 0.0

    async def run(self, connection: Connection, topic: str) -> None:
        """Ask on `topic` while a certificate is due.  Runs until cancelled.

        Raises: Transient if the connection is lost.
        """
        ask_at_s, asked_under = time.monotonic(), None
        while True:
            now = datetime.now(UTC)
            self._warn(now)
            # A vehicle that comes back may get a certificate of a new authority before it has heard of this authority.
            # It refuses the certificate, and asks again as soon as a release has brought the authority.
            authorities = await asyncio.to_thread(self._credentials.issuer)
            is_time = time.monotonic() >= ask_at_s or authorities != asked_under
            if is_time and await self._ask(connection, topic, now):
                ask_at_s, asked_under = time.monotonic() + self._ask_again_s, authorities
            # A certificate may become due at any moment, because a release may bring another authority.
            await asyncio.sleep(self._look_s)

    async def _ask(self, connection: Connection, topic: str, now: datetime) -> bool:
        """Ask for a certificate if one is due, and return whether a receiver got the request."""
        try:
            payload = await asyncio.to_thread(self._credentials.request, now)
            return payload is not None and await connection.publish(topic, payload) != NO_MATCHING_SUBSCRIBERS
        except Permanent as error:
            log.error("renewal_refused", reason=str(error))
            return True

    async def take(self, payload: bytes) -> None:
        """Store the certificate that the fleet has sent.

        Raises: Transient if the certificate is good, to end the connection: the next one is made with it.
        """
        if time.monotonic() < self._quiet_until_s:
            return
        try:
            await whole(asyncio.to_thread(self._credentials.take, payload))
        except Untrusted as error:
            # A hostile broker must not fill the log, nor keep the vehicle busy.
            self._quiet_until_s = time.monotonic() + _REFUSED_S
            log.warning("certificate_refused", reason=str(error))
            return
        except AgentError as error:
            log.error("certificate_postponed", reason=str(error))
            return
        raise Transient("the certificate was renewed; the agent connects again with the new one")

    def _warn(self, now: datetime) -> None:
        if self._credentials.is_late(now) and time.monotonic() >= self._warn_at_s:
            self._warn_at_s = time.monotonic() + _WARN_AGAIN_S
            log.warning(
                "certificate_expires",
                expires=f"{self._credentials.expires:%Y-%m-%d}",
                remedy="sign the vehicle's request at the fleet (fleet keys sign)",
            )
