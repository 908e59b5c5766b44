"""Finds out whether the receiver answers at all, and which kinds of batches it does not answer.  This file is pure.

Times are monotonic seconds.  If no acknowledgement has come since an overdue batch was sent, the receiver counts as
away.  Then most batches are sent only as *probes*, which means one at a time and at growing intervals.  Without probes,
the whole in-flight window would be sent again and again while the receiver is away.

While the receiver is away, batches that must not delay fresh data (`Turn.beside`) are always probes.  Events and fresh
data are probes only if the last batch of their kind got no answer; otherwise they are sent as usual.  If only the
backlog gets no answer, fresh data therefore does not wait.  A kind that gets no answer goes last, so it does not hold
up the other kinds.
"""

import math
from collections.abc import Callable

from agent.telemetry.uplink.turns import Turn


class Silence:
    """Records which kinds of batches are answered on one connection.

    `patience_s` takes the number of earlier probes without an answer.  It returns how many seconds to wait after the
    next probe.
    """

    def __init__(self, patience_s: Callable[[int], float]) -> None:
        self._patience_s = patience_s
        self._answered_at_s = -math.inf
        self._away = False
        self._probes = 0
        self._next_probe_s = -math.inf
        self._unheard: dict[Turn, int] = {}  # kinds without an answer; the number orders them
        self._overdue = 0

    def order(self) -> list[Turn]:
        """Return the kinds in the order in which they take turns.  Kinds whose last batch got no answer come last."""
        return sorted(Turn, key=lambda turn: self._unheard.get(turn, 0))

    def is_probing(self, turn: Turn) -> bool:
        """Return whether a batch of this kind would be a probe."""
        return self._away and (turn.beside or turn in self._unheard)

    def allows(self, turn: Turn, now_s: float) -> bool:
        """Return whether a batch of this kind may be sent now."""
        return not self.is_probing(turn) or now_s >= self._next_probe_s

    def wake_at_s(self) -> float:
        """Return when the next probe is due, or minus infinity while the receiver answers."""
        return self._next_probe_s if self._away else -math.inf

    def sent(self, turn: Turn, now_s: float) -> None:
        """Record that a batch of the given kind was sent."""
        if self.is_probing(turn):
            self._next_probe_s = now_s + self._patience_s(self._probes)
            self._probes += 1

    def overdue(self, turn: Turn, sent_at_s: float) -> None:
        """Note that a batch of this kind, sent at `sent_at_s`, got no answer in time."""
        self._away = self._away or self._answered_at_s < sent_at_s
        self._overdue += 1
        self._unheard[turn] = self._overdue

    def answered(self, now_s: float) -> None:
        """Note that an acknowledgement of any batch came from the receiver."""
        self._answered_at_s = now_s
        self._away = False
        self._probes = 0
        self._next_probe_s = -math.inf

    def heard(self, turn: Turn) -> None:
        """Note that a batch of this kind was answered."""
        self._unheard.pop(turn, None)
