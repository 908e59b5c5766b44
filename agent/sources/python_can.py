"""Capture any live interface that python-can supports (socketcan, slcan, virtual, udp_multicast, ...).

One thread owns the interface from opening to shutting down.  The thread waits while the interface is missing, and opens
it again after it went away.  The event loop wakes up once per drain interval and takes the frames that have arrived.

Frames are lost if the buffer is full, if the adapter garbles them, while the interface is away, and when the source is
closed.  Each loss is reported as a `BusLoss`.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import can
import msgspec
import numpy as np
import structlog

from agent.errors import Permanent, Transient
from agent.sources import OPENING, BusLoss
from agent.sources.adapter import Adapter, shut_down
from agent.sources.messages import block_of, is_frame
from can_dbc.frames import FrameBlock

_POLL_S: Final = 0.1  # The thread notices a request to stop within this time.
_AFTER_GARBLED_S: Final = 0.001  # The pause keeps a broken adapter from taking the processor.
_log = structlog.get_logger()
# python-can logs each error that it raises, at every attempt.  The source itself logs changes only.
logging.getLogger("can").propagate = False
logging.getLogger("can").addHandler(logging.NullHandler())


class Limits(msgspec.Struct, frozen=True):
    """Holds the limits and intervals of a source.

    Apps see a value at most `drain_ms` late; a shorter interval would wake the machine up more often.  A buffer of
    `buffer_frames` holds some seven seconds of a fully loaded bus of 1 Mbit/s; a longer stall of the event loop is a
    defect.  The pause between attempts to open an adapter grows from `retry_min_s` to `retry_max_s`.  An adapter that
    was away briefly is thus found soon, and an adapter that stays away costs little.
    """

    drain_ms: int = 100
    buffer_frames: int = 65_536
    retry_min_s: float = 0.5
    retry_max_s: float = 30.0


_DEFAULTS: Final = Limits()


class PythonCanSource:
    """Captures the frames of one bus, with a thread of its own."""

    def __init__(
        self, bus: str, adapter: Adapter, *, on_loss: Callable[[BusLoss], None], limits: Limits = _DEFAULTS
    ) -> None:
        """Prepare to capture; `blocks` starts the thread.

        `on_loss` is called in the event loop, at most once per drain interval for each kind of loss.
        """
        self.name = bus
        self.buses = (bus,)
        self._adapter = adapter
        self._on_loss = on_loss
        self._limits = limits
        self.rest: FrameBlock | None = None
        self.waiting: str | None = OPENING

    async def blocks(self) -> AsyncIterator[FrameBlock]:
        """Yield the frames that the interface receives, without end.  Raises: Permanent if a setting is wrong."""
        reader = _Reader(self.name, self._adapter, self._limits)
        reader.start()
        first = 0
        try:
            while True:
                await asyncio.sleep(self._limits.drain_ms / 1_000)
                # The thread is checked before its frames are taken.  A thread that has ended adds no more frames.
                finished = not reader.is_alive()
                messages, losses = reader.take()
                self.waiting = reader.waiting
                for loss in losses:
                    self._on_loss(loss)
                if messages:
                    block = block_of(messages, self.buses, first)
                    first += len(messages)  # before the yield, because the iterator may be closed there
                    yield block
                if finished:
                    raise reader.failure or RuntimeError(f"source {self.name}: the thread of the source has died")
        finally:
            reader.stop()
            await asyncio.to_thread(reader.join)
            messages, losses = reader.take()
            for loss in losses:
                self._on_loss(loss)
            self.rest = block_of(messages, self.buses, first) if messages else None


class _Reader(threading.Thread):
    """Owns the interface in a thread.  Other threads call `take` and `stop` only."""

    def __init__(self, bus: str, adapter: Adapter, limits: Limits) -> None:
        # The thread is a daemon, because a driver that blocks in C for ever must not keep the process from ending.
        super().__init__(name=f"can-{bus}", daemon=True)
        self.failure: Permanent | None = None
        self.waiting: str | None = OPENING
        self._bus = bus
        self._adapter = adapter
        self._limits = limits
        self._buffer: deque[can.Message] = deque()
        # Losses are merged by kind until they are taken, so that a broken adapter cannot fill the memory with them.
        self._losses: dict[str, BusLoss] = {}
        self._lock = threading.Lock()  # guards the buffer and the losses
        self._stopping = threading.Event()
        self._retry_s = limits.retry_min_s
        self._away_since_ns: int | None = None
        self._reported_away = False
        self._chance = np.random.default_rng()

    def take(self) -> tuple[list[can.Message], list[BusLoss]]:
        """Return the messages and the losses that have come since the last call."""
        with self._lock:
            messages, losses = list(self._buffer), list(self._losses.values())
            self._buffer.clear()
            self._losses.clear()
        return messages, losses

    def stop(self) -> None:
        """Ask the thread to close the interface and end."""
        self._stopping.set()

    def run(self) -> None:
        """Open the interface and receive, again and again, until stopped or until the configuration proves wrong."""
        while not self._stopping.is_set():
            try:
                opened = self._adapter.open(self._bus)
            except Permanent as error:
                # An exception in a thread would only be printed, so `blocks` raises it to the caller.
                self.failure = error
                return
            except Transient as error:
                self._wait(error)
                continue
            try:
                self._came_back()
                self._receive(opened)
            except Transient as error:
                self._away_since_ns = time.time_ns()
                self._wait(error)
            finally:
                shut_down(opened)

    def _receive(self, opened: can.BusABC) -> None:
        while not self._stopping.is_set():
            try:
                message = opened.recv(_POLL_S)
            except (can.CanError, OSError) as error:
                raise Transient(
                    f"source {self._bus}: the interface went away: {error}; the agent opens it again"
                ) from error
            except (ValueError, IndexError):
                # python-can raises these errors if it cannot make a frame of the adapter's data (slcan: a cut line).
                self._lost("garbled", time.time_ns())
                self._stopping.wait(_AFTER_GARBLED_S)
                continue
            if message is not None:
                self._put(message)

    def _put(self, message: can.Message) -> None:
        self._retry_s = self._limits.retry_min_s
        if message.timestamp <= 0:  # This interface has no clock.
            message.timestamp = time.time()
        # Noise on a serial line makes messages that parse but cannot be frames, such as identifier 0x800 in 11 bits.
        if not is_frame(message):
            self._lost("garbled", round(message.timestamp * 1e9))
            return
        with self._lock:
            if len(self._buffer) < self._limits.buffer_frames:
                self._buffer.append(message)
                return
        self._lost("buffer full", round(message.timestamp * 1e9))

    def _lost(self, detail: str, first_ns: int, last_ns: int | None = None, *, count: int = 1) -> None:
        last_ns = first_ns if last_ns is None else last_ns
        with self._lock:
            if detail in self._losses:
                before = self._losses[detail]
                count += before.count
                first_ns, last_ns = min(before.first_ns, first_ns), max(before.last_ns, last_ns)
            self._losses[detail] = BusLoss(self._bus, count, first_ns, last_ns, detail)

    def _wait(self, error: Transient) -> None:
        self.waiting = str(error).removeprefix(f"source {self._bus}: ")
        if not self._reported_away:
            _log.warning("bus_waiting", bus=self._bus, reason=str(error))
            self._reported_away = True
        # A random share of the pause keeps several adapters of one hub from being opened in step.
        self._stopping.wait(self._retry_s * self._chance.uniform(0.5, 1.0))
        self._retry_s = min(2 * self._retry_s, self._limits.retry_max_s)

    def _came_back(self) -> None:
        _log.info("bus_open", bus=self._bus)
        self.waiting = None
        self._reported_away = False
        if self._away_since_ns is not None:
            self._lost("interface away", self._away_since_ns, time.time_ns(), count=0)
            self._away_since_ns = None
