"""New certificates and authorities replace the old ones only after they have connected once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from agent.errors import Transient, Untrusted
from agent.formats.renewal import parse_request, requested_key
from agent.link.authorities import Authorities
from agent.link.credentials import CANDIDATE, DEVICE, NEXT_KEY, Credentials
from agent.link.endpoint import Endpoint
from agent.system.key_pair import Pair, read_pair
from fleet.state import certificates
from tests.powercut.credentials import AUTHORITY, AUTHORITY_KEY, NOW, VEHICLE, issue

ENDPOINT = Endpoint("localhost", 1, Path("ca"), Path("cert"), Path("key"), VEHICLE)


class Car:
    """Holds the credentials of a vehicle, and the files with which it has tried to connect."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "identity"
        self.enrolled = folder / "ca.crt.pem"
        self.enrolled.write_bytes(AUTHORITY.public_bytes(Encoding.PEM))
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.authorities = Authorities(self.folder, self.enrolled)
        pair = Pair(self.key, issue(self.key.public_key(), 0), folder / "device.key.pem", folder / "device.crt.pem")
        self.keys: list[ec.EllipticCurvePrivateKey] = []
        self.credentials = Credentials(
            self.folder, VEHICLE, pair, self.authorities, self.keys.append, connect_with=self._connect
        )
        self.tried: list[tuple[str, str]] = []
        self.refused: set[str] = set()

    @contextlib.asynccontextmanager
    async def _connect(self, endpoint: Endpoint) -> AsyncIterator[Any]:
        self.tried.append((endpoint.cert_file.name, endpoint.ca_file.name))
        if self.refused & set(self.tried[-1]):
            raise Transient("refused")
        yield None

    def connect(self, times: int = 1) -> None:
        async def once() -> None:
            with contextlib.suppress(Transient):
                async with self.credentials.connect(ENDPOINT):
                    pass

        for _ in range(times):
            asyncio.run(once())

    def request(self) -> ec.EllipticCurvePublicKey:
        payload = self.credentials.request(NOW)
        assert payload is not None
        return requested_key(parse_request(payload))

    def renew(self) -> None:
        self.credentials.take(issue(self.request(), 1).public_bytes(Encoding.PEM))


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car(tmp_path)


def test_a_new_certificate_that_connects_is_in_use_from_then_on(car: Car) -> None:
    car.renew()
    car.connect(2)
    assert [cert for cert, _ in car.tried] == [CANDIDATE, DEVICE]
    pair = read_pair(car.folder / DEVICE)
    assert pair is not None
    assert [key.public_key() for key in car.keys] == [pair.key.public_key()]
    assert [path.name for path in car.folder.iterdir()] == [DEVICE]


def test_a_new_certificate_that_the_broker_refuses_takes_turns_with_the_old_one(car: Car) -> None:
    car.renew()
    car.refused = {CANDIDATE}
    car.connect(4)
    assert [cert for cert, _ in car.tried] == [CANDIDATE, "device.crt.pem"] * 2
    assert car.keys == []
    car.refused = set()
    car.connect()
    assert car.keys != []


def test_the_same_key_is_asked_for_again_until_a_certificate_arrives(car: Car) -> None:
    assert car.request() == car.request()
    assert (car.folder / NEXT_KEY).stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_is_good_for_long_is_not_renewed(car: Car) -> None:
    assert car.credentials.request(NOW - timedelta(days=6)) is None
    assert car.credentials.request(NOW) is not None


def other_authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    return certificates.create_authority(key, name="other", now=NOW, days=9, serial=2), key


def test_wrong_answers_change_nothing(car: Car) -> None:
    with pytest.raises(Untrusted, match="not asked"):
        car.credentials.take(issue(car.key.public_key(), 1).public_bytes(Encoding.PEM))
    key = car.request()
    other, other_key = other_authority()
    foreign = certificates.issue_client(other, other_key, key, common_name=VEHICLE, now=NOW, days=9, serial=3)
    stranger = certificates.issue_client(AUTHORITY, AUTHORITY_KEY, key, common_name="x", now=NOW, days=9, serial=3)
    wrong_key = issue(car.key.public_key(), 1)
    answers = [each.public_bytes(Encoding.PEM) for each in (foreign, stranger, wrong_key)]
    for answer in (*answers, b"-----BEGIN", b"x" * 10_000, b""):
        with pytest.raises(Untrusted):
            car.credentials.take(answer)
    assert [path.name for path in car.folder.iterdir()] == [NEXT_KEY]


def test_pushed_authorities_are_in_use_once_they_have_connected(car: Car) -> None:
    other, _ = other_authority()
    car.authorities.write(other.public_bytes(Encoding.PEM))
    car.refused = {"authorities.next.pem"}
    car.connect(3)
    assert [ca for _, ca in car.tried] == ["authorities.next.pem", "ca.crt.pem", "authorities.next.pem"]
    car.refused = set()
    car.connect(3)
    assert [ca for _, ca in car.tried][-2:] == ["authorities.next.pem", "authorities.pem"]
    car.authorities.write(other.public_bytes(Encoding.PEM))  # at the next start, the release is applied again
    assert car.authorities.following is None
    car.authorities.write(None)
    assert car.authorities.in_use == car.enrolled


def test_a_new_issuing_authority_makes_a_good_certificate_due(car: Car) -> None:
    early = NOW - timedelta(days=6)
    other, _ = other_authority()
    both = AUTHORITY.public_bytes(Encoding.PEM) + other.public_bytes(Encoding.PEM)
    car.authorities.write(both)
    assert car.credentials.request(early) is None
    car.authorities.write(other.public_bytes(Encoding.PEM) + AUTHORITY.public_bytes(Encoding.PEM))
    assert car.credentials.request(early) is not None
