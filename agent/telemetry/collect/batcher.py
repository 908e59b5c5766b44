"""When buffered frames are decoded, and when each campaign's window closes.  Pure: asks for a timer, never sleeps.

Frames are buffered undecoded.  A *tick* takes frames off the front of the buffer to be decoded, once for all campaigns;
windows close only at ticks.  What a tick takes depends on the times of the frames alone, so a log replayed at any speed
and in blocks of any size gives the same windows:

- increment: the first frame at or after the end of the increment ends it; increments follow one another from the first
  frame on (not from full minutes, at which a whole fleet would otherwise send at once);
- a clock that stepped back by more than an increment ends it too, since its end would not be reached;
- size: at `max_frames` buffered frames.

A window closes at the first tick at which its campaign's period has passed, or after the first at which it holds
`max_window_samples`, or has MAX_CHECKPOINTS checkpoints.  If it stays open at a
tick that is `checkpoint_ns` after its last checkpoint, the tick asks for a checkpoint of what came since; `checkpoint`
asks at once.  The monotonic clock decides one thing only: after `silence_ns` without a frame (ignition off) everything
is taken and closed.

Rows of values from sources that are not buses count as frames here.

Invariant: each frame is taken by exactly one tick, in order, and no buffer grows beyond its limit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_CHECKPOINTS: Final = 256  # of one window: bounds the batches that a crash leaves in its place


@dataclass(frozen=True, slots=True)
class Span:
    """The time of a window of `campaign`, or of a checkpoint: `start_ns` to `end_ns` (excluded), Unix epoch.

    These are times of frames, not of the machine's clock.
    """

    campaign: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Tick:
    """One thing that is due: take the first `frames` off the buffer, decode and collect them, then close windows.

    `frames` counts rows of values as well.  `closing` names the windows to close.  `checkpoints` names the
    windows to checkpoint, each with the time from which on; see `Batcher.checkpointed`.
    """

    frames: int
    closing: tuple[Span, ...]
    checkpoints: tuple[Span, ...] = ()


@dataclass(slots=True)
class _Open:
    """An open window.  `passed_ns` adds up increments, so that a stepping clock cannot stretch or cut it.

    The first `durable_ns` of them are durable, in `checkpoints` checkpoints that end at `durable_until_ns`.
    """

    start_ns: int
    end_ns: int
    passed_ns: int = 0
    durable_ns: int = 0
    durable_until_ns: int | None = None
    checkpoints: int = 0


class Batcher:
    """The timing of one set of campaigns; `periods_ns` gives the period of each campaign by name.

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
        """`checkpoint_ns` 0: windows become durable as a whole, without checkpoints."""
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

    def add_times(self, t_ns: NDArray[np.int64], now_ns: int) -> Iterator[Tick]:
        """Yield what is due, in order, after frames of the times `t_ns` came into the buffer at `now_ns` (monotonic).

        Carry out each tick, `collected` included, before asking for the next one; exhaust the iterator.
        """
        if len(t_ns):
            self._deadline_ns = now_ns + self._silence_ns
        return self._take(t_ns)

    def poll(self, now_ns: int) -> list[Tick]:
        """Return what is due if the deadline has passed at `now_ns` (monotonic)."""
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

    def checkpoint(self) -> list[Tick]:
        """Return a tick that checkpoints all open windows ahead of time, because a source has little room left."""
        if not self._buffered and not self._windows:
            return []
        end_ns = self._latest_ns + 1 if self._buffered else self._start_ns
        return [self._tick(end_ns, end_ns - self._start_ns, checkpoint_all=True)]

    def collected(self, campaign: str, samples: int) -> Span | None:
        """Return the span of the open window of `campaign` if its `samples` after a tick are enough to close it too."""
        window = self._windows.get(campaign)
        if window is None or samples < self._max_window_samples:
            return None
        del self._windows[campaign]
        return Span(campaign, window.start_ns, window.end_ns)

    def checkpointed(self, campaign: str) -> None:
        """Note that the checkpoint that a tick asked for is durable; without this call the next tick asks again."""
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
        """Begin an increment with its first frame; where the one before ended in time, start at its end."""
        over_ns = t_ns - self._start_ns
        if not (self._windows and 0 <= over_ns < self._increment_ns):
            self._start_ns = t_ns
        self._latest_ns = t_ns
        for campaign in self._periods_ns:
            window = self._windows.setdefault(campaign, _Open(self._start_ns, self._start_ns))
            window.start_ns = min(window.start_ns, self._start_ns)

    def _increment_over(self, next_ns: int) -> Tick:
        """Return the tick of an increment that a frame at `next_ns`, which lies beyond it, has ended."""
        end_ns = self._start_ns + self._increment_ns
        if next_ns < self._start_ns:  # the clock stepped back: what lies between is unknown
            return self._tick(self._latest_ns + 1, self._latest_ns + 1 - self._start_ns)
        # A gap counts for the periods, so that no window lingers behind it.
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
        """Whether to checkpoint a window of which `open_ns` are not durable yet."""
        return bool(open_ns) if checkpoint_all else 0 < self._checkpoint_ns <= open_ns
