import pytest

from agent.formats.up.columns import SignalInfo
from agent.formats.up.signals import SignalTable
from agent.telemetry.collect.names import Place, SignalNames
from can_dbc.values import Kind


def table(name: str, *signals: str, bus: str = "can0") -> SignalTable:
    return SignalTable(
        name,
        tuple((SignalInfo(f"{name}.{signal}", bus, None, Kind.UINT, 8, 1.0, 0.0), {}) for signal in signals),
    )


TABLES = (
    table("Engine", "Speed", "SpeedLimit"),
    table("WheelSpeeds", "FrontLeft", "RearLeft"),
    table("Engine", "Speed", bus="can1"),
    table("Vehicle", "Speed"),
    table("Odd", "A[0].x", "A0.x"),
    table("Vehicle.Powertrain", "Speed"),
)
NAMES = SignalNames(TABLES, first_of_paths=5)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("Engine.Speed", [(0, 0), (2, 0)]),  # the message of this name is on two buses
        ("Engine.SpeedLimit", [(0, 1)]),
        ("engine.speed", []),  # upper and lower case differ
        ("Engine", []),
        ("Engine.*", []),  # a glob is not an exact name
        ("Vehicle.Powertrain.Speed", [(5, 0)]),  # a VSS path of a mapping
        ("Vehicle.WheelSpeeds.RearLeft", [(1, 1)]),  # FleetWise prefixes names with "Vehicle."
        ("Vehicle.Speed", [(3, 0)]),  # a message has the name Vehicle
        ("Vehicle.Vehicle.Speed", [(3, 0)]),
        ("Odd.A[0].x", [(4, 0)]),  # spelt exactly, although it looks like a glob
    ],
)
def test_a_name_means_the_signals_that_are_called_so(name: str, places: list[tuple[int, int]]) -> None:
    assert NAMES.find(name) == tuple(Place(*place) for place in places)


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        ("Engine.*", [(0, 0), (0, 1), (2, 0)]),
        ("*.?ear*", [(1, 1)]),
        ("wheel*", []),
        ("Odd.A[0].x", [(4, 1)]),
        ("Vehicle.WheelSpeeds.*", [(1, 0), (1, 1)]),
        ("Vehicle.*", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (4, 1)]),  # all, with their prefix
        ("V*.Speed", [(0, 0), (2, 0), (3, 0)]),
        ("?ehicle.Engine.Speed", [(0, 0), (2, 0)]),
        ("Vehicle.Powertrain.*", [(5, 0)]),
        ("*.Speed", [(0, 0), (2, 0), (3, 0)]),  # VSS paths need a glob with their root
    ],
)
def test_a_glob_means_the_signals_whose_name_it_matches(pattern: str, places: list[tuple[int, int]]) -> None:
    assert NAMES.find_matching(pattern) == tuple(Place(*place) for place in places)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("Engine.Sped", "Engine.Speed"),
        ("WHEELSPEEDS.REARLEFT", "WheelSpeeds.RearLeft"),
        ("Vehicle.WheelSpeeds.RaerLeft", "WheelSpeeds.RearLeft"),
        ("Vehicle.Powertrain.Sped", "Vehicle.Powertrain.Speed"),
        ("Battery.Voltage", None),
    ],
)
def test_the_nearest_name_is_suggested(misspelt: str, meant: str | None) -> None:
    assert not NAMES.knows(misspelt)
    assert NAMES.suggest(misspelt) == meant


def test_a_bare_name_means_signals_of_messages_and_no_vss_path() -> None:
    assert NAMES.find_bare("Speed") == (Place(0, 0), Place(2, 0), Place(3, 0))
    assert NAMES.find_bare("Speed", "can1") == (Place(2, 0),)


def test_a_name_or_glob_is_known_if_it_means_any_signal() -> None:
    assert NAMES.knows("Engine.Speed")
    assert NAMES.knows("*.Speed")
    assert not NAMES.knows("*.Torque")
