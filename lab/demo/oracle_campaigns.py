"""Applies campaigns for the oracle, sample by sample in plain Python.  Pure.

The rules are those of config/campaigns/README.md:

- The first sample of a signal is kept.
- Without `minimumSamplingIntervalMs`, every sample is kept.
- With `minimumSamplingIntervalMs`, a sample is kept if it comes at least this interval after the previous kept sample.
- If a sample is more than a minute older than the previous kept sample, the clock was set back, and the sample is kept.
- With `onChange`, a sample is never kept if its raw value equals that of the previous sample.  The previous sample
  counts even if it was not kept.

If messages are matched by J1939 parameter group, the rules apply to the samples of each source address separately.
"""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

CLOCK_SET_BACK_NS: Final = 60_000_000_000


class _Rule:
    """Applies one entry of `signalsToCollect` to one signal.

    It remembers the raw value of the previous sample, and the time of the previous kept sample.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.interval_ns = int(entry.get("minimumSamplingIntervalMs", 0) or 0) * 1_000_000
        self.on_change = bool(entry.get("onChange", False))
        self.last_kept_ns: int | None = None
        self.last_raw: int | None = None

    def keeps(self, t_ns: int, raw: int) -> bool:
        """Return whether a sample is kept.  The caller must pass every sample of the signal, in order."""
        changed = self.last_raw is None or raw != self.last_raw
        self.last_raw = raw
        if self.on_change and not changed:
            return False
        if self.last_kept_ns is not None and self.interval_ns:
            waited_ns = t_ns - self.last_kept_ns
            # If the clock was set back by more than CLOCK_SET_BACK_NS, the interval starts anew.
            if -CLOCK_SET_BACK_NS <= waited_ns < self.interval_ns:
                return False
        self.last_kept_ns = t_ns
        return True


class OracleCampaign:
    """Holds one campaign document, and the state of every signal that it collects."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.name = str(document["name"])
        self.revision = json.dumps(document, sort_keys=True)
        self._entries: Sequence[Mapping[str, Any]] = document["signalsToCollect"]
        self._rules: dict[tuple[str, int | None, str], _Rule | None] = {}

    def rule(self, bus: str, sender: int | None, signal: str) -> _Rule | None:
        """Return the rule of one signal, or None if the campaign does not collect it."""
        key = (bus, sender, signal)
        if key not in self._rules:
            # An exact name beats a glob.  Among several exact names, or several globs, the first entry wins.
            exact = [entry for entry in self._entries if entry["name"] == signal]
            globs = [entry for entry in self._entries if fnmatchcase(signal, entry["name"])]
            found = (exact or globs)[:1]
            self._rules[key] = _Rule(found[0]) if found else None
        return self._rules[key]
