"""The vehicle asks for a certificate while one is due, and a wrong answer changes nothing and costs little."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agent.errors import Transient
from agent.formats.renewal import parse_request, requested_key
from agent.link.connection import NO_MATCHING_SUBSCRIBERS
from agent.runtime.renewal import Renewal
from tests.agent.link.test_credentials import Car, other_authority
from tests.powercut.credentials import issue


class Broker:
    """Takes requests as a connection does; `codes` are the reason codes of the first answers."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.requests: list[bytes] = []

    async def publish(self, _: str, payload: bytes) -> int:
        self.requests.append(payload)
        return self.codes.pop(0) if self.codes else 0


def run(renewal: Renewal, broker: Any, requests: int) -> None:
    """Run until the broker has this many requests, and a little longer."""

    async def drive() -> None:
        task = asyncio.create_task(renewal.run(broker, "hu/v1/sync/x"))
        async with asyncio.timeout(60):
            while len(broker.requests) < requests:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(drive())


def test_it_asks_until_a_receiver_has_the_request_and_then_waits(tmp_path: Path) -> None:
    broker = Broker(NO_MATCHING_SUBSCRIBERS, NO_MATCHING_SUBSCRIBERS)
    run(Renewal(Car(tmp_path).credentials, look_s=0.01), broker, 3)
    assert len(broker.requests) == 3


def test_a_good_answer_ends_the_connection_and_a_forged_one_does_not(tmp_path: Path) -> None:
    car = Car(tmp_path)
    renewal, broker = Renewal(car.credentials, look_s=0.01), Broker()
    run(renewal, broker, 1)
    asyncio.run(renewal.take(b"-----BEGIN CERTIFICATE-----"))
    good = issue(requested_key(parse_request(broker.requests[0])), 1).public_bytes(Encoding.PEM)
    asyncio.run(renewal.take(good))  # dropped unread, because the answer before was forged
    with pytest.raises(Transient, match="connects again"):
        asyncio.run(Renewal(car.credentials).take(good))


def test_it_asks_again_at_once_when_a_release_brings_another_authority(tmp_path: Path) -> None:
    """The first answer may come from this authority, and is then refused: a vehicle that was off learns of it later."""
    car, broker = Car(tmp_path), Broker()
    other, _ = other_authority()

    async def drive() -> None:
        task = asyncio.create_task(Renewal(car.credentials, look_s=0.01).run(broker, "hu/v1/sync/x"))
        async with asyncio.timeout(60):
            while not broker.requests:
                await asyncio.sleep(0.01)
            car.authorities.write(other.public_bytes(Encoding.PEM))
            while len(broker.requests) < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(drive())
    assert len(broker.requests) == 2
