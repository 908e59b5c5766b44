"""Limits that no configuration sets, because nobody in front of a vehicle could choose better values, with the reasons.

Tests run real agents with tiny limits, which a short drive reaches.  Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of memory, size and time of one agent."""

    increment_max_frames: int = 10_000
    """An increment of this many frames is decoded early, so that decoding it takes at most some 3 MB of memory.

    A busy car (1,250 frames/s) does not reach it in an increment of 5 s.
    """

    window_max_samples: int = 500_000
    """A window of this many samples closes early: it takes 4 MB of memory, and fills several batches anyway."""

    silence_s: float = 10.0
    """After this long without a frame (the ignition is off) every open window is closed and stored.

    The power of the head unit may be cut at any moment from then on.
    """

    batch_max_bytes: int = 60_000
    """A sealed batch has at most this size, which every broker takes.

    AWS IoT Core takes messages of up to 128 KB, Azure Event Grid has up to 64 KB in flight.
    """

    pending_max_bytes: int = 8_000_000
    """Encoded batches wait in memory up to this size while the disk is full or refuses; then the oldest are discarded.

    A busy car makes about 10 MB an hour, so this bridges three quarters of an hour.
    """

    connect_timeout_s: float = 10.0
    """Each step of connecting to the broker (TCP, TLS, MQTT) may take this long.

    A mobile link with seconds of latency still connects; a dead one does not delay the next attempt for long.
    """

    backoff_min_s: float = 1.0
    """After its first failure the link waits up to this long, then up to twice as long each time, with full jitter.

    The jitter spreads the return of a fleet after an outage of its broker; see also `uplink.backoff_max_s`.
    """


UNCONFIRMED_BYTES: Final[Mapping[str, int]] = {
    # Fresh data waits behind these bytes on a slow link: 8 s at 1 Mbit/s.  Brokers that take less say so in CONNACK, as
    # Receive Maximum (mosquitto: 20 batches), which the agent obeys as well.
    "standard": 1_000_000,
    # Azure Event Grid allows 64 KB in flight, and does not say so in CONNACK.
    "azure_event_grid": 64_000,
}
"""By `uplink.broker_profile`: how many bytes may be on their way to the broker without its PUBACK."""
