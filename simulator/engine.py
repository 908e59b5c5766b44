"""Samples what engine, gearbox and their diagnostics send on the powertrain bus.  Pure.

Each sampler returns the signals of one message of demo_powertrain.dbc, in the units of that database.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulator.columns import flag
from simulator.hybrid import ENGINE_MAX_W, WHEEL_RADIUS_M
from simulator.sampling import Sampler, Sending, Signals
from simulator.urban_cycle import Drive


def engine_status(d: Drive, s: Sending) -> Signals:
    """Return the state of the engine.

    The engine is off, cranking (until it fires), idle (with an open clutch), running, or in overrun.
    """
    e = d.driveline
    # Later conditions override earlier ones.  A vehicle with its engine off is "off", whatever the clutch does.
    state = np.where(e.clutch > 0, 3.0, 2.0)
    state = np.where(e.overrun > 0, 4.0, state)
    state = np.where(e.engine_rpm <= 600, 1.0, state)
    state = np.where(e.engine_on > 0, state, 0.0)
    return {
        "Speed": np.where(e.engine_rpm > 0, e.engine_rpm + s.noise(15, 4.0), 0.0).clip(0.0),
        "Torque": e.engine_nm,
        "ThrottlePosition": e.engine_on * (4 + 80 * e.engine_w / ENGINE_MAX_W),
        "State": state,
        "FuelCutOff": e.overrun,
        "IgnitionAngle": e.engine_on * (12 + e.engine_rpm / 250 - e.engine_nm / 25),
    }


def engine_air(d: Drive, s: Sending) -> Signals:
    """Return the state of the air that the engine takes in.

    The air flow follows the fuel flow.  Without fuel, Lambda reads lean.
    """
    e = d.driveline
    fires = e.fuel_w > 0
    load = e.engine_nm.clip(0) / 280
    return {
        "ManifoldPressure": np.where(fires, 32 + 95 * load, 97.0) + s.noise(16, 0.3),
        # Petrol gives 43 MJ/kg and burns with 14.6 times its mass of air (Bosch Automotive Handbook).
        "MassAirFlow": e.fuel_w / 43e6 * 1000 * 14.6,
        "IntakeAirTemperature": d.body.ambient_degc + 8 + 12 * load,
        "Lambda": np.where(fires, 1 + s.noise(17, 0.02), 2.0),
        "BoostPressure": (95 * load - 66).clip(0),
    }


def engine_thermal(d: Drive, _: Sending) -> Signals:
    """Return temperatures and oil pressure of the engine.  The oil pressure rises with the engine speed."""
    t = d.thermal
    return {
        "CoolantTemperature": t.coolant,
        "OilTemperature": t.oil,
        "OilPressure": np.where(d.driveline.engine_rpm > 300, 1.1 + d.driveline.engine_rpm / 900, 0.0),
        "ExhaustTemperature": t.exhaust,
        "CatalystTemperature": t.catalyst,
        "FanDuty": (8 * (t.coolant - 92)).clip(0, 100),
        "ThermostatOpen": flag(t.coolant > 88),
    }


def fuel_system(d: Drive, s: Sending) -> Signals:
    """Return the state of the fuel system.  Sloshing changes the measured level by up to a decilitre."""
    e = d.driveline
    return {
        "Level": (e.fuel_level_l + s.noise(18, 0.1)).clip(0),
        "FlowRate": e.fuel_lph,
        "RailPressure": np.where(e.engine_on > 0, 60 + e.engine_w / 600, 0.0),
        "UsedSinceStart": e.fuel_used_l,
        # The trip computer assumes 5.8 l/100 km.
        "RangeCombustion": e.fuel_level_l / 0.058,
    }


def accelerator_pedal(d: Drive, _: Sending) -> Signals:
    """Return the state of the accelerator pedal, and the torque and power that the driver asks for."""
    e = d.driveline
    return {
        "Position": 100 * e.pedal,
        "Kickdown": flag(e.pedal > 0.95),
        "Released": flag(e.pedal == 0),
        "RequestedWheelTorque": e.wheel_force_n * WHEEL_RADIUS_M,
        "RequestedPower": e.wheel_force_n * d.motion.speed_mps / 1000,
    }


def transmission_status(d: Drive, _: Sending) -> Signals:
    """Return the state of the transmission.

    The selector is only in P or D, because the drive through the town needs no reverse gear.
    """
    e = d.driveline
    return {
        "GearEngaged": e.gear,
        "GearTarget": e.gear_target,
        "SelectorPosition": np.where(d.body.parked > 0, 0.0, 3.0),
        "ShiftInProgress": flag(e.gear != e.gear_target),
        "ClutchClosed": e.clutch,
        "InputSpeed": e.engine_rpm * e.clutch,
        "OilTemperature": d.thermal.gearbox,
    }


def emission_diagnostics(d: Drive, s: Sending) -> Signals:
    """Return the diagnostic signals.

    Each frame carries one of six blocks, in turn.  The monitor block carries one of two pages, in turn.
    """
    block = s.index % 6
    hours = {3: s.trait(30, 300, 900), 4: s.trait(31, 1200, 2500), 5: s.trait(32, 2600, 4000)}
    running_h = d.motion.time_s / 3600
    return {
        "DiagnosticBlock": block.astype(np.float64),
        # All eleven monitors have completed since the fault memory was cleared.
        "ReadinessBits": 0x7FF,
        "WarmUpCycles": np.floor(s.trait(33, 20, 200)),
        "DistanceSinceClear": s.trait(34, 2_000, 20_000) + d.motion.distance_m / 1000,
        "StoredFaultCount": 1,
        "PendingFaultCount": 0,
        "FirstFaultCode": 0x0456,  # small leak in the tank ventilation
        "MonitorPage": (s.index // 6 % 2).astype(np.float64),
        "MisfireCount": np.floor(d.driveline.fuel_used_l * 3),
        "KnockRetard": 2 * d.driveline.engine_share,
        "CatalystEfficiency": ((d.thermal.catalyst - 150) / 3).clip(0, 96),
        "LambdaAgeing": s.trait(35, -2, 2),
        "OperatingHours": np.select([block == number for number in hours], list(hours.values()), 0.0) + running_h,
    }


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "EngineStatus": engine_status,
    "EngineAir": engine_air,
    "EngineThermal": engine_thermal,
    "FuelSystem": fuel_system,
    "AcceleratorPedal": accelerator_pedal,
    "TransmissionStatus": transmission_status,
    "EmissionDiagnostics": emission_diagnostics,
}
