"""Models the driveline of the virtual vehicle, a plug-in hybrid with engine, gearbox, motor, battery and brakes.

Pure.  The motion says which force the wheels need.  The operating strategy decides whether engine, motor or brakes
provide this force.  Fuel, charge and currents follow from the decision.  Once a second, the strategy decides whether
the engine runs and whether the charge is sustained.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.columns import STEP_S, STEPS_PER_S, Column, Columns, constant, flag, lagged
from simulator.road import Motion
from simulator.route import PEAK, Segment, Stop
from simulator.temperatures import Temperatures

MASS_KG: Final = 1720.0
WHEEL_RADIUS_M: Final = 0.32
CELLS: Final = 96
CAPACITY_AH: Final = 37.0
TANK_L: Final = 43.0
NM_PER_BAR: Final = 42.0
ENGINE_MAX_W: Final = 82_000.0

_G: Final = 9.81
_RPM: Final = 60 / (2 * math.pi)  # rpm of one rad/s
_GEAR_RATIOS: Final = 3.4 * np.array([0.0, 4.1, 2.35, 1.55, 1.15, 0.86, 0.69])
_MOTOR_RATIO: Final = 9.0
_UP_MPS: Final = np.array([4.5, 8.0, 12.0, 16.5, 21.0])  # speeds at which the next gear follows
_DOWN_MPS: Final = 0.78 * _UP_MPS
_IDLE_RPM: Final = 940.0
_CHARGING_RPM: Final = 1_450.0
_OHM: Final = 0.11
_FUEL_J_PER_L: Final = 32.2e6  # petrol, 43 MJ/kg at 0.75 kg/l


@dataclass(frozen=True, slots=True, eq=False)
class Driveline(Columns):
    """Holds forces, powers and energies of the driveline as columns."""

    wheel_force_n: Column  # force of the drive, or minus the force of all brakes together
    pedal: Column  # accelerator, 0 to 1
    brake_pedal: Column  # 0 to 1
    brake_bar: Column
    engine_on: Column
    engine_rpm: Column
    engine_nm: Column
    engine_w: Column
    engine_share: Column  # share of the power at the wheels, 0 to 1
    overrun: Column
    fuel_w: Column
    fuel_lph: Column
    fuel_used_l: Column
    fuel_level_l: Column
    gear: Column
    gear_target: Column
    clutch: Column
    motor_rpm: Column
    motor_nm: Column
    motor_w: Column  # power at the wheels, negative during regeneration
    charging_w: Column  # from the engine into the battery
    sustaining: Column  # the strategy keeps the charge instead of using it
    battery_v: Column
    battery_a: Column  # positive during discharge
    state_of_charge: Column  # 0 to 1
    throughput_kwh: Column


class Hybrid:
    """Keeps the state of the driveline, and advances it by one second at a time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._soc = float(rng.uniform(0.28, 0.9))
        self._fuel_start_l = float(rng.uniform(12.0, TANK_L))
        self._throughput_kwh = float(rng.uniform(1_500.0, 18_000.0))
        self._fuel_used_l = self._brake_bar = self._rpm = 0.0
        self._engine_on_s = 0  # 0 if the engine is off
        self._sustaining = False
        self._gear = 0

    def second(self, motion: Motion, segment: Segment, temperatures: Temperatures, *, parked: bool) -> Driveline:
        """Return forces, powers and energies for the second that `motion` describes.

        `temperatures` are the temperatures before that second.
        """
        speed = motion.speed_mps
        force = _resistance(motion)
        demand_w = np.maximum(force, 0.0) * speed
        braking_n = np.maximum(-force, 0.0)
        regeneration_w = self._regeneration(braking_n, speed)
        holding = speed[-1] == 0.0 and not parked
        brake_bar = self._brakes(braking_n - regeneration_w / np.maximum(speed, 0.1), holding=holding)

        # The power is split in this order: regeneration and brakes first, then engine and gearbox.  Motor and battery
        # provide or take all other power.
        self._decide_engine(segment, temperatures)
        engine_on = self._engine_on_s > 0
        gear, gear_target = self._shift(segment, speed, parked=parked)
        clutch = (gear > 0) & (speed > 2.5) & engine_on
        rpm = self._turn(np.where(clutch, speed / WHEEL_RADIUS_M * _GEAR_RATIOS[gear] * _RPM, 0.0))
        fires = (rpm > 600.0) & engine_on
        overrun = fires & clutch & (braking_n > 0) & (rpm > 1_150.0)
        share = np.where(fires & clutch & (demand_w > 500.0), 0.65, 0.0)
        charging_w = np.where(fires & (braking_n == 0), 5_500.0 if self._sustaining else 900.0, 0.0)
        engine_w = np.minimum(share * demand_w / 0.93 + charging_w, ENGINE_MAX_W)
        fuel_w = np.where(fires & ~overrun, engine_w / 0.34 + 4.2 * rpm, 0.0)
        dragged_nm = -22.0 - 0.004 * rpm
        fuel_used = self._fuel_used_l + np.cumsum(fuel_w) * (STEP_S / _FUEL_J_PER_L)

        motor_w = demand_w * (1.0 - share) - regeneration_w
        auxiliary_w = 430.0 + temperatures.heater_w + temperatures.compressor_w
        battery_w = np.where(motor_w > 0, motor_w / 0.91, motor_w * 0.89) - 0.9 * charging_w + auxiliary_w
        open_v = CELLS * (3.45 + 0.68 * self._soc)
        battery_a = battery_w / open_v
        soc = np.clip(self._soc - np.cumsum(battery_a) * (STEP_S / 3_600 / CAPACITY_AH), 0.02, 1.0)
        throughput = self._throughput_kwh + np.cumsum(np.abs(battery_w)) * (STEP_S / 3.6e6)

        self._fuel_used_l, self._soc = float(fuel_used[-1]), float(soc[-1])
        self._throughput_kwh = float(throughput[-1])
        return Driveline(
            wheel_force_n=force,
            pedal=np.clip(np.maximum(force, 0.0) / 6_500.0 + speed / 160.0 * (force > 0), 0.0, 1.0),
            brake_pedal=np.clip(braking_n / (MASS_KG * 7.0) + 0.2 * holding, 0.0, 1.0),
            brake_bar=brake_bar,
            engine_on=constant(engine_on),
            engine_rpm=rpm,
            engine_nm=np.where(overrun, dragged_nm, np.where(fires, engine_w * _RPM / np.maximum(rpm, 600.0), 0.0)),
            engine_w=engine_w,
            engine_share=share,
            overrun=flag(overrun),
            fuel_w=fuel_w,
            fuel_lph=fuel_w * (3_600 / _FUEL_J_PER_L),
            fuel_used_l=fuel_used,
            # A simulated drive may use more than its tank holds.  The modulo then fills the tank again.
            fuel_level_l=(self._fuel_start_l - fuel_used) % TANK_L,
            gear=gear.astype(np.float64),
            gear_target=gear_target.astype(np.float64),
            clutch=flag(clutch),
            motor_rpm=speed / WHEEL_RADIUS_M * _MOTOR_RATIO * _RPM,
            motor_nm=motor_w / np.maximum(speed, 0.3) * WHEEL_RADIUS_M / _MOTOR_RATIO,
            motor_w=motor_w,
            charging_w=charging_w,
            sustaining=constant(self._sustaining),
            battery_v=open_v - battery_a * _OHM,
            battery_a=battery_a,
            state_of_charge=soc,
            throughput_kwh=throughput,
        )

    def _regeneration(self, braking_n: Column, speed: Column) -> Column:
        """Return the power in W that the motor takes from braking.

        The power is zero at walking pace, and also if the battery is full.
        """
        blend = np.clip((speed - 1.5) / 2.5, 0.0, 1.0) * (self._soc < 0.95)
        return np.minimum(braking_n * speed, 38_000.0) * blend

    def _brakes(self, friction_n: Column, *, holding: bool) -> Column:
        wanted_bar = friction_n * (WHEEL_RADIUS_M / NM_PER_BAR) + (11.0 if holding else 0.0)
        pressure = lagged(wanted_bar, self._brake_bar, 0.08)
        self._brake_bar = float(pressure[-1])
        return pressure

    def _decide_engine(self, segment: Segment, temperatures: Temperatures) -> None:
        """Decide whether the engine runs in this second.

        Hard acceleration, high speed, an empty battery or a cold cabin turns the engine on, for six seconds at least.
        """
        # Sustaining begins when the charge falls below 25 %, and ends when it has risen to 30 %.  Without this
        # hysteresis the engine would start at every stop.
        self._sustaining = self._soc < (0.30 if self._sustaining else 0.25)
        mean_mps = (segment.start_mps + segment.end_mps) / 2
        peak_mps2 = PEAK * (segment.end_mps - segment.start_mps) / segment.duration_s
        cold = temperatures.heating_w > 3_000.0 and temperatures.coolant < 55.0
        wanted = mean_mps * peak_mps2 * MASS_KG > 17_000.0 or mean_mps > 18.0 or self._sustaining or cold
        wanted = wanted and segment.stop is not Stop.KERB
        self._engine_on_s = self._engine_on_s + 1 if wanted or 0 < self._engine_on_s < 6 else 0

    def _shift(self, segment: Segment, speed: Column, *, parked: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (gear, target gear).  The gear follows its target after 0.2 s."""
        # Speed is monotonic within a segment, so a running maximum or minimum provides all the hysteresis that is
        # needed.
        if parked:
            self._gear = 0
            neutral = np.zeros(STEPS_PER_S, np.int64)
            return neutral, neutral
        if segment.end_mps >= segment.start_mps:
            wanted = 1 + np.searchsorted(_UP_MPS, speed, side="right")
            target = np.maximum(np.maximum.accumulate(wanted), self._gear)
        else:
            wanted = 1 + np.searchsorted(_DOWN_MPS, speed, side="right")
            target = np.minimum(np.minimum.accumulate(wanted), max(self._gear, 1))
        # A shift that begins in the last 0.2 s counts as complete at the end of the second.
        gear = np.concatenate([np.full(20, self._gear), target[:-20]])
        self._gear = int(target[-1])
        return gear, target

    def _turn(self, coupled_rpm: Column) -> Column:
        """Return the engine speed in rpm.

        A running engine follows the wheels through a closed clutch, but does not settle below its idle speed.  If the
        engine is off, its speed falls to zero.
        """
        engine_on = self._engine_on_s > 0
        idle_rpm = _CHARGING_RPM if self._sustaining else _IDLE_RPM
        wanted = np.maximum(coupled_rpm, idle_rpm if engine_on else 0.0)
        rpm = lagged(wanted, self._rpm, 0.13 if engine_on else 0.3)
        rpm[rpm < 1.0] = 0.0
        self._rpm = float(rpm[-1])
        return rpm


def _resistance(motion: Motion) -> Column:
    """Return the force at the wheels, in N, that the motion needs.

    The force overcomes inertia, rolling resistance, slope and air.  It is zero at standstill.
    """
    # 0.009 is the rolling coefficient of a car tyre.  0.38 kg/m is half of air density times drag area (0.63 m²).
    speed = motion.speed_mps
    force = MASS_KG * (motion.acceleration_mps2 + _G * (0.009 + motion.grade)) + 0.38 * speed**2
    return np.where(speed > 0, force, 0.0)
