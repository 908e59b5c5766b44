"""Judge whether a release on trial is healthy, by readings of the agent before and during the trial.  Pure.

    bound            broken if, during the trial                                              compared with
    ---------------  ----------------------------------------------------------------------  ------------------
    sources          a source fails                                                           sources that had failed
    progress         one step of collecting or of applying the release takes STUCK_S          -
    decoding         fewer than half as many of a bus's frames decode                         share before
    memory           the process grows by more than MEMORY_BYTES                              size before
    cpu              the process takes CPU_SHARE of a core more                               share before
    spool            data is written so fast that it fills the spool within FILL_S            twice the rate before
    uplink           each byte is sent more than RESENDS times                                -
    losses           frames or batches are lost for a reason that lost none before            reasons before
    link             the broker is reached by the earlier authorities only, TURNS times       -

A release must also be proven by what it touches: frames must have been decoded if it changes what is collected, the
broker must have been reached if it changes the link, and a batch acknowledged if it changes the sealing key.  A car may
be offline or its buses asleep, so the trial waits for this evidence (`trial`).
"""

from typing import Final

import msgspec

from agent.pushes.readings import (
    ENOUGH_FRAMES,
    MEASURE_S,
    Baseline,
    Readings,
    decoded_shares,
    frames_between,
)

FRAMES: Final = "frames"
LINK: Final = "link"
ANSWER: Final = "acknowledgement"
PROGRESS: Final = "progress"
TIME: Final = "time"
"""Kinds of evidence.  PROGRESS is missing while a step takes long, and TIME while the release has not run for trial_s
or a bound was broken just now.
"""

DECODED_SHARE: Final = 0.5
"""At least this share of the frames that decoded before must still decode.

A release may well drop some messages of a database.  One that loses more than half has the wrong database.
"""
MEMORY_BYTES: Final = 96_000_000
"""The process may grow by this much.

The service may take 256 MB (MemoryMax), the agent before takes up to 100 MB, and the verifier of the next push, which
must be able to bring the remedy, takes 50 MB.
"""
CPU_SHARE: Final = 0.5
"""The process may take this much of one core more than before.

Collecting every signal of a car with 8,000 frames/s takes about a tenth of a core on a head unit, so collecting does
not explain half a core more.
"""
FILL_S: Final = 3_600.0
"""Writing may not fill the spool's quota faster than within this time, because cars are offline for hours."""
LEAST_BYTES_S: Final = 10_000.0
"""Writing at this rate is never too much, however small the quota is: four times what a whole busy car makes."""
RESENDS: Final = 3.0
"""On average, each byte may be sent this often, because a slow receiver is asked again."""
FREE_BYTES: Final = 200_000
"""This many bytes may be sent in addition, such as catalogues."""
RECONNECT_BYTES: Final = 1_000_000
"""Each new connection may send again what was under way at once (`UNCONFIRMED_BYTES` in `agent/runtime/limits.py`)."""
LOST_SHARE: Final = 0.01
"""More than this share of the frames must be missing on a bus: a short stall of a busy machine loses some, too."""
STUCK_S: Final = 60.0
"""A step that takes this long hangs.  Worn flash may stall for tens of seconds."""
SLOW_S: Final = 5.0
"""While a step takes longer than this, the trial does not end, because the step may hang."""
TURNS: Final = 2
"""The number of connections by the earlier authorities after which the pushed ones count as wrong.

The two take turns (`agent/link/authorities.py`), so a single failure of the pushed ones may have another cause.
"""
OVERFLOW: Final = "bus_overflow"
LOSSES: Final = frozenset(
    {OVERFLOW, "memory_full", "evicted_quota", "evicted_age", "evicted_reserve", "refused_by_receiver"}
)
"""The reasons of losses that a release can cause (`agent/formats/up/losses.py`).

The receiver refuses what is sealed to a key that it does not have.
"""


class Breach(msgspec.Struct, frozen=True):
    """Names a bound that is broken, and says by how much."""

    bound: str
    detail: str


Figure = str | int | float | bool


class Health(msgspec.Struct, frozen=True):
    """Holds a judgement: a broken bound or None, the evidence that is missing, and figures for the receipt."""

    breach: Breach | None = None
    missing: tuple[str, ...] = ()
    figures: dict[str, Figure] = {}


HEALTHY: Final = Health()


def examine(before: Baseline, first: Readings, now: Readings, needs: frozenset[str]) -> Health:
    """Judge an agent that has been running with the release from `first` to `now`.

    `needs` has the evidence without which the release is not proven: any of FRAMES, LINK and ANSWER.
    """
    breach = next((found for bound in _BOUNDS for found in (bound(before, first, now),) if found is not None), None)
    return Health(breach, _missing(first, now, needs), _figures(before, first, now))


def _missing(first: Readings, now: Readings, needs: frozenset[str]) -> tuple[str, ...]:
    found = [PROGRESS] if now.stuck_s >= SLOW_S else []
    if FRAMES in needs and now.feeding and frames_between(first, now) < ENOUGH_FRAMES:
        found.append(FRAMES)
    if LINK in needs and (now.earlier_authorities or not now.online):
        found.append(LINK)
    # What waited before may be sealed to the earlier key, so one acknowledgement more is needed.
    if ANSWER in needs and now.acknowledged - first.acknowledged <= first.waiting:
        found.append(ANSWER)
    return tuple(found)


def _figures(before: Baseline, first: Readings, now: Readings) -> dict[str, Figure]:
    seconds = max(now.at_s - first.at_s, 1e-3)
    figures: dict[str, Figure] = {
        "measured_s": round(seconds, 1),
        "frames": frames_between(first, now),
        "memory_mb": round(now.memory_bytes / 1e6, 1),
        "memory_mb_before": round(before.memory_bytes / 1e6, 1),
        "cpu_percent": round((now.cpu_s - first.cpu_s) / seconds * 100, 1),
        "written_bytes_s": round((now.written_bytes - first.written_bytes) / seconds),
        "sent_bytes": now.sent_bytes - first.sent_bytes,
        "lost": sum(_lost(before, now).values()),
    }
    shares = decoded_shares(first, now)
    if shares:
        figures["decoded_percent"] = round(min(shares.values()) * 100, 1)
    return figures


# ---- one function for each bound


def _sources(before: Baseline, _: Readings, now: Readings) -> Breach | None:
    failed = [name for name in now.failed_sources if name not in before.failed_sources]
    return Breach("sources", f"capture stopped: {', '.join(failed)} failed") if failed else None


def _progress(_: Baseline, __: Readings, now: Readings) -> Breach | None:
    if now.stuck_s < STUCK_S:
        return None
    return Breach(
        PROGRESS, f"the agent hangs: one step has taken {now.stuck_s:.0f} s, and {STUCK_S:.0f} s is the limit"
    )


def _decoding(before: Baseline, first: Readings, now: Readings) -> Breach | None:
    for bus, share in decoded_shares(first, now).items():
        limit = before.decoded.get(bus, 0.0) * DECODED_SHARE
        if share < limit:
            return Breach(
                "decoding",
                f"{share:.1%} of the frames of {bus} decode, and at least {limit:.1%} must "
                f"({before.decoded[bus]:.1%} before)",
            )
    return None


def _memory(before: Baseline, first: Readings, now: Readings) -> Breach | None:
    earlier = before.memory_bytes or first.memory_bytes
    grown = now.memory_bytes - earlier
    if grown <= MEMORY_BYTES:
        return None
    return Breach(
        "memory",
        f"memory grew by {grown / 1e6:.0f} MB to {now.memory_bytes / 1e6:.0f} MB, and at most {MEMORY_BYTES / 1e6:.0f} "
        "MB are allowed",
    )


def _cpu(before: Baseline, first: Readings, now: Readings) -> Breach | None:
    seconds = now.at_s - first.at_s
    if before.cpu_share is None or seconds < MEASURE_S:
        return None
    share, limit = (now.cpu_s - first.cpu_s) / seconds, before.cpu_share + CPU_SHARE
    if share <= limit:
        return None
    return Breach(
        "cpu",
        f"the agent takes {share:.0%} of a core, and at most {limit:.0%} is allowed ({before.cpu_share:.0%} before)",
    )


def _spool(before: Baseline, first: Readings, now: Readings) -> Breach | None:
    seconds = now.at_s - first.at_s
    if seconds < MEASURE_S:
        return None
    rate = (now.written_bytes - first.written_bytes) / seconds
    limit = max(2 * (before.written_bytes_s or 0.0), now.quota_bytes / FILL_S, LEAST_BYTES_S)
    if rate <= limit:
        return None
    return Breach(
        "spool",
        f"the agent writes {rate / 1e3:.1f} KB/s, and at most {limit / 1e3:.1f} KB/s are allowed "
        f"({(before.written_bytes_s or 0) / 1e3:.1f} KB/s before): the spool would be full within "
        f"{now.quota_bytes / rate / 60:.0f} min offline",
    )


def _uplink(_: Baseline, first: Readings, now: Readings) -> Breach | None:
    sent = now.sent_bytes - first.sent_bytes
    needed = first.waiting_bytes + now.written_bytes - first.written_bytes
    limit = RESENDS * needed + FREE_BYTES + RECONNECT_BYTES * (now.connections - first.connections)
    if sent <= limit:
        return None
    return Breach(
        "uplink",
        f"the agent sent {sent / 1e6:.1f} MB, and at most {limit / 1e6:.1f} MB are allowed, because there were "
        f"{needed / 1e6:.1f} MB to send",
    )


def _losses(before: Baseline, first: Readings, now: Readings) -> Breach | None:
    for reason, lost in _lost(before, now).items():
        if reason in before.losing:
            continue
        if reason != OVERFLOW:
            return Breach("losses", f"{lost} batches were lost ({reason}), and none before")
        frames = frames_between(first, now)
        if lost > LOST_SHARE * (frames + lost):
            return Breach(
                "losses", f"{lost} frames were lost ({reason}) and {frames} were read; the limit is {LOST_SHARE:.0%}"
            )
    return None


def _link(_: Baseline, first: Readings, now: Readings) -> Breach | None:
    turns = now.connections - first.connections
    if not (now.earlier_authorities and now.online and turns >= TURNS):
        return None
    return Breach(
        LINK, f"the broker was reached {turns} times, but only by the earlier authorities, never by the pushed ones"
    )


_BOUNDS: Final = (_progress, _sources, _losses, _decoding, _link, _memory, _spool, _uplink, _cpu)


def _lost(before: Baseline, now: Readings) -> dict[str, int]:
    # The totals begin anew with an epoch, after a damaged index, so they may be below those before.
    found = {reason: lost - before.lost.get(reason, 0) for reason, lost in now.lost.items() if reason in LOSSES}
    return {reason: lost for reason, lost in found.items() if lost > 0}
