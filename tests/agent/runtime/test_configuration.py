"""Test what a reload compares of a configuration and its files, and which faults are found before anything changes."""

import os
import stat
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.runtime.configuration import local_campaigns, read_configuration
from agent.runtime.configured_sources import try_sources
from agent.settings import settings
from tests.agent.car import Car, campaign, vehicle


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def test_the_same_files_are_the_same_configuration_but_for_campaigns(car: Car) -> None:
    before = read_configuration(settings.load(car.config))
    (car.campaigns / "more.json").write_bytes(campaign("more"))
    after = read_configuration(settings.load(car.config))
    assert after.equals_except_campaigns(before)
    assert [file.campaign.name for file in after.local] == ["everything", "more"]


def test_another_setting_or_another_database_is_another_agent(car: Car) -> None:
    before = read_configuration(settings.load(car.config))
    car.write(telemetry="increment_s = 0.3")
    assert not read_configuration(settings.load(car.config)).equals_except_campaigns(before)
    car.write(telemetry="increment_s = 0.2")
    database = car.folder / "body.dbc"
    text = car.config.read_text()
    body = text.split('dbc = ["')[2].split('"')[0]
    database.write_bytes(Path(body).read_bytes())
    car.config.write_text(text.replace(body, str(database)))
    one = read_configuration(settings.load(car.config))
    database.write_text(database.read_text(encoding="cp1252").replace("BO_ ", "BO_ ", 1).replace("(0.1,", "(0.2,", 1))
    assert not read_configuration(settings.load(car.config)).equals_except_campaigns(one)


def test_state_is_for_the_agent_alone_and_what_apps_read_can_be_reached(car: Car) -> None:
    before = os.umask(0o077)  # the umask of the service
    try:
        configuration = read_configuration(settings.load(car.config))
    finally:
        os.umask(before)
    assert stat.S_IMODE(configuration.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(configuration.runtime_folder.stat().st_mode) == 0o755


def test_sources_are_tried_without_being_opened(car: Car) -> None:
    try_sources(settings.load(car.config))
    car.write(sources=vehicle() + "\n" + vehicle())
    with pytest.raises(Permanent, match="both deliver bus can0"):
        try_sources(settings.load(car.config))


def test_a_folder_of_campaigns_that_is_missing_has_none(tmp_path: Path) -> None:
    assert local_campaigns(tmp_path / "nowhere") == ()
