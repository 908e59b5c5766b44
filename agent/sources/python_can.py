"""PythonCanSource: any live interface that python-can knows (socketcan, slcan, virtual, udp_multicast, ...).

It only receives: nothing here calls `send`, and a serial adapter is opened in listen-only mode.  One thread owns the
interface, from opening to shutting down; it waits while the interface is missing and opens it again when it went away.
The event loop wakes up once a drain interval and takes what came.  Frames are lost at three points, each reported as
a `BusLoss`: a full buffer, a frame the adapter garbled, and the time during which the interface was away.
"""

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import can
import numpy as np
import structlog

from agent.errors import Permanent, Transient
from agent.sources import BusLoss
from agent.sources.messages import block_of, is_frame
from can_dbc.frames import FrameBlock

Option = str | int | float | bool

_POLL_S: Final = 0.1  # how soon the thread notices that it shall stop
_AFTER_GARBLED_S: Final = 0.001  # keeps a broken adapter from taking the processor
_log = structlog.get_logger()
# Whatever python-can logs it also raises, and with each attempt: we report changes only.
logging.getLogger("can").addHandler(logging.NullHandler())


class PythonCanSource:
    """One bus.  Several buses are several sources, each with its thread."""

    def __init__(
        self,
        *,
        bus: str,
        interface: str,
        channel: str,
        bitrate: int = 0,
        fd: bool = False,
        options: Mapping[str, Option] | None = None,
        drain_ms: int = 100,
        buffer_frames: int = 65_536,
        retry_min_s: float = 0.5,
        retry_max_s: float = 30.0,
        on_loss: Callable[[BusLoss], None],
    ) -> None:
        """`options` go to python-can as they are; `bitrate` 0 leaves the interface as it is set up.

        `on_loss` is called in the event loop, at most once a drain interval and kind of loss.
        """
        self.name = bus
        self.buses = (bus,)
        self._drain_s = drain_ms / 1_000
        self._on_loss = on_loss
        arguments: dict[str, Option] = {"receive_own_messages": False}
        if interface == "slcan":
            arguments["listen_only"] = True
        if bitrate:
            arguments["bitrate"] = bitrate
        if fd:
            arguments["fd"] = True
        self._opener = _Opener(bus, interface, channel, {**arguments, **(options or {})}, tuple(options or ()))
        self._limits = (buffer_frames, retry_min_s, retry_max_s)

    async def blocks(self) -> AsyncIterator[FrameBlock]:
        """What the interface receives, without end.  Raises Permanent where its options are wrong."""
        reader = _Reader(self._opener, *self._limits)
        reader.start()
        first = 0
        try:
            while True:
                await asyncio.sleep(self._drain_s)
                finished = not reader.is_alive()
                messages, losses = reader.take()
                for loss in losses:
                    self._on_loss(loss)
                if messages:
                    yield block_of(messages, self.buses, first)
                    first += len(messages)
                if finished:
                    raise reader.failure or RuntimeError(f"source {self.name}: its thread has died")
        finally:
            reader.stop()
            await asyncio.to_thread(reader.join)
            self._report_rest(*reader.take())

    def _report_rest(self, messages: list[can.Message], losses: list[BusLoss]) -> None:
        """What had come when the source was closed, and nobody will fetch."""
        for loss in losses:
            self._on_loss(loss)
        if messages:
            t_ns = block_of(messages, self.buses, 0).t_ns
            self._on_loss(BusLoss(self.name, len(messages), int(t_ns.min()), int(t_ns.max()), "source closed"))


class _Opener:
    """Opens the interface, and says whose fault it is when that fails."""

    def __init__(
        self, bus: str, interface: str, channel: str, arguments: Mapping[str, Option], options: tuple[str, ...]
    ) -> None:
        self.bus = bus
        self._interface = interface
        self._channel = channel
        self._arguments: dict[str, Any] = dict(arguments)
        self._options = options

    def open(self) -> can.BusABC:
        """Raises Transient: not there (yet); Permanent: the configuration is wrong."""
        where = f"source {self.bus}"
        try:
            opened = can.Bus(self._channel, self._interface, ignore_config=True, **self._arguments)
        except NotImplementedError as error:
            known = ", ".join(sorted(can.VALID_INTERFACES))
            raise Permanent(
                f"{where}: interface = {self._interface!r}: {error}; install what it needs, or choose one of {known}"
            ) from error
        except (can.CanError, OSError, TypeError, ValueError) as error:
            if any(isinstance(cause, TypeError | ValueError) for cause in _causes(error)):
                raise Permanent(f"{where}: {self._blamed(str(error))}: {error}") from error
            raise Transient(f"{where}: {self._interface} {self._channel} cannot be opened: {error}") from error
        unknown = [option for option in self._options if not _takes(type(opened), option)]
        if unknown:
            _shut_down(opened)
            raise Permanent(
                f"{where}: options.{unknown[0]}: python-can's {self._interface} knows no such option; remove it"
            )
        return opened

    def _blamed(self, text: str) -> str:
        """The keys that python-can's message speaks of, else all that it was given."""
        keys = [f"options.{name}" if name in self._options else name for name in self._arguments]
        named = [key for key in keys if key.removeprefix("options.") in text]
        return " / ".join(named or ["channel", *keys])


class _Reader(threading.Thread):
    """The thread that owns the interface.  `take` and `stop` are for others; all else is its own."""

    def __init__(self, opener: _Opener, buffer_frames: int, retry_min_s: float, retry_max_s: float) -> None:
        super().__init__(name=f"can-{opener.bus}", daemon=True)
        self.failure: Permanent | None = None
        self._opener = opener
        self._buffer: deque[can.Message] = deque()
        self._buffer_frames = buffer_frames
        self._losses: dict[str, BusLoss] = {}
        self._lock = threading.Lock()  # guards the buffer and the losses
        self._stopping = threading.Event()
        self._retry_min_s = self._retry_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._away_since_ns: int | None = None
        self._reported_away = False
        self._chance = np.random.default_rng()

    def take(self) -> tuple[list[can.Message], list[BusLoss]]:
        """What came since the last call, and what did not."""
        with self._lock:
            messages, losses = list(self._buffer), list(self._losses.values())
            self._buffer.clear()
            self._losses.clear()
        return messages, losses

    def stop(self) -> None:
        """Ask the thread to close the interface and end."""
        self._stopping.set()

    def run(self) -> None:
        """Open, receive, and again, until stopped or the configuration turns out wrong."""
        while not self._stopping.is_set():
            try:
                opened = self._opener.open()
            except Permanent as error:
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
                _shut_down(opened)

    def _receive(self, opened: can.BusABC) -> None:
        while not self._stopping.is_set():
            try:
                message = opened.recv(_POLL_S)
            except (can.CanError, OSError) as error:
                raise Transient(f"source {self._opener.bus}: the interface went away: {error}") from error
            except (ValueError, IndexError):
                # python-can could not make a frame of what the adapter sent.
                self._lost("garbled", time.time_ns())
                self._stopping.wait(_AFTER_GARBLED_S)
                continue
            if message is not None:
                self._put(message)

    def _put(self, message: can.Message) -> None:
        self._retry_s = self._retry_min_s
        if message.timestamp <= 0:  # this interface has no clock
            message.timestamp = time.time()
        if not is_frame(message):
            self._lost("garbled", round(message.timestamp * 1e9))
            return
        with self._lock:
            if len(self._buffer) < self._buffer_frames:
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
            self._losses[detail] = BusLoss(self._opener.bus, count, first_ns, last_ns, detail)

    def _wait(self, error: Transient) -> None:
        if not self._reported_away:
            _log.warning("bus_waiting", bus=self._opener.bus, reason=str(error))
            self._reported_away = True
        self._stopping.wait(self._retry_s * self._chance.uniform(0.5, 1.0))
        self._retry_s = min(2 * self._retry_s, self._retry_max_s)

    def _came_back(self) -> None:
        _log.info("bus_open", bus=self._opener.bus)
        self._reported_away = False
        if self._away_since_ns is not None:
            self._lost("interface away", self._away_since_ns, time.time_ns(), count=0)
            self._away_since_ns = None


def _takes(interface: type[can.BusABC], option: str) -> bool:
    """Whether an interface knows an option: as a parameter, or by its quoted name where it looks into its **kwargs.

    python-can's interfaces swallow what they do not know, so a misspelt option would silently do nothing.
    """
    for base in interface.__mro__[:-1]:
        if option in inspect.signature(base).parameters:
            return True
        with suppress(OSError):  # installed without its source: then the parameters alone must do
            if f'"{option}"' in inspect.getsource(base):
                return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _shut_down(opened: can.BusABC) -> None:
    # It may be gone already, and then says so once more.
    with suppress(can.CanError, OSError):
        opened.shutdown()
