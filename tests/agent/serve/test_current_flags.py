"""Test that OFREP and flagd's file follow releases and the time together."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Transient
from agent.formats.down.toggles import parse_toggles
from agent.formats.down.validity import Moment
from agent.serve.current_flags import CurrentFlags, Flags
from agent.serve.flagd_file import FlagdFile
from agent.serve.toggles import ToggleService
from tests.agent.formats.down.test_validity import CAR, DAY_S, RULE, TERMS, at, document, flag

FEATURE = document(flag(TERMS, targeting=RULE))


class FailingFile(FlagdFile):
    """A flagd file on a disk that may refuse."""

    refuses = False

    def write(self, definition: bytes | None) -> None:
        if self.refuses:
            raise Transient("the disk is full")
        super().write(definition)


class Car:
    """Holds the flags of a vehicle whose time the test sets."""

    def __init__(self, folder: Path) -> None:
        self.moment = at(10)
        self.service = ToggleService(CAR)
        self.file = FailingFile(folder)
        self.flags = CurrentFlags(self.service, self.file, lambda: self.moment)

    def publish(self, content: bytes) -> Flags:
        flags = self.flags.prepare(parse_toggles(content, "t.json"))
        self.flags.write(flags)
        self.flags.switch(flags)
        return flags

    def wait_until(self, moment: Moment) -> None:
        """Let the time become `moment`, and let the flags follow it."""
        self.moment = moment
        asyncio.run(self.flags.follow_time())

    @property
    def by_ofrep(self) -> Any:
        return self.service.evaluate("f0").value

    @property
    def in_file(self) -> Any:
        (found,) = json.loads(self.file.path.read_bytes())["flags"].values()
        # Without a rule, the file gives the default.
        return "by rule" if "targeting" in found else found["defaultVariant"]


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car(tmp_path)


def test_a_feature_ends_by_itself_in_ofrep_and_in_the_file(car: Car) -> None:
    car.publish(FEATURE)
    assert (car.by_ofrep, car.in_file) == ("demo", "by rule")
    car.wait_until(at(35))
    assert (car.by_ofrep, car.in_file) == ("demo", "by rule")  # in its grace time
    car.wait_until(at(44))
    assert (car.by_ofrep, car.in_file) == ("off", "off")


def test_a_feature_begins_by_itself(car: Car) -> None:
    car.moment = at(-1)
    car.publish(FEATURE)
    assert (car.by_ofrep, car.in_file) == ("off", "off")
    car.wait_until(at(0))
    assert (car.by_ofrep, car.in_file) == ("demo", "by rule")


def test_contact_with_the_fleet_after_the_end_ends_the_grace_time(car: Car) -> None:
    car.moment = at(31)
    car.publish(FEATURE)
    assert car.by_ofrep == "demo"
    car.wait_until(at(31, signed=31))
    assert (car.by_ofrep, car.in_file) == ("off", "off")


def test_a_full_disk_does_not_prolong_a_feature(car: Car) -> None:
    car.publish(FEATURE)
    car.file.refuses = True
    car.wait_until(at(44))
    assert car.by_ofrep == "off"
    assert not car.file.path.exists()


def test_a_release_that_has_written_its_file_is_not_overwritten_by_the_time(car: Car) -> None:
    car.publish(FEATURE)
    new = car.flags.prepare(parse_toggles(document(flag({}, defaultVariant="demo")), "t.json"))
    car.flags.write(new)
    car.wait_until(at(44))
    assert (car.by_ofrep, car.in_file) == ("demo", "demo")  # OFREP still has the feature, by its rule
    car.flags.switch(new)
    assert (car.by_ofrep, car.in_file) == ("demo", "demo")


def test_a_release_that_is_taken_back_follows_the_time_again(car: Car) -> None:
    old = car.publish(FEATURE)
    car.wait_until(at(44))
    car.flags.write(car.flags.prepare(parse_toggles(document(flag({})), "t.json")))
    car.flags.write(old)  # the state of the time before the end
    assert car.in_file == "by rule"
    car.wait_until(at(44))
    assert (car.by_ofrep, car.in_file) == ("off", "off")


def test_flags_without_terms_ask_for_no_time(tmp_path: Path) -> None:
    def refuse() -> Moment:
        raise AssertionError("no flag depends on the time")

    flags = CurrentFlags(ToggleService(CAR), FlagdFile(tmp_path), refuse)
    prepared = flags.prepare(parse_toggles(document(flag({}, targeting=RULE)), "t.json"))
    flags.write(prepared)
    flags.switch(prepared)

    asyncio.run(flags.follow_time())


def test_the_tag_changes_exactly_when_the_definition_does(car: Car) -> None:
    tags = []
    for moment in (at(1), at(2), at(50), at(60)):
        car.moment = moment
        tags.append(car.flags.prepare(parse_toggles(FEATURE, "t.json")).tag)
    assert tags[0] == tags[1] != tags[2] == tags[3]
    assert DAY_S == 86_400
