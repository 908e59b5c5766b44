"""When buffered frames are decoded, and when each campaign's window closes.  Pure: asks for a timer, never sleeps.

Frames are buffered undecoded.  A *tick* takes frames off the front of the buffer to be decoded, once for all campaigns;
windows close only at ticks.  What a tick takes depends on the times of the frames alone, so a log replayed at any speed
and in blocks of any size gives the same windows:

- increment: the first frame at or after the end of the increment ends it; increments follow one another from the first
  frame on (not from full minutes, at which a whole fleet would otherwise send at once);
- a clock that stepped back by more than an increment ends it too, since its end would not be reached;
- size: at `max_frames` buffered frames.

A window closes at the first tick at which its campaign's period has passed, or after the first at which it holds
`max_window_samples`, or was made durable in MAX_INCREMENTS parts.  A tick at which it stays open, `loss_window_ns`
after what it holds was last made durable, asks to make durable what came since; `seal` asks at once.  The one thing
that the monotonic clock decides: after `silence_ns` without a frame (ignition off) everything is taken and closed.

Invariant: each frame is taken by exactly one tick, in order, and no buffer grows beyond its limit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_INCREMENTS: Final = 256  # of one window: bounds what its batch replaces


@dataclass(frozen=True, slots=True)
class Closing:
    """The window of `campaign` ends; it spans `start_ns` to `end_ns` (excluded), times of frames, Unix epoch."""

    campaign: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Take the first `frames` off the buffer, decode and collect them, then close the windows named.

    Of the windows `sealing` make durable what came since the start that is named; see `Batcher.sealed`.
    """

    frames: int
    closing: tuple[Closing, ...]
    sealing: tuple[Closing, ...] = ()


@dataclass(slots=True)
class _Open:
    """An open window.  `passed_ns` adds up increments, so that a stepping clock cannot stretch or cut it.

    `sealed_ns` of that is durable, in `increments` parts, which end at `sealed_until_ns`.
    """

    start_ns: int
    end_ns: int
    passed_ns: int = 0
    sealed_ns: int = 0
    sealed_until_ns: int | None = None
    increments: int = 0


class Batcher:
    """Timing of one set of campaigns: `periods_ns` is each one's period by name.

    For another set: `flush`, carry the tick out, and make a new Batcher.
    """

    def __init__(
        self,
        periods_ns: Mapping[str, int],
        *,
        increment_ns: int,
        silence_ns: int,
        max_frames: int,
        max_window_samples: int,
        loss_window_ns: int = 0,
    ) -> None:
        """`loss_window_ns`: 0 for windows that are made durable whole."""
        assert increment_ns > 0
        assert silence_ns > 0
        assert max_frames > 0
        assert max_window_samples > 0
        self._periods_ns = dict(periods_ns)
        self._increment_ns = increment_ns
        self._silence_ns = silence_ns
        self._max_frames = max_frames
        self._max_window_samples = max_window_samples
        self._loss_window_ns = loss_window_ns
        self._buffered = 0
        self._start_ns = 0  # of the increment; meaningful while frames are buffered
        self._latest_ns = 0  # highest time in the increment
        self._windows: dict[str, _Open] = {}
        self._deadline_ns: int | None = None

    @property
    def buffered(self) -> int:
        """Frames that no tick has taken yet."""
        return self._buffered

    @property
    def deadline_ns(self) -> int | None:
        """When to call `poll`, on the monotonic clock; None: no need."""
        return self._deadline_ns

    def frames(self, t_ns: NDArray[np.int64], now_ns: int) -> Iterator[Tick]:
        """Frames with the times `t_ns` were appended to the buffer at `now_ns` (monotonic): what is due, in order.

        Carry out each tick, `collected` included, before asking for the next one; exhaust the iterator.
        """
        if len(t_ns):
            self._deadline_ns = now_ns + self._silence_ns
        return self._take(t_ns)

    def poll(self, now_ns: int) -> list[Tick]:
        """The deadline may have passed at `now_ns` (monotonic): what is due."""
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return []
        return self.flush()

    def flush(self) -> list[Tick]:
        """Take everything and close every window, before a change or a stop; nothing where nothing is open."""
        self._deadline_ns = None
        if not self._buffered and not self._windows:
            return []
        end_ns = self._latest_ns + 1 if self._buffered else self._start_ns
        return [self._tick(end_ns, end_ns - self._start_ns, close_all=True)]

    def seal(self) -> list[Tick]:
        """Take everything and make durable what open windows hold, ahead of time: a source has little room left."""
        if not self._buffered and not self._windows:
            return []
        end_ns = self._latest_ns + 1 if self._buffered else self._start_ns
        return [self._tick(end_ns, end_ns - self._start_ns, seal_all=True)]

    def collected(self, campaign: str, samples: int) -> Closing | None:
        """After a tick was carried out, the open window of `campaign` holds `samples`: whether to close it too."""
        window = self._windows.get(campaign)
        if window is None or samples < self._max_window_samples:
            return None
        del self._windows[campaign]
        return Closing(campaign, window.start_ns, window.end_ns)

    def sealed(self, campaign: str) -> None:
        """What a tick asked to make durable of `campaign` is; where it could not be done, the next tick asks again."""
        window = self._windows[campaign]
        window.sealed_ns, window.sealed_until_ns = window.passed_ns, window.end_ns
        window.increments += 1

    def _take(self, t_ns: NDArray[np.int64]) -> Iterator[Tick]:
        position = 0
        while position < len(t_ns):
            if not self._buffered:
                self._begin(int(t_ns[position]))
            room = self._max_frames - self._buffered
            ahead = t_ns[position : position + room]
            ends = (ahead >= self._start_ns + self._increment_ns) | (ahead < self._start_ns - self._increment_ns)
            end = int(ends.argmax()) if ends.any() else len(ahead)
            if end:
                self._latest_ns = max(self._latest_ns, int(ahead[:end].max()))
                self._buffered += end
                position += end
            if end < len(ahead):
                yield self._increment_over(int(ahead[end]))
            elif self._buffered == self._max_frames:
                yield self._tick(self._latest_ns + 1, self._latest_ns + 1 - self._start_ns)

    def _begin(self, t_ns: int) -> None:
        """A new increment with its first frame; where the one before ended in time, its end is kept as the start."""
        over_ns = t_ns - self._start_ns
        if not (self._windows and 0 <= over_ns < self._increment_ns):
            self._start_ns = t_ns
        self._latest_ns = t_ns
        for campaign in self._periods_ns:
            window = self._windows.setdefault(campaign, _Open(self._start_ns, self._start_ns))
            window.start_ns = min(window.start_ns, self._start_ns)

    def _increment_over(self, next_ns: int) -> Tick:
        """The increment has ended because of a frame at `next_ns`, which lies beyond it."""
        end_ns = self._start_ns + self._increment_ns
        if next_ns < self._start_ns:  # the clock stepped back: what lies between is unknown
            return self._tick(self._latest_ns + 1, self._latest_ns + 1 - self._start_ns)
        # A gap counts for the periods, so that no window lingers behind it.
        gap_ns = (next_ns - end_ns) // self._increment_ns * self._increment_ns
        return self._tick(end_ns, self._increment_ns + gap_ns)

    def _tick(self, end_ns: int, passed_ns: int, *, close_all: bool = False, seal_all: bool = False) -> Tick:
        closing, sealing = [], []
        for campaign, window in list(self._windows.items()):
            window.passed_ns += passed_ns
            window.end_ns = max(window.end_ns, end_ns)
            over = window.passed_ns >= self._periods_ns[campaign] or window.increments == MAX_INCREMENTS
            if close_all or over:
                closing.append(Closing(campaign, window.start_ns, window.end_ns))
                del self._windows[campaign]
            elif self._seals(window.passed_ns - window.sealed_ns, seal_all=seal_all):
                since_ns = window.start_ns if window.sealed_until_ns is None else window.sealed_until_ns
                sealing.append(Closing(campaign, since_ns, window.end_ns))
        tick = Tick(self._buffered, tuple(closing), tuple(sealing))
        self._buffered = 0
        self._start_ns = end_ns
        return tick

    def _seals(self, open_ns: int, *, seal_all: bool) -> bool:
        """Whether `open_ns` of a window, which are not durable yet, shall be now."""
        return bool(open_ns) if seal_all else 0 < self._loss_window_ns <= open_ns
