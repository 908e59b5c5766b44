"""Count which variants apps were given, and report the counts to the fleet as events.

    event `toggle_evaluations`    toggle, variant, evaluations, seconds (the time in which they were counted)

`variant` is empty for answers that left the value to the app's own code, and for rules that failed.

Invariants:

- An event says nothing about an app: neither which app asked, nor anything that an app sent.
- At most EVENTS events are sent each INTERVAL_S.  If there are more pairs of toggle and variant, the rarest share one
  event, with an empty name and the number of pairs in `toggles_together`.

Limits: an app that reads flagd's file evaluates by itself, so its evaluations are not counted.  A power cut or SIGKILL
loses the counts since the latest report.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from agent.formats.up.limits import MAX_LABEL_CHARS, shortened

EVALUATIONS: Final = "toggle_evaluations"
"""The kind of the events."""
INTERVAL_S: Final = 3_600.0
"""An hour between reports is enough for counts of a day, and costs some 20 kB a day for 20 toggles."""
EVENTS: Final = 200
"""The most events of one report.  They fit one batch of events, whose limit is 256 (`reporter.EVENTS_AT_ONCE`)."""

Fields = Mapping[str, str | int | float | bool]


class EvaluationCounts:
    """Counts evaluations.  Any thread may call `add`.

    Memory is bounded, because the names are those of the flag definitions in force, whose sizes have limits.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._since_s = now_s()

    def add(self, answers: Iterable[tuple[str, str | None]]) -> None:
        """Count one evaluation for each pair of a toggle and its variant."""
        with self._lock:
            self._counts.update((key, variant or "") for key, variant in answers)

    def take(self) -> list[Fields]:
        """Return the fields of the events for all evaluations since the latest call, the most frequent first."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            now_s = self._now_s()
            seconds, self._since_s = round(now_s - self._since_s), now_s
        ordered = counts.most_common()
        named, rest = (ordered, []) if len(ordered) <= EVENTS else (ordered[: EVENTS - 1], ordered[EVENTS - 1 :])
        events: list[Fields] = [
            {
                "toggle": shortened(toggle, MAX_LABEL_CHARS),
                "variant": shortened(variant, MAX_LABEL_CHARS),
                "evaluations": count,
                "seconds": seconds,
            }
            for (toggle, variant), count in named
        ]
        if rest:
            together = {"toggles_together": len(rest), "evaluations": sum(count for _, count in rest)}
            events.append({"toggle": "", "variant": "", "seconds": seconds, **together})
        return events

    async def run(self, report: Callable[[str, Fields], object], interval_s: float = INTERVAL_S) -> None:
        """Report the counts every `interval_s`, and once more when this call is cancelled.

        `report` takes the kind and the fields of an event.
        """
        try:
            while True:
                await asyncio.sleep(interval_s)
                self._report(report)
        finally:
            self._report(report)

    def _report(self, report: Callable[[str, Fields], object]) -> None:
        for fields in self.take():
            report(EVALUATIONS, fields)
