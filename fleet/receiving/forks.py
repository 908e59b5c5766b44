"""Logs which epochs are forked (see fleet.lake.batch_key).

Invariant: a vehicle that forks many epochs does not fill the log.
"""

import time

import structlog

from fleet.lake.batch_key import BatchKey
from fleet.receiving.allowance import Allowance
from fleet.receiving.rejections import LINES, LINES_PER_S

_log = structlog.get_logger()


class Forks:
    """Counts and logs the forks of one receiver."""

    def __init__(self) -> None:
        self._lines = Allowance(LINES, LINES_PER_S)
        self.count = 0

    def note(self, key: BatchKey) -> None:
        """Note the first batch of an epoch whose number another batch has."""
        self.count += 1
        if self._lines.take(key.vehicle, time.monotonic()):
            _log.warning(
                "epoch_forked",
                vehicle=key.vehicle,
                epoch=key.epoch,
                seq=key.seq,
                reason="The vehicle has sent two different batches under one number. Both are stored. Either its disk "
                "was put back to an earlier state, or two head units have one identity. If the vehicle was not "
                "repaired, enrol the copied head unit anew. `fleet query ledger` lists the numbers.",
            )
