"""Decides when buffered frames are decoded and when the windows of campaigns close.

This file is pure: it returns a deadline, but never reads a clock and never sleeps.

Frames are buffered undecoded.  A *tick* takes frames off the front of the buffer, and they are decoded once for all
campaigns.  Windows close only at ticks.  Ticks depend only on the times of the frames, so a log gives the same windows
at any speed of replay and with blocks of any size.  A tick is due

- at the first frame at or after the end of the increment.  Increments follow one another from the first frame on.
  They do not begin at full minutes, because then a whole fleet would send at the same time;
- when the clock has stepped back by more than an increment, because the increment would otherwise last too long;
- when `max_frames` frames are buffered.

A window closes at the first tick at which its campaign's period has passed or at which it has MAX_CHECKPOINTS
checkpoints.  It also closes right after a tick that leaves `max_window_samples` or more samples in it.  If a window
stays open and its last checkpoint is `checkpoint_ns` or more ago, the tick asks for a checkpoint of the samples since
then.  A call of `Batcher.checkpoint` asks for a checkpoint of every open window at once.

The monotonic clock decides only one thing.  After `silence_ns` without a frame (the ignition is off), a tick takes all
frames and closes all windows.

Rows of values from sources that are not buses count as frames here.

Invariant: each frame is taken by exactly one tick, in order, and the buffer never exceeds its limit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

MAX_CHECKPOINTS: Final = 256  # of one window; bounds the number of batches that replace the window after a crash


class Span(msgspec.Struct, frozen=True):
    """The time that a window or a checkpoint of `campaign` covers: `start_ns` is included, `end_ns` is not.

    Both are times of frames in nanoseconds since the Unix epoch, not times of the machine's clock.
    """

    campaign: str
    start_ns: int
    end_ns: int


class Tick(msgspec.Struct, frozen=True):
    """An order to take the first `frames` frames off the buffer, collect their signals, and then close windows.

    `frames` counts rows of values as well.  `closing` names the windows to close.  `checkpoints` names the windows to
    checkpoint.  The span of a checkpoint begins where the window's last durable checkpoint ended, or else where the
    window began.
    """

    frames: int
    closing: tuple[Span, ...]
    checkpoints: tuple[Span, ...] = ()


@dataclass(slots=True)
class _Open:
    """An open window.

    `passed_ns` is the sum of the window's increments, so a clock that steps cannot lengthen or shorten the window.
    `checkpoints` counts the window's durable checkpoints.  Together they cover the first `durable_ns` of `passed_ns`.
    The last of them ends at the frame time `durable_until_ns`.
    """

    start_ns: int
    end_ns: int
    passed_ns: int = 0
    durable_ns: int = 0
    durable_until_ns: int | None = None
    checkpoints: int = 0


class Batcher:
    """Decides when the windows of one set of campaigns close.  `periods_ns` has the period of each campaign by name.

    To change the set, call `flush`, carry out its tick, and make a new Batcher.
    """

    def __init__(
        self,
        periods_ns: Mapping[str, int],
        *,
        increment_ns: int,
        silence_ns: int,
        max_frames: int,
        max_window_samples: int,
        checkpoint_ns: int = 0,
    ) -> None:
        """Set the limits.  If `checkpoint_ns` is 0, only the ticks that `checkpoint` returns ask for checkpoints."""
        assert increment_ns > 0
        assert silence_ns > 0
        assert max_frames > 0
        assert max_window_samples > 0
        self._periods_ns = dict(periods_ns)
        self._increment_ns = increment_ns
        self._silence_ns = silence_ns
        self._max_frames = max_frames
        self._max_window_samples = max_window_samples
        self._checkpoint_ns = checkpoint_ns
        self._buffered = 0
        self._start_ns = 0  # start of the increment, or end of the last one while no frames are buffered
        self._latest_ns = 0  # highest time in the increment
        self._windows: dict[str, _Open] = {}
        self._deadline_ns: int | None = None

    @property
    def buffered(self) -> int:
        """Return how many frames no tick has taken yet."""
        return self._buffered

    @property
    def deadline_ns(self) -> int | None:
        """Return when to call `poll`, on the monotonic clock, or None if there is nothing to wait for."""
        return self._deadline_ns

    def add_times(self, t_ns: NDArray[np.int64], now_ns: int) -> Iterator[Tick]:
        """Yield the ticks that are due after frames with the times `t_ns` entered the buffer at `now_ns` (monotonic).

        The caller must exhaust the iterator.  Before the caller asks for the next tick, it must carry out the last one
        and call `collected`.
        """
        if len(t_ns):
            self._deadline_ns = now_ns + self._silence_ns
        return self._take(t_ns)

    def poll(self, now_ns: int) -> list[Tick]:
        """Return a tick that closes all windows if the deadline has passed at `now_ns` (monotonic), else no tick."""
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return []
        return self.flush()

    def flush(self) -> list[Tick]:
        """Return a tick that takes all frames and closes all windows.

        The list is empty if no frame is buffered and no window is open.
        """
        self._deadline_ns = None
        if not self._buffered and not self._windows:
            return []
        end_ns = self._latest_ns + 1 if self._buffered else self._start_ns
        return [self._tick(end_ns, end_ns - self._start_ns, close_all=True)]

    def checkpoint(self) -> list[Tick]:
        """Return a tick that checkpoints all open windows ahead of time, because a source has little room left.

        The list is empty if no frame is buffered and no window is open.
        """
        if not self._buffered and not self._windows:
            return []
        end_ns = self._latest_ns + 1 if self._buffered else self._start_ns
        return [self._tick(end_ns, end_ns - self._start_ns, checkpoint_all=True)]

    def collected(self, campaign: str, samples: int) -> Span | None:
        """Close the window of `campaign` if it holds too many samples, and return its span; otherwise return None.

        Call this for each campaign after each tick, with the number of `samples` in the campaign's window.
        """
        window = self._windows.get(campaign)
        if window is None or samples < self._max_window_samples:
            return None
        del self._windows[campaign]
        return Span(campaign, window.start_ns, window.end_ns)

    def checkpointed(self, campaign: str) -> None:
        """Note that the checkpoint that a tick asked for is durable.  Without this call, the next tick asks again."""
        window = self._windows[campaign]
        window.durable_ns, window.durable_until_ns = window.passed_ns, window.end_ns
        window.checkpoints += 1

    def _take(self, t_ns: NDArray[np.int64]) -> Iterator[Tick]:
        place = 0
        while place < len(t_ns):
            if not self._buffered:
                self._begin(int(t_ns[place]))
            room = self._max_frames - self._buffered
            ahead = t_ns[place : place + room]
            ends = (ahead >= self._start_ns + self._increment_ns) | (ahead < self._start_ns - self._increment_ns)
            end = int(ends.argmax()) if ends.any() else len(ahead)
            if end:
                self._latest_ns = max(self._latest_ns, int(ahead[:end].max()))
                self._buffered += end
                place += end
            if end < len(ahead):
                yield self._increment_over(int(ahead[end]))
            elif self._buffered == self._max_frames:
                yield self._tick(self._latest_ns + 1, self._latest_ns + 1 - self._start_ns)

    def _begin(self, t_ns: int) -> None:
        """Begin the increment whose first frame is at `t_ns`.

        If a window is open and the frame comes less than an increment after the last increment ended, the new increment
        begins at that end.  No time then lies between the two.  Otherwise, the new increment begins at the frame.
        """
        over_ns = t_ns - self._start_ns
        if not (self._windows and 0 <= over_ns < self._increment_ns):
            self._start_ns = t_ns
        self._latest_ns = t_ns
        for campaign in self._periods_ns:
            window = self._windows.setdefault(campaign, _Open(self._start_ns, self._start_ns))
            window.start_ns = min(window.start_ns, self._start_ns)

    def _increment_over(self, next_ns: int) -> Tick:
        """Return the tick that ends the increment, because the frame at `next_ns` lies outside of it."""
        end_ns = self._start_ns + self._increment_ns
        if next_ns < self._start_ns:  # The clock stepped back, so the time that passed in between is unknown.
            return self._tick(self._latest_ns + 1, self._latest_ns + 1 - self._start_ns)
        # A gap counts towards the periods, so that no window stays open longer than its period because of the gap.
        gap_ns = (next_ns - end_ns) // self._increment_ns * self._increment_ns
        return self._tick(end_ns, self._increment_ns + gap_ns)

    def _tick(self, end_ns: int, passed_ns: int, *, close_all: bool = False, checkpoint_all: bool = False) -> Tick:
        closing, checkpoints = [], []
        for campaign, window in list(self._windows.items()):
            window.passed_ns += passed_ns
            window.end_ns = max(window.end_ns, end_ns)
            over = window.passed_ns >= self._periods_ns[campaign] or window.checkpoints == MAX_CHECKPOINTS
            if close_all or over:
                closing.append(Span(campaign, window.start_ns, window.end_ns))
                del self._windows[campaign]
            elif self._is_due(window.passed_ns - window.durable_ns, checkpoint_all=checkpoint_all):
                since_ns = window.start_ns if window.durable_until_ns is None else window.durable_until_ns
                checkpoints.append(Span(campaign, since_ns, window.end_ns))
        tick = Tick(self._buffered, tuple(closing), tuple(checkpoints))
        self._buffered = 0
        self._start_ns = end_ns
        return tick

    def _is_due(self, open_ns: int, *, checkpoint_all: bool) -> bool:
        """Return whether a window is due for a checkpoint.  `open_ns` is how much of its time is not durable yet."""
        return bool(open_ns) if checkpoint_all else 0 < self._checkpoint_ns <= open_ns
