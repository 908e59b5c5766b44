"""Samples what brakes, steering, radar and driver assistance send on the powertrain bus.  Pure.

Each sampler returns the signals of one message of demo_powertrain.dbc, in the units of that database.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulator.columns import Column, flag
from simulator.hybrid import MASS_KG, NM_PER_BAR
from simulator.road import TRACK_M, WHEELBASE_M
from simulator.sampling import KMH, Sampler, Sending, Signals
from simulator.urban_cycle import Drive

_G: Final = 9.81


def wheel_speeds(d: Drive, s: Sending) -> Signals:
    """Return the wheel speeds; outer wheels run faster than inner ones, and each tyre is worn a little differently."""
    m = d.motion
    # Each wheel follows its own circle, half a track beside the rear axle's centre.  The front wheels are a wheelbase
    # ahead.
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
    """Return the state of the brakes.  The parking brake is on while the selector is in P."""
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
    """Return angle, rate and torque of the steering.  The self-aligning torque grows with lateral acceleration."""
    m = d.motion
    return {
        "Angle": m.steering_deg,
        "Rate": m.steering_deg_per_s,
        "Torque": 0.9 * m.yaw_rate_rps * m.speed_mps + 0.002 * m.steering_deg_per_s + s.noise(11, 0.05),
    }


def inertial_sensors(d: Drive, s: Sending) -> Signals:
    """Return the accelerations and the yaw rate.

    The longitudinal acceleration includes the slope, because gravity acts on the sensor.
    """
    m = d.motion
    return {
        "LongitudinalAcceleration": m.acceleration_mps2 + _G * m.grade + s.noise(12, 0.03),
        "LateralAcceleration": m.yaw_rate_rps * m.speed_mps + s.noise(13, 0.03),
        "YawRate": np.degrees(m.yaw_rate_rps) + s.noise(14, 0.05),
    }


def vehicle_motion(d: Drive, _: Sending) -> Signals:
    """Return the speed, direction and road grade that the brake controller publishes, and its estimate of the mass."""
    moving = flag(d.motion.speed_mps > 0)
    return {
        "Speed": d.motion.speed_mps * KMH,
        "Direction": moving,
        "Standstill": 1 - moving,
        "RoadGrade": 100 * d.motion.grade,
        # A passenger weighs 75 kg, as in the type approval of passenger cars (EU 1230/2012).
        "MassEstimate": MASS_KG + 75 * d.body.passenger,
    }


def radar_objects(d: Drive, s: Sending) -> Signals:
    """Return the objects that the radar sees.

    Object 1 is the vehicle ahead, if there is one.  Objects 2 to 4 are two parked cars and a pedestrian, which the
    vehicle passes.
    """
    m = d.motion
    following = m.lead_gap_m > 0
    columns: dict[str, Column | float] = {
        # The radar's clock counts microseconds in 32 bits and wraps after 71 minutes, as embedded clocks do.
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
    """Return the state of the driver assistance.

    Cruise control is active only where the speed limit is 70 km/h.  A time to collision is given only while the gap to
    the vehicle ahead closes.
    """
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
        # 20.46 s is the largest value of the signal, which stands for "no collision ahead".
        "TimeToCollision": np.where(near, m.lead_gap_m / np.maximum(closing, 0.05), 20.46).clip(0, 20.46),
        "LaneOffset": 0.3 * np.sin(m.distance_m / 27),
        "LaneKeepingState": 1 + flag(m.speed_mps > 16),
    }


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "WheelSpeeds": wheel_speeds,
    "BrakeStatus": brake_status,
    "SteeringAngle": steering_angle,
    "InertialSensors": inertial_sensors,
    "VehicleMotion": vehicle_motion,
    "RadarObjects": radar_objects,
    "DriverAssistance": driver_assistance,
}
