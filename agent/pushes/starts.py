"""Record the starts of the release in force, so that the next start knows how this one has ended.

`trial` decides what the ends of starts mean.
"""

import msgspec
import structlog

from agent.errors import Transient
from agent.pushes import trial
from agent.pushes.outcomes import with_receipt
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.release import Reason, Release
from agent.pushes.store import Store

log = structlog.get_logger()


class Starts:
    """Opens and closes the start of this process in `store`; `boot` is the id of the present boot.

    `opened` tells whether the start that is open in the store is this one.  All methods block.
    """

    def __init__(self, store: Store, boot: str) -> None:
        self._store = store
        self._boot = boot
        self.opened = False

    def begin(self) -> tuple[Release | None, PushOutcome | None]:
        """Count how the previous start ended, open this one, and return the release to apply.

        If this call takes a release back, it returns the outcome as well.

        Raises: Transient if the disk is full and the release is on trial or must be taken back.
        """
        before = self._store.record.slots
        after = trial.restart(before, self._boot)
        release = self._store.in_force(after)
        # A release whose file is damaged cannot be applied, so its trial ends.
        if release is None and after.trial is not None:
            log.error("push_damaged", version=after.trial.version)
            after = trial.revert(after)
            release = self._store.in_force(after)
        outcome = self._outcome(before, after)
        try:
            self._commit(after, outcome)
        except Transient as error:
            # A full disk must not stop an agent whose release has passed its trial.  A crash of this start will then
            # not count.
            if before.trial is not None or before.in_force != after.in_force:
                raise
            log.warning("start_not_recorded", reason=str(error))
        else:
            self.opened = after.open_in is not None
        return release, outcome

    def close(self) -> None:
        """Close this start, because the agent stops on request.  Raises: Transient if the disk is full."""
        if self.opened:
            self._commit(trial.close(self._store.record.slots))
        self.opened = False

    def count_as_good(self) -> None:
        """Close this start, because the agent has run for long enough.  Raises: Transient if the disk is full."""
        # The write is tried only once.  If the disk is full, this start stays open, and a later crash counts.
        opened, self.opened = self.opened, False
        if opened:
            self._commit(trial.steady(self._store.record.slots))

    def endure(self) -> None:
        """Forget the power cuts of a trial that goes on.  Raises: Transient if the disk is full."""
        self._commit(trial.endured(self._store.record.slots))

    def _commit(self, slots: trial.Slots, outcome: PushOutcome | None = None) -> None:
        if slots != self._store.record.slots:
            self._store.commit(with_receipt(msgspec.structs.replace(self._store.record, slots=slots), outcome))

    def _outcome(self, before: trial.Slots, after: trial.Slots) -> PushOutcome | None:
        if before.in_force is None or before.in_force == after.in_force:
            return None
        counted = trial.ended(before, self._boot)
        if before.trial is None:
            detail = f"the agent crashed {counted.crashes} times soon after its starts; publish a corrected release"
        else:
            detail = (
                f"the release did not pass its trial: the agent crashed {counted.crashes} times, and the head unit "
                f"lost power {counted.power_cuts} times; publish a corrected release"
            )
        return PushOutcome(Result.REVERTED, before.in_force.version, Reason.UNHEALTHY, detail)
