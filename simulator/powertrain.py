"""What the controllers of the powertrain bus send: a sampler for each message of demo_powertrain.dbc.

Pure.  Units are those of the database.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulator.columns import Column, flag
from simulator.hybrid import CAPACITY_AH, CELLS, MASS_KG, NM_PER_BAR, WHEEL_RADIUS_M
from simulator.road import TRACK_M, WHEELBASE_M
from simulator.sampling import KMH, Sampler, Sending, Signals
from simulator.urban_cycle import Drive

_G: Final = 9.81


def wheel_speeds(d: Drive, s: Sending) -> Signals:
    """Outer wheels run farther; each tyre is worn a little differently."""
    m = d.motion
    speed, half = m.speed_mps * KMH, m.curvature_per_m * TRACK_M / 2
    front = np.hypot(1.0, m.curvature_per_m * WHEELBASE_M)
    worn = s.traits(10, 4, 0.997, 1.003)
    return {
        "FrontLeft": speed * (front - half) * worn[0],
        "FrontRight": speed * (front + half) * worn[1],
        "RearLeft": speed * (1 - half) * worn[2],
        "RearRight": speed * (1 + half) * worn[3],
        "FrontLeftValid": 1,
        "FrontRightValid": 1,
        "RearLeftValid": 1,
        "RearRightValid": 1,
    }


def brake_status(d: Drive, _: Sending) -> Signals:
    """The parking brake goes with the selector's P."""
    return {
        "MasterCylinderPressure": d.driveline.brake_bar,
        "PedalTravel": 100 * d.driveline.brake_pedal,
        "PedalPressed": flag(d.driveline.brake_pedal > 0.01),
        "AbsActive": 0,
        "TractionControlActive": 0,
        "StabilityControlActive": 0,
        "ParkingBrakeState": d.body.parked,
        "HoldAssistActive": flag((d.motion.speed_mps == 0) & (d.body.parked == 0)),
        "FrictionTorque": d.driveline.brake_bar * NM_PER_BAR,
    }


def steering_angle(d: Drive, s: Sending) -> Signals:
    """Self-aligning torque grows with lateral acceleration."""
    m = d.motion
    return {
        "Angle": m.steering_deg,
        "Rate": m.steering_deg_per_s,
        "Torque": 0.9 * m.yaw_rate_rps * m.speed_mps + 0.002 * m.steering_deg_per_s + s.noise(11, 0.05),
    }


def inertial_sensors(d: Drive, s: Sending) -> Signals:
    """What accelerometers feel includes the slope."""
    m = d.motion
    return {
        "LongitudinalAcceleration": m.acceleration_mps2 + _G * m.grade + s.noise(12, 0.03),
        "LateralAcceleration": m.yaw_rate_rps * m.speed_mps + s.noise(13, 0.03),
        "YawRate": np.degrees(m.yaw_rate_rps) + s.noise(14, 0.05),
    }


def vehicle_motion(d: Drive, _: Sending) -> Signals:
    """The reference speed."""
    moving = flag(d.motion.speed_mps > 0)
    return {
        "Speed": d.motion.speed_mps * KMH,
        "Direction": moving,
        "Standstill": 1 - moving,
        "RoadGrade": 100 * d.motion.grade,
        "MassEstimate": MASS_KG + 75 * d.body.passenger,
    }


def engine_status(d: Drive, s: Sending) -> Signals:
    """State: off, cranking until it fires, idle with the clutch open, running, overrun."""
    e = d.driveline
    state = np.where(e.clutch > 0, 3.0, 2.0)
    state = np.where(e.overrun > 0, 4.0, state)
    state = np.where(e.engine_rpm <= 600, 1.0, state)
    state = np.where(e.engine_on > 0, state, 0.0)
    return {
        "Speed": np.where(e.engine_rpm > 0, e.engine_rpm + s.noise(15, 4.0), 0.0).clip(0.0),
        "Torque": e.engine_nm,
        "ThrottlePosition": e.engine_on * (4 + 80 * e.engine_w / 82_000),
        "State": state,
        "FuelCutOff": e.overrun,
        "IgnitionAngle": e.engine_on * (12 + e.engine_rpm / 250 - e.engine_nm / 25),
    }


def engine_air(d: Drive, s: Sending) -> Signals:
    """Air follows fuel; without fuel Lambda reads lean."""
    e = d.driveline
    fires = e.fuel_w > 0
    load = e.engine_nm.clip(0) / 280
    return {
        "ManifoldPressure": np.where(fires, 32 + 95 * load, 97.0) + s.noise(16, 0.3),
        "MassAirFlow": e.fuel_w / 43e6 * 1000 * 14.6,
        "IntakeAirTemperature": d.body.ambient_degc + 8 + 12 * load,
        "Lambda": np.where(fires, 1 + s.noise(17, 0.02), 2.0),
        "BoostPressure": (95 * load - 66).clip(0),
    }


def engine_thermal(d: Drive, _: Sending) -> Signals:
    """Oil pressure comes with speed."""
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
    """Level sensors slosh."""
    e = d.driveline
    return {
        "Level": (e.fuel_level_l + s.noise(18, 0.1)).clip(0),
        "FlowRate": e.fuel_lph,
        "RailPressure": np.where(e.engine_on > 0, 60 + e.engine_w / 600, 0.0),
        "UsedSinceStart": e.fuel_used_l,
        "RangeCombustion": e.fuel_level_l / 0.058,
    }


def accelerator_pedal(d: Drive, _: Sending) -> Signals:
    """What the driver asks for."""
    e = d.driveline
    return {
        "Position": 100 * e.pedal,
        "Kickdown": flag(e.pedal > 0.95),
        "Released": flag(e.pedal == 0),
        "RequestedWheelTorque": e.wheel_force_n * WHEEL_RADIUS_M,
        "RequestedPower": e.wheel_force_n * d.motion.speed_mps / 1000,
    }


def transmission_status(d: Drive, _: Sending) -> Signals:
    """The selector knows P and D in this town."""
    e = d.driveline
    return {
        "GearEngaged": e.gear,
        "GearTarget": e.gear_target,
        "SelectorPosition": _selector(d),
        "ShiftInProgress": flag(e.gear != e.gear_target),
        "ClutchClosed": e.clutch,
        "InputSpeed": e.engine_rpm * e.clutch,
        "OilTemperature": d.thermal.gearbox,
    }


def motor_status(d: Drive, _: Sending) -> Signals:
    """Traction motor."""
    e = d.driveline
    return {
        "Speed": e.motor_rpm,
        "Torque": e.motor_nm,
        "State": np.where(e.motor_w > 0, 2.0, np.where(e.motor_w < 0, 3.0, 1.0)),
        "PhaseCurrent": 1.6 * np.abs(e.motor_nm),
    }


def inverter_thermal(d: Drive, _: Sending) -> Signals:
    """The direct current side without what the auxiliaries take."""
    e = d.driveline
    return {
        "MotorTemperature": d.thermal.motor,
        "InverterTemperature": d.thermal.inverter,
        "LinkVoltage": e.battery_v,
        "LinkCurrent": e.motor_w / e.battery_v,
        "CoolantFlow": 6 + 0.05 * np.abs(e.motor_w) / 1000,
    }


def hybrid_control(d: Drive, _: Sending) -> Signals:
    """Mode: ready at standstill, electric, hybrid, charge-sustaining, regeneration."""
    e = d.driveline
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
    """Traction battery."""
    e = d.driveline
    return {
        "Voltage": e.battery_v + s.noise(19, 0.1),
        "Current": e.battery_a + s.noise(20, 0.1),
        "StateOfCharge": 100 * e.state_of_charge,
        "ContactorState": 2,
    }


def battery_limits(d: Drive, s: Sending) -> Signals:
    """A cold battery takes less; a nearly empty one gives less."""
    cells = _cells(d, s)
    temperature = d.thermal.battery
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
    """One group of four in each frame."""
    cells = _cells(d, s)
    named = {f"CellVoltage{number:02d}": cells[number - 1] for number in range(1, CELLS + 1)}
    return {"CellGroup": (s.index % 24).astype(np.float64), **named}


def battery_modules(d: Drive, s: Sending) -> Signals:
    """One group of six in each frame."""
    spread = s.traits(21, 24, -1.5, 1.5)
    named = {f"ModuleTemperature{number:02d}": d.thermal.battery + spread[number - 1] for number in range(1, 25)}
    return {"ModuleGroup": (s.index % 4).astype(np.float64), **named}


def battery_energy(d: Drive, s: Sending) -> Signals:
    """Ageing moves too slowly to be seen in a drive."""
    e = d.driveline
    health = s.trait(22, 88, 99.5)
    return {
        "EnergyThroughput": e.throughput_kwh,
        "StateOfHealth": health,
        "FullCycles": np.floor(e.throughput_kwh / 26),
        "RemainingEnergy": e.state_of_charge * CAPACITY_AH * 0.36 * health / 100,
    }


def charger_status(d: Drive, _: Sending) -> Signals:
    """Unplugged while driving."""
    return {
        "PlugState": 0,
        "ChargeState": 0,
        "MainsVoltage": 0,
        "MainsCurrent": 0,
        "Temperature": d.body.ambient_degc + 3,
        "TimeToFull": 0,
    }


def radar_objects(d: Drive, s: Sending) -> Signals:
    """The vehicle ahead, if there is one, then parked cars and a sign gliding past; nothing at standstill changes."""
    m = d.motion
    following = m.lead_gap_m > 0
    columns: dict[str, Column | float] = {
        "MeasurementTime": (s.t_ns // 1000 % (1 << 32)).astype(np.float64),
        "ObjectCount": 3 + flag(following),
        "Object1Id": flag(following) * 7,
        "Object1Class": flag(following),
        "Object1Distance": np.where(following, m.lead_gap_m, 0.0),
        "Object1LateralOffset": np.where(following, s.noise(23, 0.1), 0.0),
        "Object1RelativeSpeed": np.where(following, m.lead_speed_mps, 0.0),
        "Object1Confidence": flag(following) * 96,
    }
    for number, (kind, spacing, lateral) in enumerate([(1, 55, -3.4), (1, 70, 6.2), (4, 90, -5.0)], start=2):
        passed = m.distance_m / spacing
        columns |= {
            f"Object{number}Id": 10 * number + np.floor(passed) % 10,
            f"Object{number}Class": kind,
            f"Object{number}Distance": spacing * (1 - passed % 1),
            f"Object{number}LateralOffset": lateral + s.noise(23 + number, 0.05),
            f"Object{number}RelativeSpeed": -m.speed_mps,
            f"Object{number}Confidence": 60 + 35 * (passed % 1),
        }
    return columns


def driver_assistance(d: Drive, _: Sending) -> Signals:
    """Cruise control is active at 70 km/h; time to collision only where the gap closes."""
    m = d.motion
    cruising = (d.body.speed_limit_kmh >= 70) & (np.abs(m.acceleration_mps2) < 0.5) & (m.speed_mps > 15)
    closing = -m.lead_speed_mps
    near = (m.lead_gap_m > 0) & (closing > 0.05)
    return {
        "CruiseState": 1 + flag(cruising),
        "CruiseSetSpeed": d.body.speed_limit_kmh,
        "TimeGap": 1.5,
        "LeadVehicleDetected": flag(m.lead_gap_m > 0),
        "LeadVehicleDistance": m.lead_gap_m,
        "TimeToCollision": np.where(near, m.lead_gap_m / np.maximum(closing, 0.05), 20.46).clip(0, 20.46),
        "LaneOffset": 0.3 * np.sin(m.distance_m / 27),
        "LaneKeepingState": 1 + flag(m.speed_mps > 16),
    }


def emission_diagnostics(d: Drive, s: Sending) -> Signals:
    """Blocks in turn, and the two pages of the monitor block in turn."""
    block = s.index % 6
    hours = {3: s.trait(30, 300, 900), 4: s.trait(31, 1200, 2500), 5: s.trait(32, 2600, 4000)}
    running_h = d.motion.time_s / 3600
    return {
        "DiagnosticBlock": block.astype(np.float64),
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


def _selector(d: Drive) -> Column:
    return np.where(d.body.parked > 0, 0.0, 3.0)


def _cells(d: Drive, s: Sending) -> Column:
    """Voltages (96, n): the pack's, shared, and the small difference that each cell was made with."""
    return d.driveline.battery_v / CELLS + s.traits(36, CELLS, -0.006, 0.006)[:, None]


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "WheelSpeeds": wheel_speeds,
    "BrakeStatus": brake_status,
    "SteeringAngle": steering_angle,
    "InertialSensors": inertial_sensors,
    "VehicleMotion": vehicle_motion,
    "EngineStatus": engine_status,
    "EngineAir": engine_air,
    "EngineThermal": engine_thermal,
    "FuelSystem": fuel_system,
    "AcceleratorPedal": accelerator_pedal,
    "TransmissionStatus": transmission_status,
    "MotorStatus": motor_status,
    "InverterThermal": inverter_thermal,
    "HybridControl": hybrid_control,
    "BatteryStatus": battery_status,
    "BatteryLimits": battery_limits,
    "BatteryCells": battery_cells,
    "BatteryModules": battery_modules,
    "BatteryEnergy": battery_energy,
    "ChargerStatus": charger_status,
    "RadarObjects": radar_objects,
    "DriverAssistance": driver_assistance,
    "EmissionDiagnostics": emission_diagnostics,
}
