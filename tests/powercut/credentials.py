"""Drives the renewal of a device certificate, and checks which certificate a power cut leaves."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.formats.renewal import parse_request, requested_key
from agent.link.authorities import Authorities
from agent.link.credentials import CANDIDATE, DEVICE, Credentials
from agent.link.endpoint import Endpoint
from agent.system.key_pair import Pair, read_pair
from fleet.state import certificates

VEHICLE = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOW = datetime.now(UTC)
AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = certificates.create_authority(AUTHORITY_KEY, name="test", now=NOW, days=99, serial=1)


@dataclass(frozen=True)
class State:
    """The number of the newest certificate that has arrived, and of the newest that has connected; 0 means enrolled."""

    arrived: int
    in_use: int


def issue(key: ec.EllipticCurvePublicKey, number: int) -> Any:
    # Nine of ten days have passed, so each certificate is due for renewal at once.
    return certificates.issue_client(
        AUTHORITY, AUTHORITY_KEY, key, common_name=VEHICLE, now=NOW - timedelta(days=9), days=10, serial=100 + number
    )


@contextlib.asynccontextmanager
async def broker(_: Endpoint) -> AsyncIterator[Any]:
    """Stand for a broker that accepts every certificate."""
    yield None


def make(root: Path) -> Credentials:
    """Make the credentials of a process that starts now."""
    folder, enrolled = root / "state" / "identity", root / "ca.pem"
    pair = read_pair(folder / DEVICE)
    if pair is None:
        key = ec.generate_private_key(ec.SECP256R1())
        pair = Pair(key, issue(key.public_key(), 0), enrolled, enrolled)
    return Credentials(folder, VEHICLE, pair, Authorities(folder, enrolled), lambda _: None, connect_with=broker)


async def _connect(credentials: Credentials) -> None:
    async with credentials.connect(Endpoint("localhost", 1, *[Path("x")] * 3, VEHICLE)):
        pass


def drive_credentials(root: Path, chance: random.Random, promise: Callable[[Any], None]) -> None:
    (root / "ca.pem").write_bytes(AUTHORITY.public_bytes(serialization.Encoding.PEM))
    credentials = make(root)
    for number in range(1, chance.randrange(2, 5)):
        payload = credentials.request(NOW)
        assert payload is not None
        certificate = issue(requested_key(parse_request(payload)), number)
        credentials.take(certificate.public_bytes(serialization.Encoding.PEM))
        promise(State(number, number - 1))
        if chance.random() < 0.3:
            credentials = make(root)
        asyncio.run(_connect(credentials))
        promise(State(number, number))


def _number(file: Path) -> int:
    pair = read_pair(file)
    return 0 if pair is None else pair.certificate.serial_number - 100


def check_credentials(root: Path, before: State | None, after: State | None) -> None:
    folder = root / "state" / "identity"
    candidate, in_use = _number(folder / CANDIDATE), _number(folder / DEVICE)
    known = [State(0, 0)] if before is None else [before]
    known += [] if after is None else [after]
    assert in_use in {state.in_use for state in known}, f"certificate {in_use} is in use, and not one of {known}"
    assert max(candidate, in_use) in {state.arrived for state in known}, f"the newest certificate is lost: {known}"
    # The next process goes on from here: it asks for a certificate or connects with the candidate.
    (root / "ca.pem").write_bytes(AUTHORITY.public_bytes(serialization.Encoding.PEM))
    credentials = make(root)
    if candidate == 0:
        assert credentials.request(NOW) is not None
    asyncio.run(_connect(credentials))
    assert _number(folder / DEVICE) == max(candidate, in_use)
