"""Keeps rejected batches for an operator, and logs why they were rejected.

Invariant: a vehicle that sends rubbish fills neither the log nor the quarantine.
"""

import time
from typing import Final

import structlog

from fleet.receiving.allowance import Allowance
from fleet.receiving.intake import Rejection
from fleet.receiving.message import Message
from fleet.receiving.quarantine import Quarantine

LOGGED_CAUSES: Final = 1_000
"""The limit of causes of silent rejections that are remembered, so that each is logged only once."""

LINES: Final = 20
LINES_PER_S: Final = 1 / 30
"""How many rejections of one vehicle are logged at once, and how many a second in the long run."""

_log = structlog.get_logger()


class Rejections:
    """Handles the rejections of one receiver."""

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._lines = Allowance(LINES, LINES_PER_S)
        self._not_logged = 0
        # The topic and reason of each silent rejection that was logged.
        self._logged: set[tuple[str, str]] = set()

    def keep(self, message: Message, reason: str, received_at_us: int) -> bool:
        """Put a rejected batch into the quarantine, and return whether the quarantine has it now.

        Raises: Transient if the disk refuses.
        """
        return self._quarantine.keep(message, reason=reason, received_at_us=received_at_us)

    def log_refused(self, message: Message, rejection: Rejection) -> None:
        """Log that a batch is refused, and that its vehicle is told so."""
        self._log("batch_refused", message, rejection)

    def log_unanswered(self, message: Message, rejection: Rejection) -> None:
        """Log that a batch gets no answer.

        The vehicle sends the batch again and again, so each cause is logged only once.
        """
        cause = (message.topic, rejection.reason)
        if cause in self._logged:
            return
        if len(self._logged) >= LOGGED_CAUSES:
            self._logged.clear()
        self._logged.add(cause)
        self._log("batch_not_answered", message, rejection)

    def _log(self, event: str, message: Message, rejection: Rejection) -> None:
        if not self._lines.take(message.vehicle, time.monotonic()):
            self._not_logged += 1
            return
        seq = None if rejection.claimed is None else rejection.claimed.seq
        counted = {"not_logged": self._not_logged} if self._not_logged else {}
        _log.warning(event, topic=message.topic, seq=seq, reason=rejection.reason, **counted)
        self._not_logged = 0
