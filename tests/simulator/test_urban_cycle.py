"""The drive is reproducible and stays within the limits of a real car."""

from dataclasses import fields
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.columns import STEP_S, Columns
from simulator.route import Stop, segments
from simulator.temperatures import SET_DEGC
from simulator.urban_cycle import Drive, UrbanCycle

SEEDS = [1, 2, 3, 4, 5, 6, 7, 8]


@cache
def drive(seed: int) -> Drive:
    return UrbanCycle(seed).advance(900)


def groups(of: Drive) -> list[Columns]:
    return [of.motion, of.driveline, of.thermal, of.body]


def same(left: Drive, right: Drive) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for one, other in zip(groups(left), groups(right), strict=True)
        for field in fields(one)
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_cut_of_time_gives_the_same_drive(seed: int, cuts: list[int]) -> None:
    whole = UrbanCycle(seed).advance(sum(cuts))
    parts = UrbanCycle(seed)
    start = 0
    for seconds in cuts:
        rows = np.arange(start, start + 100 * seconds)
        assert same(parts.advance(seconds), whole.take(rows))
        start += 100 * seconds


def test_another_seed_is_another_drive() -> None:
    assert not same(drive(1), drive(2))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_quantity_is_finite_and_of_one_length(seed: int) -> None:
    for group in groups(drive(seed)):
        for field in fields(group):
            column = getattr(group, field.name)
            assert column.shape == (90_000,)
            assert np.isfinite(column).all(), field.name


@pytest.mark.parametrize("seed", SEEDS)
def test_motion_is_that_of_a_car_in_town(seed: int) -> None:
    motion = drive(seed).motion
    assert motion.speed_mps.min() == 0.0
    assert 10.0 < motion.speed_mps.max() * 3.6 <= 75.0
    assert np.abs(motion.acceleration_mps2).max() <= 3.0
    assert np.abs(motion.yaw_rate_rps * motion.speed_mps).max() <= 3.2
    assert np.abs(motion.steering_deg).max() < 500.0
    assert 0.1 < (motion.speed_mps == 0.0).mean() < 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_speed_acceleration_distance_and_place_agree(seed: int) -> None:
    motion = drive(seed).motion
    assert np.abs(np.diff(motion.speed_mps) / STEP_S - motion.acceleration_mps2[1:]).max() < 0.1
    assert np.allclose(np.diff(motion.distance_m), motion.speed_mps[1:] * STEP_S)
    north_m = np.diff(motion.latitude_deg) * 111_320.0
    east_m = np.diff(motion.longitude_deg) * 111_320.0 * np.cos(np.radians(48.1374))
    assert np.allclose(np.hypot(north_m, east_m), np.diff(motion.distance_m), atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_temperatures_stay_between_the_air_and_what_heats_them(seed: int) -> None:
    thermal = drive(seed).thermal
    lowest = min(drive(seed).body.ambient_degc.min(), SET_DEGC)
    for name, highest in [("coolant", 105), ("oil", 120), ("cabin", 60), ("battery", 50), ("motor", 110)]:
        column = getattr(thermal, name)
        assert lowest - 1.0 <= column.min(), name
        assert column.max() <= highest, name
        assert np.abs(np.diff(column)).max() < 0.05, name


@pytest.mark.parametrize("seed", SEEDS)
def test_the_cabin_comes_close_to_the_set_temperature(seed: int) -> None:
    assert abs(drive(seed).thermal.cabin[-1] - SET_DEGC) < 4.0


@pytest.mark.parametrize("seed", SEEDS)
def test_energy_comes_from_somewhere(seed: int) -> None:
    driveline = drive(seed).driveline
    assert ((driveline.state_of_charge >= 0.02) & (driveline.state_of_charge <= 1.0)).all()
    assert (np.diff(driveline.fuel_used_l) >= 0).all()
    assert (driveline.fuel_lph[driveline.engine_on == 0] == 0).all()
    assert (driveline.engine_w[driveline.engine_rpm <= 600] == 0).all()
    assert (driveline.engine_nm.max() < 400) & (driveline.engine_rpm.max() < 4_500)
    used = driveline.state_of_charge[0] - driveline.state_of_charge[-1]
    assert used * 37.0 == pytest.approx(driveline.battery_a[1:].sum() * STEP_S / 3_600, abs=1e-6)


def test_engine_starts_and_stops_and_gears_change() -> None:
    driveline = drive(3).driveline
    assert np.abs(np.diff(driveline.engine_on)).sum() >= 4
    assert set(np.unique(driveline.gear)) >= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert np.abs(np.diff(driveline.gear)).max() <= 4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_door_is_open_only_at_standstill_in_park(seed: int) -> None:
    body, motion = drive(seed).body, drive(seed).motion
    for door in (body.front_right_open, body.rear_right_open, body.tailgate_open):
        assert (motion.speed_mps[door > 0] == 0).all()
        assert (body.parked[door > 0] == 1).all()
        assert (body.locked[door > 0] == 0).all()
    assert any((drive(each).body.front_right_open > 0).any() for each in SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_segments_of_the_route_join(seed: int) -> None:
    route = segments(seed)
    before = next(route)
    assert before.start_mps == 0.0
    for _ in range(300):
        segment = next(route)
        assert segment.start_mps == before.end_mps
        assert (segment.stop is not Stop.NONE) == (segment.start_mps == segment.end_mps == 0.0)
        before = segment
