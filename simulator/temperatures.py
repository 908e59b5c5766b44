"""Models the temperatures of the virtual vehicle with lumped heat capacities, in steps of one second.

Pure.  The temperatures of coolant and cabin follow an energy balance.  They change so slowly that explicit steps of one
second are stable.  All other temperatures relax towards a target with a time constant.
"""

import math
from dataclasses import astuple, dataclass
from typing import Final

import numpy as np

from simulator.columns import STEPS_PER_S, Column, Columns

SET_DEGC: Final = 21.5
_BLOCK_J_PER_K: Final = 52_000.0  # engine block and coolant
_CABIN_J_PER_K: Final = 65_000.0  # air and surfaces
_THERMOSTAT_DEGC: Final = 88.0
_HEATER_COOLANT_DEGC: Final = 50.0  # above this, the engine's waste heat warms the cabin


@dataclass(frozen=True, slots=True)
class Heat:
    """Holds the inputs of the heat model for one second."""

    ambient_degc: float
    solar_wpm2: float
    speed_mps: float
    engine_on: bool
    engine_load: float  # 0 to 1
    fuel_w: float
    motor_w: float  # absolute value
    battery_a: float
    door_open: bool


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Holds the temperatures of the vehicle in °C, and the heat flows of the climate control in W."""

    coolant: float
    oil: float
    exhaust: float
    catalyst: float
    gearbox: float
    motor: float
    inverter: float
    battery: float
    tyre: float
    cabin: float
    heating_w: float = 0.0
    heater_w: float = 0.0
    compressor_w: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Thermal(Columns):
    """Holds the quantities of `Temperatures` as columns.  Within a second, each quantity changes linearly."""

    coolant: Column
    oil: Column
    exhaust: Column
    catalyst: Column
    gearbox: Column
    motor: Column
    inverter: Column
    battery: Column
    tyre: Column
    cabin: Column
    heating_w: Column
    heater_w: Column
    compressor_w: Column


def parked_at(ambient_degc: float, *, warmth_k: float) -> Temperatures:
    """Return the temperatures of a parked vehicle whose engine is still `warmth_k` warmer than the ambient air."""
    excess = (warmth_k, warmth_k, 2 * warmth_k, 3 * warmth_k, 5.0, 4.0, 4.0, 3.0, 0.0, 4.0)
    return Temperatures(*(ambient_degc + k for k in excess))


def after_one_second(now: Temperatures, heat: Heat) -> Temperatures:
    """Return the temperatures one second after `now`, with the inputs `heat`."""
    ambient, on = heat.ambient_degc, heat.engine_on
    heating_w = _climate(now.cabin)
    from_coolant = now.coolant > _HEATER_COOLANT_DEGC
    taken_w = max(heating_w, 0.0) if from_coolant else 0.0
    radiator_w = max(now.coolant - _THERMOSTAT_DEGC, 0.0) * 2_600.0
    # A petrol engine gives about a third of its fuel's energy to the coolant.
    coolant = now.coolant + (0.3 * heat.fuel_w - 12.0 * (now.coolant - ambient) - radiator_w - taken_w) / _BLOCK_J_PER_K
    loss_w_per_k = 450.0 if heat.door_open else 55.0
    cabin_w = heating_w + 1.1 * heat.solar_wpm2 + loss_w_per_k * (ambient - now.cabin)
    load = heat.engine_load
    return Temperatures(
        coolant=coolant,
        oil=_relaxed(now.oil, coolant + (10.0 * load if on else -2.0), 140.0),
        exhaust=_relaxed(now.exhaust, 260.0 + 480.0 * load if on else ambient, 9.0 if on else 150.0),
        catalyst=_relaxed(now.catalyst, 420.0 + 380.0 * load if on else ambient, 45.0 if on else 700.0),
        gearbox=_relaxed(now.gearbox, ambient + 22.0 + 1.6 * heat.speed_mps, 700.0),
        motor=_relaxed(now.motor, ambient + 12.0 + 0.0022 * heat.motor_w, 190.0),
        inverter=_relaxed(now.inverter, ambient + 9.0 + 0.0013 * heat.motor_w, 60.0),
        battery=_relaxed(now.battery, 0.35 * ambient + 16.0 + 0.0006 * heat.battery_a**2, 2400.0),
        tyre=_relaxed(now.tyre, ambient + 1.1 * heat.speed_mps, 600.0),
        cabin=now.cabin + cabin_w / _CABIN_J_PER_K,
        heating_w=heating_w,
        heater_w=0.0 if from_coolant else max(heating_w, 0.0),
        compressor_w=max(-heating_w, 0.0) / 2.6,
    )


def between(before: Temperatures, after: Temperatures) -> Thermal:
    """Return the columns of one second in which each quantity changes linearly from `before` to `after`."""
    along = np.arange(1, STEPS_PER_S + 1) / STEPS_PER_S
    ends = zip(astuple(before), astuple(after), strict=True)
    return Thermal(*(start + (end - start) * along for start, end in ends))


def _climate(cabin_degc: float) -> float:
    """Return the heat flow into the cabin in W.

    The flow is proportional to the deviation from the set temperature, within the limits of heater and compressor.  It
    is negative if the cabin is cooled.
    """
    return min(max(1_300.0 * (SET_DEGC - cabin_degc), -5_200.0), 5_000.0)


def _relaxed(value: float, target: float, time_constant_s: float) -> float:
    # This is the exact solution of the first-order equation over one second, which is stable for any time constant.
    return target + (value - target) * math.exp(-1.0 / time_constant_s)
