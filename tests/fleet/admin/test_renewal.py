"""A vehicle gets a new certificate only for a key that the holder of its present key has made."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Untrusted
from agent.formats.renewal import build_request, parse_request
from fleet.__main__ import main
from fleet.admin.enrol import enrol, enrol_again
from fleet.admin.renewal import Renewals
from fleet.admin.revocation import revoke
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_p256
from fleet.state.registry import Registry
from tests.fleet.vehicles import DEMO

NOW = datetime.now(UTC)
NEW = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]


class Car:
    def __init__(self, fleet: FleetFolder, folder: Path) -> None:
        self.name = enrol(fleet, folder, DEMO, days=10, now=NOW - timedelta(days=8)).vehicle
        self.key = read_p256(folder / "device.key.pem")
        self.renewals = Renewals(fleet)
        self.registry = Registry(fleet.vehicles)

    def ask(
        self, new: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, *, now: datetime = NOW
    ) -> bytes | None:
        return self.renewals.answer(self.name, build_request(self.name, new, by), now)


@pytest.fixture
def car(fleet: FleetFolder, tmp_path: Path) -> Car:
    return Car(fleet, tmp_path / "car")


def test_the_new_key_is_certified_for_as_long_as_the_old_one_and_both_are_accepted(car: Car) -> None:
    answer = car.ask(NEW[0], car.key)
    assert answer is not None
    certificate = x509.load_pem_x509_certificate(answer)
    assert certificate.public_key() == NEW[0].public_key()
    assert abs(certificate.not_valid_after_utc - NOW - timedelta(days=10)) < timedelta(seconds=2)
    assert car.registry.require(car.name).device_keys() == (NEW[0].public_key(), car.key.public_key())


def test_a_vehicle_that_lost_the_answer_gets_the_same_certificate_again(car: Car) -> None:
    assert car.ask(NEW[0], car.key) == car.ask(NEW[0], car.key) == car.ask(NEW[0], NEW[0])
    assert len(car.registry.require(car.name).earlier_pems) == 1


def test_nobody_without_the_present_key_gets_a_certificate(car: Car) -> None:
    with pytest.raises(Untrusted, match="No device key"):
        car.ask(NEW[0], NEW[0])
    other = build_request("6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11", NEW[0], car.key)
    with pytest.raises(Untrusted, match="came on the topic"):
        car.renewals.answer(car.name, other, NOW)


def test_an_old_request_never_brings_an_earlier_key_back(car: Car) -> None:
    first = build_request(car.name, NEW[0], car.key)
    car.renewals.answer(car.name, first, NOW)
    later = NOW + timedelta(days=9)
    car.ask(NEW[1], NEW[0], now=later)
    with pytest.raises(Untrusted, match="older"):
        car.renewals.answer(car.name, first, later)
    with pytest.raises(Untrusted, match="older"):
        car.ask(NEW[2], car.key, now=later)
    assert car.registry.require(car.name).device_keys()[0] == NEW[1].public_key()


def test_a_vehicle_cannot_make_the_fleet_sign_all_the_time(car: Car) -> None:
    car.ask(NEW[0], car.key)
    with pytest.raises(Untrusted, match="still good"):
        car.ask(NEW[1], NEW[0])


def test_a_revoked_vehicle_gets_none(car: Car) -> None:
    car.registry.revoke(car.name)
    with pytest.raises(Untrusted, match="revoked"):
        car.ask(NEW[0], car.key)


@pytest.mark.parametrize("replaced", [False, True], ids=["revoked", "enrolled again"])
def test_a_request_that_a_thief_of_the_head_unit_left_waiting_is_never_signed(
    fleet: FleetFolder, car: Car, tmp_path: Path, replaced: bool
) -> None:
    safe = fleet.key("ca.key").rename(fleet.root / "safe.pem")
    assert car.ask(NEW[0], car.key) is None  # waits for the authority's key
    safe.rename(fleet.key("ca.key"))
    if replaced:
        enrol_again(fleet, car.name, tmp_path / "again", days=10, now=NOW - timedelta(days=8))
    else:
        revoke(fleet, car.name, NOW)
    before = car.registry.require(car.name)
    signed, refused = car.renewals.sign_pending(NOW)
    assert (signed, len(refused)) == ([], 1)
    assert car.registry.require(car.name) == before


def test_requests_wait_for_the_authoritys_key_and_one_command_signs_them(fleet: FleetFolder, car: Car) -> None:
    safe = fleet.key("ca.key").rename(fleet.root / "safe.pem")
    assert car.ask(NEW[0], car.key) is None
    assert main(["keys", "sign", "--fleet", str(fleet.root)]) == 1
    safe.rename(fleet.key("ca.key"))
    assert main(["keys", "sign", "--fleet", str(fleet.root)]) == 0
    fleet.key("ca.key").rename(safe)
    assert car.ask(NEW[0], car.key) is not None  # the certificate comes from the record
    assert list(fleet.renewals.iterdir()) == []


@given(st.binary(max_size=100) | st.dictionaries(st.text(), st.text()).map(lambda fields: repr(fields).encode()))
def test_any_bytes_are_a_request_or_a_refusal(payload: bytes) -> None:
    with pytest.raises(Untrusted):
        parse_request(payload)
