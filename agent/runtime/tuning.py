"""Turn settings into the limits that the components take, when they are built and when the fleet changes a setting."""

from agent.formats.topics import Lane
from agent.link.session import Backoff
from agent.runtime.limits import UNCONFIRMED_BYTES, Limits
from agent.settings.sections import SpoolSettings, TelemetrySettings, UplinkSettings
from agent.telemetry.collect.collector import Limits as CollectorLimits
from agent.telemetry.spool.retention import Limits as SpoolLimits
from agent.telemetry.uplink.link_policy import LinkPolicy
from agent.telemetry.uplink.schedule import Pace


def spool_limits(spool: SpoolSettings, limits: Limits) -> SpoolLimits:
    """Return the limits of the spool."""
    return SpoolLimits.of(spool.quota_bytes, spool.max_age_s, spool.reserve_bytes, limits.pending_max_bytes)


def collector_limits(telemetry: TelemetrySettings, limits: Limits) -> CollectorLimits:
    """Return the limits of the collector."""
    return CollectorLimits(
        increment_ns=round(telemetry.increment_s * 1e9),
        silence_ns=round(limits.silence_s * 1e9),
        increment_max_frames=limits.increment_max_frames,
        window_max_samples=limits.window_max_samples,
        checkpoint_ns=round(telemetry.checkpoint_s * 1e9),
        rings_max_bytes=telemetry.rings_max_bytes,
    )


def pace(uplink: UplinkSettings) -> Pace:
    """Return the limits of sending."""
    return Pace(
        uplink.in_flight,
        uplink.ack_timeout_s,
        UNCONFIRMED_BYTES[uplink.broker_profile],
        # 1 kbit/s is 125 bytes/s.
        backlog_bytes_s=uplink.backlog_kbit_s * 125,
    )


def link_policy(uplink: UplinkSettings) -> LinkPolicy:
    """Return the rules for metered links."""
    lanes = frozenset(lane for lane in Lane if lane.label in uplink.metered_lanes)
    return LinkPolicy(lanes, uplink.metered_daily_mb * 1_000_000)


def backoff(uplink: UplinkSettings, limits: Limits) -> Backoff:
    """Return the waits between attempts to connect."""
    # The wait is random between the floor and a limit.  Without a floor, some attempts would follow a failure at once.
    base_s = limits.backoff_min_s
    return Backoff(floor_s=min(0.5, base_s), base_s=base_s, cap_s=uplink.backoff_max_s)
