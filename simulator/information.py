"""Samples what instruments, parking sensors, GNSS receiver and telematics unit send on the body bus.  Pure.

Each sampler returns the signals of one message of demo_body.dbc, in the units of that database.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.columns import Column, Flags, flag
from simulator.hybrid import CAPACITY_AH
from simulator.sampling import KMH, Sampler, Sending, Signals
from simulator.urban_cycle import Drive

_WALKING_MPS: Final = 10 / KMH


def gateway_speed(d: Drive, _: Sending) -> Signals:
    """Return the values that the gateway copies from the powertrain bus."""
    return {
        "VehicleSpeed": d.motion.speed_mps * KMH,
        "EngineSpeed": d.driveline.engine_rpm,
        "SelectorPosition": np.where(d.body.parked > 0, 0.0, 3.0),
        "EngineRunning": flag(d.driveline.engine_rpm > 600),
        "IgnitionState": 2,
    }


def odometer(d: Drive, s: Sending) -> Signals:
    """Return the driven distances.  Trip A began with the drive, and trip B with the last refuelling."""
    km = d.motion.distance_m / 1000
    return {"Total": s.trait(41, 3_000, 160_000) + km, "TripA": km, "TripB": s.trait(42, 40, 600) + km}


def service_interval(d: Drive, s: Sending) -> Signals:
    """Return the kilometres and days to the next service, and the remaining life of the oil in percent."""
    return {
        "DistanceToService": s.trait(43, 500, 14_000) - d.motion.distance_m / 1000,
        "DaysToService": np.floor(s.trait(44, 20, 340)),
        "OilLife": s.trait(45, 20, 95),
    }


def displayed_values(d: Drive, _: Sending) -> Signals:
    """Return the values that the instruments display.

    In motion, the speedometer adds 3 % and 1 km/h to the speed.  Until the first kilometre is driven, the average
    consumption is computed as if that kilometre were complete.
    """
    m, e = d.motion, d.driveline
    speed_kmh = m.speed_mps * KMH
    # The trip computer assumes 0.36 kWh per ampere-hour, 17 kWh/100 km and 5.8 l/100 km.
    electric_km = e.state_of_charge * CAPACITY_AH * 0.36 / 0.17
    return {
        # A speedometer must never show less than the true speed (UN Regulation 39).
        "Speed": np.where(speed_kmh > 0, np.ceil(1.03 * speed_kmh + 1), 0.0),
        "AverageSpeed": m.distance_m / np.maximum(m.time_s, 1.0) * KMH,
        "AverageConsumption": e.fuel_used_l / np.maximum(m.distance_m, 1_000.0) * 100_000,
        "RangeElectric": electric_km,
        "RangeTotal": electric_km + e.fuel_level_l / 0.058,
    }


def tyre_pressures(d: Drive, s: Sending) -> Signals:
    """Return pressures and temperatures of the tyres.

    The pressure follows the temperature.  A tyre is an ideal gas in a constant volume that was filled at 20 °C.
    """
    filled = s.traits(46, 4, 2.25, 2.55)
    warmer = s.traits(47, 4, 0.0, 3.0)
    columns: dict[str, Column | float] = {}
    for name, bar, kelvin in zip(("FrontLeft", "FrontRight", "RearLeft", "RearRight"), filled, warmer, strict=True):
        # Gauge pressure is relative to the outside air, so 1.013 bar are added for the gas law and subtracted again.
        temperature = d.thermal.tyre + kelvin
        columns[f"Pressure{name}"] = (bar + 1.013) * (temperature + 273.15) / 293.15 - 1.013
        columns[f"Temperature{name}"] = temperature
    return columns


def parking_sensors(d: Drive, s: Sending) -> Signals:
    """Return the distances that the parking sensors measure.

    Below 10 km/h the sensors see the kerb and parked cars to the right, and the vehicle ahead.
    """
    awake = d.motion.speed_mps < _WALKING_MPS
    following = (d.motion.lead_gap_m > 0) & awake
    ahead = np.where(following, (d.motion.lead_gap_m - 1).clip(0.3, 5.1), 5.1)
    right = np.where(awake, 0.9 + 0.3 * np.sin(d.motion.distance_m / 3), 5.1)
    return {
        "FrontLeftOuter": 5.1,
        "FrontLeftInner": ahead,
        "FrontRightInner": ahead,
        "FrontRightOuter": right,
        "RearLeftOuter": 5.1,
        "RearLeftInner": 5.1,
        "RearRightInner": 5.1,
        "RearRightOuter": np.where(awake, right + s.noise(58, 0.03), 5.1),
    }


def gnss_position(d: Drive, s: Sending) -> Signals:
    """Return latitude and longitude with a few decimetres of noise."""
    return {
        "Latitude": d.motion.latitude_deg + s.noise(49, 2e-6),
        "Longitude": d.motion.longitude_deg + s.noise(50, 3e-6),
    }


def gnss_motion(d: Drive, s: Sending) -> Signals:
    """Return the motion as the GNSS receiver sees it.  Under a bridge, the receiver falls back to dead reckoning."""
    m = d.motion
    covered = _covered(d)
    return {
        "Altitude": m.altitude_m + s.noise(51, 0.6),
        "SpeedOverGround": np.maximum(m.speed_mps * KMH + s.noise(52, 0.1) * (m.speed_mps > 0), 0.0),
        "Course": (90 - np.degrees(m.heading_rad)) % 360,
        "FixType": np.where(covered, 4.0, 3.0),
        "Satellites": np.where(covered, 0.0, np.floor(13.5 + s.noise(53, 3))),
        "HorizontalDilution": np.where(covered, 9.9, 0.9 + s.noise(54, 0.2)),
    }


def gnss_time(_: Drive, s: Sending) -> Signals:
    """Return date and time in UTC, taken from the time of each frame."""
    milliseconds = (s.t_ns // 1_000_000).astype("datetime64[ms]")
    days = milliseconds.astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    in_day = _count(milliseconds - days)
    return {
        "Year": 1970 + np.floor(_count(months - np.datetime64(0, "M")) / 12),
        "Month": 1 + _count(months - np.datetime64(0, "M")) % 12,
        "Day": 1 + _count(days - months.astype("datetime64[D]")),
        "Hour": in_day // 3_600_000,
        "Minute": in_day // 60_000 % 60,
        "Second": in_day // 1_000 % 60,
        "Millisecond": in_day % 1_000,
        "Valid": 1,
    }


def telematics_status(d: Drive, _: Sending) -> Signals:
    """Return the state of the telematics unit.  Its reception changes along the way."""
    strength = -84 + 14 * np.sin(d.motion.distance_m / 430) - 25 * _covered(d)
    return {
        "SignalStrength": strength,
        "NetworkType": np.where(strength > -90, 5.0, 4.0),
        "Roaming": 0,
        "BytesSent": np.floor(2_100 * d.motion.time_s),
        "Uptime": np.floor(d.motion.time_s),
    }


def _covered(d: Drive) -> Flags:
    """Return for each row whether the vehicle is under a bridge."""
    return np.sin(d.motion.distance_m / 210.0) > 0.93


def _count(difference: NDArray[np.timedelta64]) -> Column:
    return difference.astype(np.int64).astype(np.float64)


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "GatewaySpeed": gateway_speed,
    "Odometer": odometer,
    "ServiceInterval": service_interval,
    "DisplayedValues": displayed_values,
    "TyrePressures": tyre_pressures,
    "ParkingSensors": parking_sensors,
    "GnssPosition": gnss_position,
    "GnssMotion": gnss_motion,
    "GnssTime": gnss_time,
    "TelematicsStatus": telematics_status,
}
