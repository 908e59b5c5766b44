"""Limits how fast the backlog drains, by a token bucket of bytes.  This file is pure; times are monotonic seconds.

An open bucket gives a whole batch, even if its level becomes negative.  Invariant: in any `t` seconds, at most
`rate_bytes_s * (t + BURST_S)` bytes and one more batch are taken.
"""

import math
from typing import Final

BURST_S: Final = 1.0  # a full bucket holds the bytes of this time: enough for uneven batches, little for a link


class TokenBucket:
    """A bucket that gains `rate_bytes_s` bytes a second.  If `rate_bytes_s` is 0, the bucket is always open."""

    def __init__(self, rate_bytes_s: float) -> None:
        self._rate = rate_bytes_s
        self._level = rate_bytes_s * BURST_S
        self._at_s = -math.inf

    def set_rate(self, rate_bytes_s: float, now_s: float) -> None:
        """Gain `rate_bytes_s` from now on.  The bucket is never fuller than it can be at the new rate."""
        filled = self._filled(now_s) if self._rate else rate_bytes_s * BURST_S
        self._rate = rate_bytes_s
        self._level, self._at_s = min(filled, rate_bytes_s * BURST_S), now_s

    def is_open(self, now_s: float) -> bool:
        """Return whether a batch may be taken now."""
        return self._rate == 0 or self._filled(now_s) > 0

    def take(self, size_bytes: int, now_s: float) -> None:
        """Take `size_bytes` out of the bucket, because a batch of this size is sent."""
        if self._rate:
            self._level = self._filled(now_s) - size_bytes
            self._at_s = max(self._at_s, now_s)

    def opens_at_s(self, now_s: float) -> float:
        """Return when the bucket opens again, or `now_s` if it is open."""
        if self.is_open(now_s):
            return now_s
        # At a level of exactly zero, the bucket is still closed, so this is the time at which it holds one byte.
        return max(self._at_s, now_s) + (1.0 - self._filled(now_s)) / self._rate

    def _filled(self, now_s: float) -> float:
        if self._at_s == -math.inf:
            return self._level
        return min(self._rate * BURST_S, self._level + self._rate * max(0.0, now_s - self._at_s))
