"""Makes random drives: frames of several buses and senders, with equal times, steps back and clocks that are set."""

import struct
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from cantools.database.can import Message

from tests.conditions.rows import Frame
from tests.conditions.worlds import World

_FLOATS = (0.0, -0.0, 1.0, 2.5, -3.25, 1e10, float("inf"), float("-inf"), float("nan"), 0.001, 1e-40)
_STARTS_US = (5_000_000_000, 1_600_000_000_123_456, 1_795_000_000_999_999)


def random_drive(random: Random, world: World) -> tuple[Frame, ...]:
    """Return frames in the order of the bus.  Each message says one of a few contents."""
    speakers = [
        (bus, message, [_content(random, message) for _ in range(random.randint(1, 4))])
        for bus, message in world.rows.messages()
    ]
    random.shuffle(speakers)
    speakers = speakers[: random.randint(1, len(speakers))]
    weights = [random.choice((1, 1, 4, 10)) for _ in speakers]
    stay = random.choice((0.0, 0.5, 0.8, 0.95))
    said = [random.choice(contents) for _, _, contents in speakers]
    scale_us = random.choice((100, 1000, 10_000, 10_000, 100_000, 1_000_000))
    calm = random.random() < 0.5  # no step back
    t_us = random.choice(_STARTS_US) + random.randint(0, 999_999)
    frames = []
    # Long drives fill rings of 1,000 samples, the default.
    long = random.random() < 0.02
    for _ in range(random.randint(1_000, 3_000) if long else random.choice((1, 5, 15, 30, 60, 60, 100, 100, 160, 300))):
        (who,) = random.choices(range(len(speakers)), weights)
        bus, message, contents = speakers[who]
        if random.random() > stay:
            said[who] = random.choice(contents)
        frames.append(_frame(random, t_us, world, bus, message, said[who]))
        t_us = max(0, t_us + _step_us(random, scale_us, calm))
    return tuple(frames)


def random_cuts(random: Random, count: int) -> tuple[int, ...]:
    """Return the ascending places in 0 to count at which the frames are cut; some parts may be empty."""
    way = random.random()
    if way < 0.15:
        return ()
    if way < 0.25:
        return tuple(range(1, count))
    return tuple(sorted(random.randint(0, count) for _ in range(random.randint(1, 6))))


def cut(frames: Sequence[Frame], cuts: Sequence[int]) -> list[Sequence[Frame]]:
    """Return the frames in parts."""
    return [frames[start:stop] for start, stop in pairwise((0, *cuts, len(frames)))]


def _content(random: Random, message: Message) -> bytes:
    data = bytearray(random.choice((0, 0xFF, random.randrange(256), random.randrange(256))) for _ in range(8))
    if random.random() < 0.2:
        data = bytearray(8)
    for signal in message.signals:
        if signal.is_float:
            number = random.choice(_FLOATS)
            data[: signal.length // 8] = struct.pack("<f" if signal.length == 32 else "<d", number)
    return bytes(data)


def _frame(random: Random, t_us: int, world: World, bus: str, message: Message, data: bytes) -> Frame:
    way = random.random()
    if way < 0.02:  # an identifier that no database has, or a bus that has none
        return Frame(t_us, random.choice((bus, "can9")), 0x7FF, False, data)
    can_id = message.frame_id
    if bus in world.by_pgn and message.is_extended_frame:
        destination = (can_id >> 8) & 0xFF if (can_id >> 16) & 0xFF >= 240 else random.choice((0xFF, 0x21))
        can_id = (
            (random.choice((3, 6)) << 26) | (can_id & 0x3FF0000) | (destination << 8) | random.choice((0, 0, 7, 255))
        )
    return Frame(t_us, bus, can_id, message.is_extended_frame, data)


def _step_us(random: Random, scale_us: int, calm: bool) -> int:
    way = random.random()
    if way < 0.15:
        return 0
    if way < 0.75 or calm:
        return random.choice((scale_us, scale_us, random.randint(0, 2 * scale_us)))
    if way < 0.93:
        return random.randint(0, 4 * scale_us)
    if way < 0.96:
        return -random.randint(0, 3 * scale_us)
    if way < 0.98:
        return random.choice((-60_000_000, -60_000_001, -59_999_999, -90_000_000, -random.randint(1, 400_000_000)))
    return random.randint(1, 120_000_000)
