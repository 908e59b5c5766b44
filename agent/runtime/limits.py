"""Define the limits that no configuration file sets, with the reason for each value.  Pure.

The configuration file has no keys for them, because an operator could hardly choose better values.  Tests run real
agents with tiny limits, which a short drive reaches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Holds the limits of memory, size and time of one agent."""

    increment_max_frames: int = 10_000
    """An increment of this many frames is decoded early, so that decoding it takes at most some 3 MB of memory.

    A busy car (1,250 frames/s) does not reach this limit in an increment of 5 s.
    """

    window_max_samples: int = 500_000
    """A window of this many samples closes early, because it takes 4 MB of memory and fills several batches anyway."""

    silence_s: float = 10.0
    """After this long without a frame (the ignition is off) every open window is closed and stored.

    The power of the head unit may be cut at any moment from then on.
    """

    batch_max_bytes: int = 60_000
    """A sealed batch has at most this size, which every broker accepts.

    AWS IoT Core accepts messages of up to 128 KB.  Azure Event Grid allows up to 64 KB in flight.
    """

    pending_max_bytes: int = 8_000_000
    """Encoded batches up to this total size wait in memory while the disk is full or fails.

    The spool holds as much in memory while the disk works, but has too little room.  Beyond that, the oldest batches
    are discarded.  A busy car makes about 10 MB an hour, so the memory lasts for three quarters of an hour.
    """

    connect_timeout_s: float = 10.0
    """Each step of connecting to the broker (TCP, TLS, MQTT) may take this long.

    A mobile link with seconds of latency still connects, and a dead link does not delay the next attempt for long.
    """

    backoff_min_s: float = 1.0
    """After its first failure the link waits up to this long, then up to twice as long after each further failure.

    A random jitter spreads the return of a fleet after an outage of its broker; see also `uplink.backoff_max_s`.
    """


UNCONFIRMED_BYTES: Final[Mapping[str, int]] = {
    # On a slow link, fresh data waits until these bytes are sent: 8 s at 1 Mbit/s.  A broker that accepts less says so
    # by the Receive Maximum in its CONNACK (mosquitto: 20 batches), which the agent respects as well.
    "standard": 1_000_000,
    # Azure Event Grid allows 64 KB in flight, and does not say so in CONNACK.
    "azure_event_grid": 64_000,
}
"""The bytes that may be in flight to the broker without a PUBACK, by `uplink.broker_profile`."""
