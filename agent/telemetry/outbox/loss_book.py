"""Counts losses until the spool has recorded them.

Invariant: the loss of a window is recorded in one transaction with the resume points that pass its frames, and with the
release of its checkpoints.  If the loss were recorded earlier, a crash could let the source deliver the frames again,
and their samples would be stored although they count as lost.  If it were recorded later, a crash could leave samples
that are missing without a record.

Any thread may call `add`.  Only one thread at a time may call the other methods.
"""

import contextlib
import threading
from typing import Final, NamedTuple

from agent.errors import Transient
from agent.telemetry.losses import Loss, LossCounter
from agent.telemetry.outbox.names import new_token
from agent.telemetry.outbox.parcels import Shed
from agent.telemetry.spool.spool import Spool


class _Taken(NamedTuple):
    """Losses, resume points past the lost windows, and by window the number of checkpoints that will be sent."""

    losses: tuple[Loss, ...]
    resume_points: dict[str, int]
    windows: dict[str, int]


_NOTHING: Final = _Taken((), {}, {})


class LossBook:
    """Holds losses that the ledger of the spool does not have yet."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._turn = threading.Lock()  # never held while the disk works
        self._losses = LossCounter()
        self._resume_points: dict[str, int] = {}
        self._windows: dict[str, int] = {}
        self._doubt: tuple[str, _Taken] | None = None  # a record whose outcome is unknown, with its token

    def add(self, loss: Loss) -> None:
        """Count a loss of frames or events."""
        with self._turn:
            self._losses.add(loss)

    def give_up(self, shed: Shed) -> None:
        """Count the loss of a parcel that memory could not hold.  The stored checkpoints of its window will be sent."""
        with self._turn:
            self._losses.add(shed.loss)
            for key, point in shed.resume_points.items():
                # A parcel whose append was in doubt is given up after younger ones.
                self._resume_points[key] = max(point, self._resume_points.get(key, point))
            if shed.checkpoints is not None and shed.window is not None:
                self._windows[shed.window] = shed.checkpoints

    def record(self) -> None:
        """Record everything that is counted, and what the stopgap knows, in the spool.

        If this raises Transient, everything stays counted, and the call may be repeated.  No append of a parcel may be
        in doubt.
        """
        self._settle_doubt()
        if self._spool.stopgap.note() is not None:
            self.pass_on()  # the resume points of the stopgap may lie behind the lost windows
        self._spool.catch_up.take_over()
        taken = self._take()
        if taken == _NOTHING:
            return
        token = new_token()
        try:
            self._spool.writer.record_losses(
                taken.losses, token=token, resume_points=taken.resume_points, windows=taken.windows
            )
        except Transient:
            if self._spool.writer.tried(token):
                self._doubt = token, taken
            else:
                self._put_back(taken)
            raise

    def pass_on(self) -> bool:
        """Pass the losses to the stopgap, before it gets later windows; return whether it may get them.

        The checkpoints of the lost windows stay here until the disk works again.
        """
        with contextlib.suppress(Transient):
            self._settle_doubt()
        if self._doubt is not None:
            return False
        taken = self._take()
        if self._spool.stopgap.add_losses(taken.losses, taken.resume_points):
            self._put_back(_Taken((), {}, taken.windows))
            return True
        self._put_back(taken)
        return False

    def _settle_doubt(self) -> None:
        """Find out whether the record in doubt was made.  Raises Transient while the disk refuses."""
        if self._doubt is not None:
            token, taken = self._doubt
            if not self._spool.writer.stored(token):
                self._put_back(taken)
            self._doubt = None

    def _take(self) -> _Taken:
        with self._turn:
            taken = _Taken(self._losses.take(), self._resume_points, self._windows)
            self._resume_points, self._windows = {}, {}
            return taken

    def _put_back(self, taken: _Taken) -> None:
        with self._turn:
            self._losses.put_back(taken.losses)
            self._resume_points = taken.resume_points | self._resume_points
            self._windows = taken.windows | self._windows
