"""VirtualVehicle: a source of real-looking traffic, encoded with the databases of the demonstration vehicle.

`frames` is pure: the same arguments give the same frames, bit for bit, whoever asks and however time is cut, so a
verifier can regenerate what a vehicle sent.  Each message goes out at its own period with its counter and checksum;
a value beyond the range of its signal saturates, as a sensor's does.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from cantools.database.can import Message
from numpy.typing import NDArray

import can_dbc
from agent.sources.pacing import paced
from can_dbc.database import load
from can_dbc.frames import BRS, EXTENDED, FD, FD_BYTES, FrameBlock, concatenate
from simulator import body, powertrain
from simulator.bus_timing import Cycle, carried, frame_us
from simulator.checksums import crc8_sae_j1850, sum8
from simulator.columns import STEPS_PER_S
from simulator.encoder import MessageEncoder, compile_message
from simulator.sampling import Sampler, Sending, Signals
from simulator.urban_cycle import Drive, UrbanCycle

POWERTRAIN_DBC: Final = Path(can_dbc.__file__).parent / "dbc" / "demo_powertrain.dbc"
BODY_DBC: Final = Path(can_dbc.__file__).parent / "dbc" / "demo_body.dbc"

_CHUNK_MAX_S: Final = 10
_STEP_US: Final = 1_000_000 // STEPS_PER_S
_COUNTER: Final = "AliveCounter"
_CHECKSUMS: Final[Mapping[str, Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    "Crc8": crc8_sae_j1850,
    "Checksum": sum8,
}


class VirtualVehicle:
    """The source: `frames` at `speed` times real time, 0 as fast as it is consumed."""

    def __init__(
        self,
        seed: int,
        start_ns: int,
        duration_s: float | None,
        speed: float,
        buses: tuple[str, str] = ("can0", "can1"),
        *,
        name: str = "vehicle",
        drain_ms: int = 50,
    ) -> None:
        self.name = name
        self.buses = buses
        self._seed = seed
        self._start_ns = start_ns
        self._duration_s = duration_s
        self._speed = speed
        self._drain_ms = drain_ms

    def blocks(self) -> AsyncIterator[FrameBlock]:
        """The frames of the drive; ends after `duration_s`."""
        # A second at a time keeps a live drive responsive; faster ones are worth longer arrays.
        chunk_s = min(max(1, math.ceil(self._speed)), _CHUNK_MAX_S) if self._speed else _CHUNK_MAX_S
        drive = frames(self._seed, self._start_ns, self._duration_s, self.buses, chunk_s=chunk_s)
        return paced(drive, speed=self._speed, drain_ms=self._drain_ms)


def frames(
    seed: int,
    start_ns: int,
    duration_s: float | None,
    buses: tuple[str, str] = ("can0", "can1"),
    *,
    chunk_s: int = 1,
) -> Iterator[FrameBlock]:
    """Frames from `start_ns` (cut to whole microseconds) to before `start_ns + duration_s`; None: without end.

    `buses` names the powertrain bus and the body bus.  Time stamps do not fall, rise strictly on each bus, and are
    whole microseconds.  One block holds about `chunk_s` seconds; the frames do not depend on it.
    Raises DatabaseError where the installation lacks the databases.
    """
    start_us = start_ns // 1_000
    end_us = None if duration_s is None else round(duration_s * 1_000_000)
    cycle = UrbanCycle(seed)
    senders = [
        _Bus(0, seed, start_us, POWERTRAIN_DBC, powertrain.SAMPLERS),
        _Bus(1, seed, start_us, BODY_DBC, body.SAMPLERS),
    ]
    begin_us, position = 0, 0
    waiting: FrameBlock | None = None
    while end_us is None or begin_us < end_us:
        until_us = begin_us + chunk_s * 1_000_000
        drive = cycle.advance(chunk_s)
        sent = [bus.send(drive, begin_us, until_us, buses) for bus in senders]
        block = _in_time_order([*([waiting] if waiting else []), *sent])
        # What is through the bus only after this chunk may follow frames of the next one.
        cut_us = until_us if end_us is None else min(until_us, end_us)
        through = int(np.searchsorted(block.t_ns, (start_us + cut_us) * 1_000))
        waiting = block.slice(through, len(block))
        if through:
            yield replace(block.slice(0, through), first=position)
        position += through
        begin_us = until_us


@dataclass(frozen=True, slots=True)
class _Sender:
    """One message of one bus: its timing, its values, its bytes."""

    cycle: Cycle
    sampler: Sampler
    encoder: MessageEncoder
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counter_modulus: int  # 0: the message has no counter
    checksum: str | None
    frame_us: int

    def data(self, drive: Drive, sending: Sending) -> NDArray[np.uint8]:
        """Data (n, length) of these transmissions; `drive` has one row for each."""
        values = np.empty((len(self.encoder.signals), len(sending.index)))
        self._fill(values, self.sampler(drive, sending), sending.index)
        data = self.encoder.encode(np.clip(values, self.low, self.high))
        if self.checksum is not None:
            data[:, -1] = _CHECKSUMS[self.checksum](self.encoder.can_id, data)
        return data

    def _fill(self, values: NDArray[np.float64], signals: Signals, index: NDArray[np.int64]) -> None:
        for row, name in enumerate(self.encoder.signals):
            if name == _COUNTER:
                values[row] = index % self.counter_modulus
            elif name == self.checksum:
                values[row] = 0.0
            else:
                values[row] = signals[name]


class _Bus:
    """The messages of one database on one bus."""

    def __init__(self, number: int, seed: int, start_us: int, path: Path, samplers: Mapping[str, Sampler]) -> None:
        self._number = number
        self._seed = seed
        self._start_us = start_us
        self._free_us = 0
        self._senders = [
            _sender(message, Cycle(seed, 1_000 * (number + 1) + place, period_ms * 1_000), samplers)
            for place, (message, period_ms) in enumerate(_cyclic(path))
        ]
        encoders = [sender.encoder for sender in self._senders]
        self._can_id = np.array([encoder.can_id for encoder in encoders], np.uint32)
        self._flags = np.array([_flags(encoder) for encoder in encoders], np.uint8)
        self._length = np.array([encoder.length for encoder in encoders], np.uint8)
        self._frame_us = np.array([sender.frame_us for sender in self._senders], np.int64)

    def send(self, drive: Drive, begin_us: int, end_us: int, buses: tuple[str, str]) -> FrameBlock:
        """The frames released in this time, in the order in which they are through the bus."""
        released = [sender.cycle.released(begin_us, end_us) for sender in self._senders]
        counts = [len(time_us) for _, time_us in released]
        data = np.zeros((sum(counts), FD_BYTES), np.uint8)
        row = 0
        for sender, (index, time_us) in zip(self._senders, released, strict=True):
            sending = Sending(self._seed, index, (self._start_us + time_us) * 1_000)
            now = drive.take((time_us - begin_us) // _STEP_US)
            data[row : row + len(index), : sender.encoder.length] = sender.data(now, sending)
            row += len(index)
        who = np.repeat(np.arange(len(counts)), counts)
        times = np.concatenate([time_us for _, time_us in released])
        order = np.lexsort((self._can_id[who], times))
        who = who[order]
        through = carried(times[order], self._frame_us[who], self._free_us)
        self._free_us = int(through[-1])
        return FrameBlock(
            (self._start_us + through) * 1_000,
            np.full(len(who), self._number, np.uint8),
            self._can_id[who],
            self._flags[who],
            self._length[who],
            data[order],
            buses,
        )


def _cyclic(path: Path) -> Iterator[tuple[Message, int]]:
    """The messages with their periods in milliseconds; every one of the demonstration vehicle has one."""
    for message in load(path).messages:
        assert message.cycle_time is not None
        yield message, message.cycle_time


def _sender(message: Message, cycle: Cycle, samplers: Mapping[str, Sampler]) -> _Sender:
    encoder = compile_message(message)
    scales = [(signal, signal.conversion.is_float) for signal in message.signals]
    counter = [signal.length for signal in message.signals if signal.name == _COUNTER]
    checksum = [signal.name for signal in message.signals if signal.name in _CHECKSUMS]
    return _Sender(
        cycle=cycle,
        sampler=samplers[message.name],
        encoder=encoder,
        low=np.array([[-math.inf if is_float else signal.minimum] for signal, is_float in scales]),
        high=np.array([[math.inf if is_float else signal.maximum] for signal, is_float in scales]),
        counter_modulus=1 << counter[0] if counter else 0,
        checksum=checksum[0] if checksum else None,
        frame_us=frame_us(encoder.length, extended=encoder.extended, fd=encoder.fd),
    )


def _flags(encoder: MessageEncoder) -> int:
    return (EXTENDED if encoder.extended else 0) | (FD | BRS if encoder.fd else 0)


def _in_time_order(blocks: list[FrameBlock]) -> FrameBlock:
    block = concatenate(blocks)
    order = np.argsort(block.t_ns, kind="stable")
    return FrameBlock(
        block.t_ns[order],
        block.bus[order],
        block.can_id[order],
        block.flags[order],
        block.length[order],
        block.data[order],
        block.buses,
    )
