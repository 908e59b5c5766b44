"""Samples what motor, inverter, traction battery and charger send on the powertrain bus.  Pure.

Each sampler returns the signals of one message of demo_powertrain.dbc, in the units of that database.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulator.columns import Column
from simulator.hybrid import CAPACITY_AH, CELLS
from simulator.sampling import Sampler, Sending, Signals
from simulator.urban_cycle import Drive

_CELL_GROUPS: Final = 24
_MODULES: Final = 24
_MODULE_GROUPS: Final = 4
_PACK_KWH_PER_AH: Final = 0.36  # 96 cells at their nominal 3.7 V


def motor_status(d: Drive, _: Sending) -> Signals:
    """Return the state of the traction motor, which drives, coasts or regenerates."""
    e = d.driveline
    return {
        "Speed": e.motor_rpm,
        "Torque": e.motor_nm,
        "State": np.where(e.motor_w > 0, 2.0, np.where(e.motor_w < 0, 3.0, 1.0)),
        "PhaseCurrent": 1.6 * np.abs(e.motor_nm),
    }


def inverter_thermal(d: Drive, _: Sending) -> Signals:
    """Return the state of the inverter.  The link current does not include the auxiliaries, only the motor."""
    e = d.driveline
    return {
        "MotorTemperature": d.thermal.motor,
        "InverterTemperature": d.thermal.inverter,
        "LinkVoltage": e.battery_v,
        "LinkCurrent": e.motor_w / e.battery_v,
        "CoolantFlow": 6 + 0.05 * np.abs(e.motor_w) / 1000,
    }


def hybrid_control(d: Drive, _: Sending) -> Signals:
    """Return the mode and the powers of the hybrid drive.

    The mode is ready (at standstill), electric, hybrid, charge-sustaining or regeneration.
    """
    e = d.driveline
    # Later conditions override earlier ones.  A vehicle that brakes regenerates, whatever the strategy is.
    mode = np.where(e.engine_share > 0, 3.0, 2.0)
    mode = np.where(d.motion.speed_mps == 0, 1.0, mode)
    mode = np.where((e.sustaining > 0) & (e.engine_on > 0), 4.0, mode)
    mode = np.where(e.motor_w < 0, 5.0, mode)
    return {
        "Mode": mode,
        "EngineStartRequest": e.engine_on,
        "EnginePowerShare": 100 * e.engine_share,
        "SystemPower": e.wheel_force_n * d.motion.speed_mps / 1000,
        "RegenerationPower": (-e.motor_w / 1000).clip(0),
        "AvailablePower": 62 + 82 * (e.engine_rpm > 600),
    }


def battery_status(d: Drive, s: Sending) -> Signals:
    """Return the state of the traction battery.  The noise is up to 0.1 V on the voltage and 0.1 A on the current."""
    e = d.driveline
    return {
        "Voltage": e.battery_v + s.noise(19, 0.1),
        "Current": e.battery_a + s.noise(20, 0.1),
        "StateOfCharge": 100 * e.state_of_charge,
        "ContactorState": 2,
    }


def battery_limits(d: Drive, s: Sending) -> Signals:
    """Return the limits of the traction battery.

    A cold battery gives and takes less power.  A nearly empty battery gives less, and a nearly full battery takes less.
    """
    cells = _cells(d, s)
    temperature = d.thermal.battery
    # Lithium-ion cells must not be charged fast when cold, because metallic lithium would plate their anodes.
    warmth = ((temperature + 15) / 30).clip(0.15, 1)
    return {
        "MaxDischargePower": 80 * warmth * (d.driveline.state_of_charge * 8).clip(0, 1),
        "MaxChargePower": 40 * warmth * ((1 - d.driveline.state_of_charge) * 12).clip(0, 1),
        "TemperatureMin": temperature - 1.5,
        "TemperatureMax": temperature + 1.5,
        "CellVoltageMin": cells.min(axis=0),
        "CellVoltageMax": cells.max(axis=0),
    }


def battery_cells(d: Drive, s: Sending) -> Signals:
    """Return the cell voltages.  Each frame carries one group of four cells."""
    cells = _cells(d, s)
    named = {f"CellVoltage{number:02d}": cells[number - 1] for number in range(1, CELLS + 1)}
    return {"CellGroup": (s.index % _CELL_GROUPS).astype(np.float64), **named}


def battery_modules(d: Drive, s: Sending) -> Signals:
    """Return the module temperatures.  Each frame carries one group of six modules."""
    spread = s.traits(21, _MODULES, -1.5, 1.5)
    named = {f"ModuleTemperature{n + 1:02d}": d.thermal.battery + spread[n] for n in range(_MODULES)}
    return {"ModuleGroup": (s.index % _MODULE_GROUPS).astype(np.float64), **named}


def battery_energy(d: Drive, s: Sending) -> Signals:
    """Return energy and health of the traction battery.  Ageing is too slow to be seen in one drive."""
    e = d.driveline
    health = s.trait(22, 88, 99.5)
    return {
        "EnergyThroughput": e.throughput_kwh,
        "StateOfHealth": health,
        # One full cycle moves 26 kWh: 13 kWh in and 13 kWh out.
        "FullCycles": np.floor(e.throughput_kwh / 26),
        "RemainingEnergy": e.state_of_charge * CAPACITY_AH * _PACK_KWH_PER_AH * health / 100,
    }


def charger_status(d: Drive, _: Sending) -> Signals:
    """Return the state of the charger, which is unplugged while the vehicle drives."""
    return {
        "PlugState": 0,
        "ChargeState": 0,
        "MainsVoltage": 0,
        "MainsCurrent": 0,
        "Temperature": d.body.ambient_degc + 3,
        "TimeToFull": 0,
    }


def _cells(d: Drive, s: Sending) -> Column:
    """Return the cell voltages (96, n).

    Each is an equal share of the pack voltage, plus a constant difference of the cell.
    """
    return d.driveline.battery_v / CELLS + s.traits(36, CELLS, -0.006, 0.006)[:, None]


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "MotorStatus": motor_status,
    "InverterThermal": inverter_thermal,
    "HybridControl": hybrid_control,
    "BatteryStatus": battery_status,
    "BatteryLimits": battery_limits,
    "BatteryCells": battery_cells,
    "BatteryModules": battery_modules,
    "BatteryEnergy": battery_energy,
    "ChargerStatus": charger_status,
}
