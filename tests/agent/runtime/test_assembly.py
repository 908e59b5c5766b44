"""Test the objects that are built from a configuration."""

from pathlib import Path
from typing import get_args

import msgspec

from agent.runtime.assembly import endpoint
from agent.runtime.configuration import read_configuration
from agent.runtime.limits import UNCONFIRMED_BYTES
from agent.settings import settings
from agent.settings.sections import UplinkSettings
from tests.agent.car import Car


def test_every_profile_of_a_broker_has_its_limit() -> None:
    profiles = next(f.type for f in msgspec.structs.fields(UplinkSettings) if f.name == "broker_profile")
    assert set(UNCONFIRMED_BYTES) == set(get_args(profiles))


def test_the_endpoint_is_the_vehicles_own(tmp_path: Path) -> None:
    car = Car.make(tmp_path)
    configuration = read_configuration(settings.load(car.config))
    found = endpoint(configuration.identity, configuration.settings.uplink)
    assert (found.host, found.port) == ("localhost", car.broker_port)
    assert found.client_id == configuration.identity.vehicle
    assert found.key_file == car.identity / "device.key.pem"
