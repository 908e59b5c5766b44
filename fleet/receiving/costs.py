"""Charges the receiver's work to the vehicles that cause it."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

from fleet.lake.rows import BatchRows
from fleet.receiving.allowance import Allowance
from fleet.receiving.pending_batches import Commit

MOST_S: Final = 120.0
PER_S: Final = 0.2
"""The seconds of work that one vehicle may cause at once, and in each second in the long run.

A car that collects 25,000 samples a second causes some 0.02 s in each second.  After a long time offline, the allowance
covers an hour and a half of such a collection at once, and ten times the usual rate from then on.
"""

_BATCH_SAMPLES: Final = 5_000  # a batch costs as much as this many samples, besides the samples that it has


class Costs(Allowance):
    """Holds the allowance of work of each vehicle."""

    def __init__(self) -> None:
        super().__init__(MOST_S, PER_S)

    @contextlib.contextmanager
    def charging(self, vehicle: str) -> Iterator[None]:
        """Charge the time of a `with` block to the vehicle."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            now_s = time.monotonic()
            self.spend(vehicle, now_s - started_s, now_s)

    def charge_commit(self, commit: Commit, batches: Sequence[BatchRows], seconds: float) -> None:
        """Divide the time that a commit took among the vehicles of its batches."""
        shares = [_BATCH_SAMPLES + rows["samples"].num_rows for rows in batches]
        now_s = time.monotonic()
        for batch, share in zip(commit.batches, shares, strict=True):
            self.spend(batch.key.vehicle, seconds * share / sum(shares), now_s)
