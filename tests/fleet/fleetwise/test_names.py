"""Campaigns are compared with the names that the imported decoders have in a vehicle."""

from typing import Any

import pytest

from fleet.fleetwise.campaigns import Refused, take_campaign
from fleet.fleetwise.findings import Remarks
from fleet.fleetwise.forms import CampaignForm, read_form
from fleet.fleetwise.signals import Known, Source

SOURCES = {
    "Vehicle.Brakes.Pressure": Source.CAN,
    "Vehicle.Cabin.Row1.IsOpen": Source.CAN,
    "Vehicle.OBD.Speed": Source.OBD,
    "Vehicle.Bad.Signal": Source.REFUSED,
}
MAPPED = frozenset({"Vehicle.Cabin.Row1.IsOpen"})


def remarks_on(*names: str, mappings_are_read: bool = True) -> list[tuple[str, str]]:
    content: dict[str, Any] = {
        "name": "x",
        "collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 10_000}},
        "signalsToCollect": [{"name": name} for name in names],
    }
    remarks = Remarks()
    known = Known(SOURCES, MAPPED, mappings_are_read)
    taken = take_campaign(content, read_form(content, CampaignForm), "x.json", known, remarks)
    assert taken.content == content
    return [(remark.key, remark.text) for remark in remarks.all()]


def test_a_signal_with_a_mapping_is_collected_where_vehicles_read_mappings() -> None:
    assert remarks_on("Vehicle.Cabin.Row1.IsOpen") == []
    ((key, text),) = remarks_on("Vehicle.Brakes.Pressure", "Vehicle.Cabin.Row1.IsOpen", mappings_are_read=False)
    assert (key, "needs its mapping" in text) == ("signalsToCollect[1].name", True)


def test_a_glob_misses_names_of_a_mapping() -> None:
    assert remarks_on("Vehicle.Brakes.*") == []
    ((key, text),) = remarks_on("Vehicle.*")
    assert (key, "does not find Vehicle.Cabin.Row1.IsOpen" in text) == ("signalsToCollect[0].name", True)
    with pytest.raises(Refused, match="does not find"):
        remarks_on("Vehicle.Cabin.*")
    with pytest.raises(Refused, match="no CAN signal"):
        remarks_on("Vehicle.OBD.*")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Vehicle.OBD.Speed", "diagnostic requests"),
        ("Vehicle.Bad.Signal", "its CAN decoder is refused"),
        ("Vehicle.Nothing", "no decoder for it"),
    ],
)
def test_a_campaign_that_would_collect_nothing_is_refused(name: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        remarks_on(name, "Vehicle.OBD.Speed" if name != "Vehicle.OBD.Speed" else "Vehicle.Nothing")
    ((_, text),) = remarks_on("Vehicle.Brakes.Pressure", name)
    assert words in text
