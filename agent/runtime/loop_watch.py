"""Take back a release on trial that makes the event loop hang, and end the process.

The watchdog of the service manager would end the process as well.  It needs three times as long, because one hang may
have another cause, and a release is only taken back after three crashes (`agent.pushes.trial`).  This thread sees which
release the loop hangs with.  If native code hangs and keeps the interpreter's lock, no thread runs, and the watchdog is
what remains.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from agent.errors import Transient
from agent.pushes.pushes import Pushes

LOOK_S: Final = 1.0
STALL_LOOKS: Final = 10
"""So many looks in a row must find that the loop has not turned.

A turn takes milliseconds.  Looks are counted, not seconds, because a process that was frozen is not to blame.
"""
log = structlog.get_logger()


class LoopWatch:
    """Watches the event loop from a thread.  `end_process` ends the process at once."""

    def __init__(
        self, pushes: Pushes, *, look_s: float = LOOK_S, end_process: Callable[[int], object] = os._exit
    ) -> None:
        self._pushes = pushes
        self._look_s = look_s
        self._end_process = end_process
        self._looks = 0  # since the last turn of the loop
        self._stop = threading.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the loop of the caller during a `with` block."""
        turning = asyncio.create_task(self._turn(), name="loop watch")
        threading.Thread(target=self._watch, name="loop watch", daemon=True).start()
        try:
            yield
        finally:
            self._stop.set()
            turning.cancel()

    async def _turn(self) -> None:
        while True:
            self._looks = 0
            await asyncio.sleep(self._look_s)

    def _watch(self) -> None:
        while not self._stop.wait(self._look_s):
            self._looks += 1
            if self._looks > STALL_LOOKS and self._pushes.in_trial:
                self._take_back()

    def _take_back(self) -> None:
        detail = f"the agent hung for {self._looks * self._look_s:.0f} s; publish a corrected release"
        try:
            outcome = self._pushes.take_back_hanging(detail)
        except Transient as error:
            log.warning("trial_postponed", reason=str(error))
            return
        if outcome is not None:
            log.error("agent_hangs", release=outcome.version, reason=outcome.detail)
            self._end_process(1)
