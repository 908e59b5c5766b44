"""What the controllers of the body bus send: a sampler for each message of demo_body.dbc.

Pure.  Units are those of the database.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.columns import Column, Flags, flag
from simulator.hybrid import CAPACITY_AH
from simulator.sampling import KMH, Sampler, Sending, Signals
from simulator.temperatures import SET_DEGC
from simulator.urban_cycle import Drive

_BLINK_S: Final = 0.68
_DARK_LX: Final = 1_000.0
_WALKING_MPS: Final = 10 / KMH


def door_status(d: Drive, _: Sending) -> Signals:
    """The central lock works on all doors alike."""
    b = d.body
    return {
        "FrontLeftOpen": 0,
        "FrontRightOpen": b.front_right_open,
        "RearLeftOpen": 0,
        "RearRightOpen": b.rear_right_open,
        "HoodOpen": 0,
        "TailgateOpen": b.tailgate_open,
        "FuelFlapOpen": 0,
        "ChargeFlapOpen": 0,
        "FrontLeftLock": b.locked,
        "FrontRightLock": b.locked,
        "RearLeftLock": b.locked,
        "RearRightLock": b.locked,
        "ChildLock": 1,
    }


def window_positions(d: Drive, _: Sending) -> Signals:
    """On warm days the driver's window is a little open, below 50 km/h."""
    ajar = (d.body.ambient_degc > 22) & (d.motion.speed_mps < 50 / KMH)
    return {"FrontLeft": 20 * flag(ajar), "FrontRight": 0, "RearLeft": 0, "RearRight": 0, "Sunroof": 0}


def exterior_lights(d: Drive, _: Sending) -> Signals:
    """Low beam by the light sensor; indicators blink on the vehicle's own clock."""
    b = d.body
    dark = b.light_lx < _DARK_LX
    blink = (d.motion.time_s % _BLINK_S) < _BLINK_S / 2
    return {
        "PositionLights": flag(dark),
        "LowBeam": flag(dark),
        "HighBeam": 0,
        "DaytimeRunning": flag(~dark),
        "FogFront": 0,
        "FogRear": 0,
        "BrakeLights": flag(d.driveline.brake_pedal > 0.01),
        "ReverseLights": 0,
        "IndicatorLeft": flag(blink & (b.indicator > 0)),
        "IndicatorRight": flag(blink & (b.indicator < 0)),
        "HazardWarning": 0,
        "SwitchPosition": 1,
        "AmbientLight": b.light_lx,
    }


def wiper_status(d: Drive, s: Sending) -> Signals:
    """Interval, slow, fast as it rains harder."""
    rain = d.body.rain
    state = np.searchsorted([0.03, 0.3, 0.7], rain, side="right").astype(np.float64)
    return {
        "State": state,
        "Parked": flag(state == 0),
        "RainIntensity": 100 * rain,
        "WasherFluidLevel": s.trait(40, 30, 95),
    }


def stalk_controls(d: Drive, _: Sending) -> Signals:
    """The wiper stalk stays in automatic."""
    return {
        "IndicatorStalk": np.where(d.body.indicator > 0, 1.0, np.where(d.body.indicator < 0, 2.0, 0.0)),
        "HighBeamStalk": 0,
        "WiperStalk": 1,
        "Horn": 0,
    }


def gateway_speed(d: Drive, _: Sending) -> Signals:
    """Copied from the powertrain bus."""
    return {
        "VehicleSpeed": d.motion.speed_mps * KMH,
        "EngineSpeed": d.driveline.engine_rpm,
        "SelectorPosition": np.where(d.body.parked > 0, 0.0, 3.0),
        "EngineRunning": flag(d.driveline.engine_rpm > 600),
        "IgnitionState": 2,
    }


def climate_status(d: Drive, _: Sending) -> Signals:
    """The blower works harder the more heat is to be moved."""
    t = d.thermal
    effort = np.abs(t.heating_w) / 5_200
    return {
        "CabinTemperature": t.cabin,
        "SetTemperatureLeft": SET_DEGC,
        "SetTemperatureRight": SET_DEGC,
        "BlowerDuty": 20 + 70 * effort,
        "CompressorOn": flag(t.compressor_w > 0),
        "Recirculation": flag(t.heating_w < -3_500),
        "RearDefrost": flag(d.body.ambient_degc < 3),
        "AirDistribution": np.where(t.heating_w > 0, 4.0, 1.0),
        "VentTemperature": (t.cabin + t.heating_w / 180).clip(4, 65),
        "EvaporatorTemperature": np.where(t.compressor_w > 0, 5.0, d.body.ambient_degc),
        "HeaterPower": t.heater_w,
    }


def climate_power(d: Drive, _: Sending) -> Signals:
    """High-voltage consumers of the climate control."""
    power = d.thermal.compressor_w
    return {
        "CompressorSpeed": np.where(power > 0, 1_200 + 2.6 * power, 0.0),
        "CompressorPower": power,
        "RefrigerantPressure": 5 + 0.1 * d.body.ambient_degc + power / 250,
        "SolarRadiation": d.body.solar_wpm2,
    }


def ambient_conditions(d: Drive, _: Sending) -> Signals:
    """Pressure falls with altitude."""
    return {
        "Temperature": d.body.ambient_degc,
        "Humidity": 55 + 40 * d.body.rain,
        "Pressure": 1013.2 * (1 - d.motion.altitude_m / 44_330) ** 5.255,
    }


def odometer(d: Drive, s: Sending) -> Signals:
    """Trip A began this morning, trip B with the last tank."""
    km = d.motion.distance_m / 1000
    return {"Total": s.trait(41, 3_000, 160_000) + km, "TripA": km, "TripB": s.trait(42, 40, 600) + km}


def service_interval(d: Drive, s: Sending) -> Signals:
    """Due in some thousand kilometres."""
    return {
        "DistanceToService": s.trait(43, 500, 14_000) - d.motion.distance_m / 1000,
        "DaysToService": np.floor(s.trait(44, 20, 340)),
        "OilLife": s.trait(45, 20, 95),
    }


def displayed_values(d: Drive, _: Sending) -> Signals:
    """The needle leads by 3 % and 1 km/h, as the law has it; consumption settles after the first kilometre."""
    m, e = d.motion, d.driveline
    speed_kmh = m.speed_mps * KMH
    electric_km = e.state_of_charge * CAPACITY_AH * 0.36 / 0.17
    return {
        "Speed": np.where(speed_kmh > 0, np.ceil(1.03 * speed_kmh + 1), 0.0),
        "AverageSpeed": m.distance_m / np.maximum(m.time_s, 1.0) * KMH,
        "AverageConsumption": e.fuel_used_l / np.maximum(m.distance_m, 1_000.0) * 100_000,
        "RangeElectric": electric_km,
        "RangeTotal": electric_km + e.fuel_level_l / 0.058,
    }


def tyre_pressures(d: Drive, s: Sending) -> Signals:
    """Ideal gas in a constant volume, inflated at 20 °C."""
    filled = s.traits(46, 4, 2.25, 2.55)
    warmer = s.traits(47, 4, 0.0, 3.0)
    columns: dict[str, Column | float] = {}
    for name, bar, kelvin in zip(("FrontLeft", "FrontRight", "RearLeft", "RearRight"), filled, warmer, strict=True):
        temperature = d.thermal.tyre + kelvin
        columns[f"Pressure{name}"] = (bar + 1.013) * (temperature + 273.15) / 293.15 - 1.013
        columns[f"Temperature{name}"] = temperature
    return columns


def seat_status(d: Drive, s: Sending) -> Signals:
    """Seat heating on cold days."""
    heating = np.where(d.body.ambient_degc < 2, 2.0, np.where(d.body.ambient_degc < 10, 1.0, 0.0))
    return {
        "DriverOccupied": 1,
        "PassengerOccupied": d.body.passenger,
        "RearLeftOccupied": 0,
        "RearRightOccupied": 0,
        "DriverBelt": 1 - d.body.parked * (d.motion.time_s < 3),
        "PassengerBelt": d.body.passenger_belt,
        "RearLeftBelt": 0,
        "RearRightBelt": 0,
        "HeatingDriver": heating,
        "HeatingPassenger": heating * d.body.passenger,
        "DriverSeatPosition": s.trait(48, 20, 80),
    }


def gnss_position(d: Drive, s: Sending) -> Signals:
    """With a few decimetres of noise."""
    return {
        "Latitude": d.motion.latitude_deg + s.noise(49, 2e-6),
        "Longitude": d.motion.longitude_deg + s.noise(50, 3e-6),
    }


def gnss_motion(d: Drive, s: Sending) -> Signals:
    """Under a bridge it is dead reckoning."""
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
    """The calendar of the frame's own time."""
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


def supply_voltage(d: Drive, s: Sending) -> Signals:
    """Carried by the converter from the traction battery."""
    lamps = flag(d.body.light_lx < _DARK_LX)
    return {
        "Voltage": 14.2 - 0.15 * lamps + s.noise(55, 0.03),
        "BatteryCurrent": 1.5 + s.noise(56, 0.4),
        "StateOfCharge": s.trait(57, 75, 95),
        "ConverterCurrent": 24 + 9 * lamps + 6 * (d.body.rain > 0.03),
    }


def parking_sensors(d: Drive, s: Sending) -> Signals:
    """Awake below 10 km/h: kerb and parked cars to the right, the vehicle ahead in front."""
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


def telematics_status(d: Drive, _: Sending) -> Signals:
    """Reception changes along the way."""
    strength = -84 + 14 * np.sin(d.motion.distance_m / 430) - 25 * _covered(d)
    return {
        "SignalStrength": strength,
        "NetworkType": np.where(strength > -90, 5.0, 4.0),
        "Roaming": 0,
        "BytesSent": np.floor(2_100 * d.motion.time_s),
        "Uptime": np.floor(d.motion.time_s),
    }


def _covered(d: Drive) -> Flags:
    """Under a bridge."""
    return np.sin(d.motion.distance_m / 210.0) > 0.93


def _count(difference: NDArray[np.timedelta64]) -> Column:
    return difference.astype(np.int64).astype(np.float64)


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "DoorStatus": door_status,
    "WindowPositions": window_positions,
    "ExteriorLights": exterior_lights,
    "WiperStatus": wiper_status,
    "StalkControls": stalk_controls,
    "GatewaySpeed": gateway_speed,
    "ClimateStatus": climate_status,
    "ClimatePower": climate_power,
    "AmbientConditions": ambient_conditions,
    "Odometer": odometer,
    "ServiceInterval": service_interval,
    "DisplayedValues": displayed_values,
    "TyrePressures": tyre_pressures,
    "SeatStatus": seat_status,
    "GnssPosition": gnss_position,
    "GnssMotion": gnss_motion,
    "GnssTime": gnss_time,
    "SupplyVoltage": supply_voltage,
    "ParkingSensors": parking_sensors,
    "TelematicsStatus": telematics_status,
}
