"""What a vehicle takes of large documents bounds what is signed."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Permanent
from fleet.publishing import large_sizes
from fleet.publishing.repository import read_state
from tests.agent.pushes.world import VEHICLE, Fleet, noisy_campaign

ONE, TWO = noisy_campaign("one", 30_000), noisy_campaign("two", 30_000)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Return a fleet whose vehicles take one of the two documents, but not both."""
    monkeypatch.setattr(large_sizes, "PACKED_BYTES", 50_000)
    return Fleet(tmp_path / "fleet")


def test_documents_that_a_vehicle_would_refuse_for_their_size_are_not_signed(fleet: Fleet) -> None:
    fleet.publish(None, ONE, audience=({"brand": (VEHICLE.brand,)},))
    before = read_state(fleet.folder.metadata).versions
    with pytest.raises(Permanent, match=f"^Vehicle {VEHICLE.vehicle} would get .* packed\\): campaigns/.*two.json"):
        fleet.publish(None, TWO)
    assert read_state(fleet.folder.metadata).versions == before


def test_documents_for_all_are_bounded_also_if_no_vehicle_is_enrolled(fleet: Fleet) -> None:
    with pytest.raises(
        Permanent, match=r"^Every vehicle would get .* packed\): campaigns/one.json, campaigns/two.json"
    ):
        fleet.publish(None, ONE, TWO)


def test_documents_of_different_vehicles_are_not_added_up(fleet: Fleet) -> None:
    fleet.enrol(replace(VEHICLE, vehicle="11111111-2222-4333-8444-555555555555", brand="Nova"))
    fleet.publish(None, ONE, audience=({"brand": (VEHICLE.brand,)},))
    fleet.publish(None, TWO, audience=({"brand": ("Nova",)},))
    assert len(read_state(fleet.folder.metadata).targets.targets) == 2
