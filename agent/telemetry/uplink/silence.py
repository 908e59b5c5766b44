"""Whether a receiver answers at all, and which kinds of batches it does not answer.  Pure: times are monotonic seconds.

When no acknowledgement came since an overdue batch was sent, the receiver is taken to be away, and only one batch at a
time probes for it, at growing intervals: an outage of the receiver costs a few batches of bandwidth, not the window
again and again.  A kind whose last batch was answered need not probe, so fresh data does not wait because the backlog
gets no answer.  A kind that gets no answer goes last, so it holds up none of the others.
"""

import math
from collections.abc import Callable

from agent.telemetry.uplink.turns import Turn


class Silence:
    """The record of answers on one connection.  `patience_s` gives the wait after so many probes."""

    def __init__(self, patience_s: Callable[[int], float]) -> None:
        self._patience_s = patience_s
        self._answered_at_s = -math.inf
        self._away = False
        self._probes = 0
        self._next_probe_s = -math.inf
        self._unheard: dict[Turn, int] = {}  # kinds without an answer; the number orders them
        self._overdue = 0

    def order(self) -> list[Turn]:
        """The kinds in the order of their turns; those without an answer come last."""
        return sorted(Turn, key=lambda turn: self._unheard.get(turn, 0))

    def is_probing(self, turn: Turn) -> bool:
        """Whether a batch of that kind would be a probe."""
        return self._away and (turn.beside or turn in self._unheard)

    def allows(self, turn: Turn, now_s: float) -> bool:
        """Whether a batch of that kind may be sent now."""
        return not self.is_probing(turn) or now_s >= self._next_probe_s

    def wake_at_s(self) -> float:
        """When the next probe is due; minus infinity while the receiver answers."""
        return self._next_probe_s if self._away else -math.inf

    def sent(self, turn: Turn, now_s: float) -> None:
        """Note that a batch of that kind is sent."""
        if self.is_probing(turn):
            self._next_probe_s = now_s + self._patience_s(self._probes)
            self._probes += 1

    def overdue(self, turn: Turn, sent_at_s: float) -> None:
        """Note that a batch of that kind, sent at `sent_at_s`, got no answer in time."""
        self._away = self._away or self._answered_at_s < sent_at_s
        self._overdue += 1
        self._unheard[turn] = self._overdue

    def answered(self, now_s: float) -> None:
        """Note that the receiver said something, whatever it was."""
        self._answered_at_s = now_s
        self._away = False
        self._probes = 0
        self._next_probe_s = -math.inf

    def heard(self, turn: Turn) -> None:
        """Note that a batch of that kind was answered."""
        self._unheard.pop(turn, None)
