"""Defines the readings of a running agent, and makes the state before a trial from them.  Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec

MEASURE_S: Final = 10.0
"""Rates are judged from this time on, because data is written in windows and increments of some seconds."""
ENOUGH_FRAMES: Final = 20
"""Fewer frames prove nothing about a bus.  A sleeping bus may send a few as it falls asleep."""


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the counters and sizes of the agent at `at_s` on the monotonic clock.

    `decoding` has for each bus the frames that reached the decoder, and how many of them did not decode.  `feeding`
    tells whether a source may still deliver frames.  `stuck_s` is how long the present step of collecting or applying
    has taken.  `lost` has the losses by reason: frames for a bus that overflowed, and batches otherwise.
    `waiting` and `acknowledged` count batches.
    `earlier_authorities` tells that pushed authorities have not connected yet.  `connections` counts connections.
    Other fields that are not sizes are totals since the process started.
    """

    at_s: float = 0.0
    decoding: Mapping[str, tuple[int, int]] = {}
    feeding: bool = False
    failed_sources: tuple[str, ...] = ()
    stuck_s: float = 0.0
    memory_bytes: int = 0
    cpu_s: float = 0.0
    written_bytes: int = 0
    sent_bytes: int = 0
    waiting_bytes: int = 0
    waiting: int = 0
    acknowledged: int = 0
    lost: Mapping[str, int] = {}
    online: bool = False
    connections: int = 0
    earlier_authorities: bool = False
    quota_bytes: int = 0


class Baseline(msgspec.Struct, frozen=True):
    """Holds the state before a trial, which is stored with the trial, so that a restart does not lose it.

    `decoded` has the share of frames that decoded, by bus.  A rate that is None could not be measured.  `losing` has
    the reasons for which something was lost just before.
    """

    decoded: dict[str, float] = {}
    memory_bytes: int = 0
    cpu_share: float | None = None
    written_bytes_s: float | None = None
    lost: dict[str, int] = {}
    losing: tuple[str, ...] = ()
    failed_sources: tuple[str, ...] = ()


def baseline(first: Readings, last: Readings, earlier: Baseline | None = None) -> Baseline:
    """Return the state of an agent that was running from `first` to `last`.

    If a bus was asleep, its value in `decoded` is taken from `earlier`.
    """
    seconds = last.at_s - first.at_s
    is_measured = seconds >= MEASURE_S
    return Baseline(
        decoded=(earlier.decoded if earlier is not None else {}) | decoded_shares(first, last),
        memory_bytes=last.memory_bytes,
        cpu_share=(last.cpu_s - first.cpu_s) / seconds if is_measured else None,
        written_bytes_s=(last.written_bytes - first.written_bytes) / seconds if is_measured else None,
        lost=dict(last.lost),
        losing=tuple(reason for reason, lost in last.lost.items() if lost > first.lost.get(reason, 0)),
        failed_sources=last.failed_sources,
    )


def frames_between(first: Readings, now: Readings) -> int:
    """Return how many frames reached the decoder between two readings."""
    return sum(frames - first.decoding.get(bus, (0, 0))[0] for bus, (frames, _) in now.decoding.items())


def decoded_shares(first: Readings, now: Readings) -> dict[str, float]:
    """Return the share of frames that decoded between two readings, for each bus with at least ENOUGH_FRAMES."""
    shares = {}
    for bus, (frames, refused) in now.decoding.items():
        frames_first, refused_first = first.decoding.get(bus, (0, 0))
        if frames - frames_first >= ENOUGH_FRAMES:
            shares[bus] = 1 - (refused - refused_first) / (frames - frames_first)
    return shares
