"""Sends the messages of a bus: samples their values, encodes them, and orders the frames by time.  Pure.

A value beyond the range of its signal is clipped to the range, as a real sensor saturates.  Counters and checksums are
added here, so that samplers deal with physical quantities alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from cantools.database.can import Message
from numpy.typing import NDArray

from can_dbc.frames import BRS, EXTENDED, FD, FD_BYTES, FrameBlock
from simulator.bus_timing import Cycle, carried, frame_us
from simulator.checksums import crc8_sae_j1850, sum8
from simulator.columns import STEPS_PER_S
from simulator.encoder import MessageEncoder, compile_message
from simulator.sampling import Sampler, Sending, Signals
from simulator.urban_cycle import Drive

_STEP_US: Final = 1_000_000 // STEPS_PER_S
_COUNTER: Final = "AliveCounter"
_CHECKSUMS: Final[Mapping[str, Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    "Crc8": crc8_sae_j1850,
    "Checksum": sum8,
}


class Bus:
    """Sends the messages of one database on one bus, which carries one frame at a time."""

    def __init__(
        self, number: int, seed: int, start_us: int, messages: Sequence[Message], samplers: Mapping[str, Sampler]
    ) -> None:
        """Prepare to send `messages`, which must all be cyclic; `number` is the index of the bus in a frame block."""
        self._number = number
        self._seed = seed
        self._start_us = start_us
        self._free_us = 0
        self._senders = []
        for place, message in enumerate(messages):
            assert message.cycle_time is not None, (
                f"{message.name} has no cycle time; set GenMsgCycleTime in the database"
            )
            # Noise streams are numbered by bus and message, so that no two messages jitter together.
            cycle = Cycle(seed, 1_000 * (number + 1) + place, message.cycle_time * 1_000)
            self._senders.append(_sender(message, cycle, samplers[message.name]))
        encoders = [sender.encoder for sender in self._senders]
        self._can_id = np.array([encoder.can_id for encoder in encoders], np.uint32)
        self._flags = np.array([_flags(encoder) for encoder in encoders], np.uint8)
        self._length = np.array([encoder.length for encoder in encoders], np.uint8)
        self._frame_us = np.array([sender.frame_us for sender in self._senders], np.int64)

    def send(self, drive: Drive, begin_us: int, end_us: int, buses: tuple[str, str]) -> FrameBlock:
        """Return the frames that are released from `begin_us` to before `end_us`, in the order of their transmission.

        The time of a frame is the end of its transmission.  `drive` covers the same time span.
        """
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
        # If frames are released in the same microsecond, the lowest identifier goes first, as in CAN arbitration (ISO
        # 11898-1).
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


@dataclass(frozen=True, slots=True)
class _Sender:
    """Makes the data of one message on one bus, and holds its timing."""

    cycle: Cycle
    sampler: Sampler
    encoder: MessageEncoder
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counter_modulus: int  # 0 if the message has no counter
    checksum: str | None
    frame_us: int

    def data(self, drive: Drive, sending: Sending) -> NDArray[np.uint8]:
        """Return the data (n, length) of the transmissions in `sending`; `drive` has one row for each transmission."""
        values = np.empty((len(self.encoder.signals), len(sending.index)))
        self._fill(values, self.sampler(drive, sending), sending.index)
        data = self.encoder.encode(np.clip(values, self.low, self.high))
        if self.checksum is not None:
            # The checksum covers the encoded bytes, so it is written last, into the last byte of the message.
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


def _sender(message: Message, cycle: Cycle, sampler: Sampler) -> _Sender:
    encoder = compile_message(message)
    scales = [(signal, signal.conversion.is_float) for signal in message.signals]
    counter = [signal.length for signal in message.signals if signal.name == _COUNTER]
    checksum = [signal.name for signal in message.signals if signal.name in _CHECKSUMS]
    return _Sender(
        cycle=cycle,
        sampler=sampler,
        encoder=encoder,
        # The limits of an IEEE float in a DBC are usually [0|0], which means that there are no limits.
        low=np.array([[-math.inf if is_float else signal.minimum] for signal, is_float in scales]),
        high=np.array([[math.inf if is_float else signal.maximum] for signal, is_float in scales]),
        counter_modulus=1 << counter[0] if counter else 0,
        checksum=checksum[0] if checksum else None,
        frame_us=frame_us(encoder.length, extended=encoder.extended, fd=encoder.fd),
    )


def _flags(encoder: MessageEncoder) -> int:
    return (EXTENDED if encoder.extended else 0) | (FD | BRS if encoder.fd else 0)
