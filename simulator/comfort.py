"""Samples what doors, lights, wipers, climate control, seats and the 12 V supply send on the body bus.  Pure.

Each sampler returns the signals of one message of demo_body.dbc, in the units of that database.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulator.columns import flag
from simulator.sampling import KMH, Sampler, Sending, Signals
from simulator.temperatures import SET_DEGC
from simulator.urban_cycle import Drive

_BLINK_S: Final = 0.68  # 88 blinks a minute; UN Regulation 48 allows 60 to 120
_DARK_LX: Final = 1_000.0  # UN Regulation 48 requires the low beam below this ambient light


def door_status(d: Drive, _: Sending) -> Signals:
    """Return which doors and flaps are open or locked.  The central lock works on all doors alike."""
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
    """Return the openings of the windows.  On warm days, the driver's window is a little open below 50 km/h."""
    ajar = (d.body.ambient_degc > 22) & (d.motion.speed_mps < 50 / KMH)
    return {"FrontLeft": 20 * flag(ajar), "FrontRight": 0, "RearLeft": 0, "RearRight": 0, "Sunroof": 0}


def exterior_lights(d: Drive, _: Sending) -> Signals:
    """Return the state of the exterior lights.

    A light sensor switches the low beam.  The indicators blink at a fixed rate, counted from the start of the drive.
    """
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
    """Return the state of the wipers, which go from interval to slow to fast as the rain gets harder."""
    rain = d.body.rain
    state = np.searchsorted([0.03, 0.3, 0.7], rain, side="right").astype(np.float64)
    return {
        "State": state,
        "Parked": flag(state == 0),
        "RainIntensity": 100 * rain,
        "WasherFluidLevel": s.trait(40, 30, 95),
    }


def stalk_controls(d: Drive, _: Sending) -> Signals:
    """Return the settings of the stalks.  The wiper stalk stays in automatic."""
    return {
        "IndicatorStalk": np.where(d.body.indicator > 0, 1.0, np.where(d.body.indicator < 0, 2.0, 0.0)),
        "HighBeamStalk": 0,
        "WiperStalk": 1,
        "Horn": 0,
    }


def climate_status(d: Drive, _: Sending) -> Signals:
    """Return the state of the climate control.  The blower speed rises with the heating or cooling power."""
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
    """Return the state of the compressor and the refrigerant, and the solar radiation.

    The speed of the compressor and the pressure of the refrigerant rise with the compressor's electric power.
    """
    power = d.thermal.compressor_w
    return {
        "CompressorSpeed": np.where(power > 0, 1_200 + 2.6 * power, 0.0),
        "CompressorPower": power,
        "RefrigerantPressure": 5 + 0.1 * d.body.ambient_degc + power / 250,
        "SolarRadiation": d.body.solar_wpm2,
    }


def ambient_conditions(d: Drive, _: Sending) -> Signals:
    """Return temperature, humidity and pressure of the outside air.  The pressure falls with altitude."""
    return {
        "Temperature": d.body.ambient_degc,
        "Humidity": 55 + 40 * d.body.rain,
        # This is the barometric formula of the ICAO standard atmosphere, for a sea-level pressure of 1013.2 hPa.
        "Pressure": 1013.2 * (1 - d.motion.altitude_m / 44_330) ** 5.255,
    }


def seat_status(d: Drive, s: Sending) -> Signals:
    """Return occupancy, belts and heating of the seats.  The heating is on when it is cold outside."""
    heating = np.where(d.body.ambient_degc < 2, 2.0, np.where(d.body.ambient_degc < 10, 1.0, 0.0))
    return {
        "DriverOccupied": 1,
        "PassengerOccupied": d.body.passenger,
        "RearLeftOccupied": 0,
        "RearRightOccupied": 0,
        # The driver fastens the belt within three seconds of setting off.
        "DriverBelt": 1 - d.body.parked * (d.motion.time_s < 3),
        "PassengerBelt": d.body.passenger_belt,
        "RearLeftBelt": 0,
        "RearRightBelt": 0,
        "HeatingDriver": heating,
        "HeatingPassenger": heating * d.body.passenger,
        "DriverSeatPosition": s.trait(48, 20, 80),
    }


def supply_voltage(d: Drive, s: Sending) -> Signals:
    """Return the state of the 12 V supply, which a converter feeds from the traction battery."""
    lamps = flag(d.body.light_lx < _DARK_LX)
    return {
        "Voltage": 14.2 - 0.15 * lamps + s.noise(55, 0.03),
        "BatteryCurrent": 1.5 + s.noise(56, 0.4),
        "StateOfCharge": s.trait(57, 75, 95),
        "ConverterCurrent": 24 + 9 * lamps + 6 * (d.body.rain > 0.03),
    }


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "DoorStatus": door_status,
    "WindowPositions": window_positions,
    "ExteriorLights": exterior_lights,
    "WiperStatus": wiper_status,
    "StalkControls": stalk_controls,
    "ClimateStatus": climate_status,
    "ClimatePower": climate_power,
    "AmbientConditions": ambient_conditions,
    "SeatStatus": seat_status,
    "SupplyVoltage": supply_voltage,
}
