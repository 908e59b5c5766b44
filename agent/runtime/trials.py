"""Watch the trial of a release: compare the agent with its state before, and confirm or take back the release.

    no trial    read the vital signs every LOOK_S, and keep those of the last HISTORY_S as the state before a trial
    trial       read them every POLL_S; a bound that is broken in HOLD readings in a row takes the release back

A thread that hangs cannot be ended.  A release that makes the agent hang is taken back on the disk, and then the
process ends itself.  The service manager starts it again, without the release.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from agent.errors import AgentError, Transient
from agent.formats.down.documents import AUTHORITIES, CAMPAIGN, DATABASE, KINDS, MAPPING, RECIPIENT, SETTINGS, kind_of
from agent.formats.up.columns import Event
from agent.pushes.freshness import must_warn
from agent.pushes.health import (
    ANSWER,
    FRAMES,
    LINK,
    PROGRESS,
    TIME,
    TURNS,
    Breach,
    Health,
    examine,
)
from agent.pushes.pushes import Pushes
from agent.pushes.readings import Baseline, Readings, baseline
from agent.pushes.receipts import Result
from agent.runtime.apply import Applier
from agent.system.tasks import whole

POLL_S: Final = 1.0
"""The interval at which a trial is judged, in seconds.  A trial lasts half a minute or longer."""
LOOK_S: Final = 10.0
"""The interval between two readings without a trial.  A reading takes about a millisecond."""
HISTORY_S: Final = 120.0
"""The state before a trial is measured over this time, in which even rare windows close."""
HOLD: Final = 3
"""The number of readings in a row in which a bound must be broken.  Memory has short peaks, for example."""
WARN_AGAIN_S: Final = 86_400.0
"""The interval between two warnings that the fleet's signature expires."""

log = structlog.get_logger()


class Trials:
    """Watches the trials of the releases that `applier` applies.

    `read` returns the present readings.  `reconnect` makes the agent leave its connection, so that the next one tries
    what a release changes.  `end_process` ends the process at once.
    """

    def __init__(
        self,
        pushes: Pushes,
        applier: Applier,
        read: Callable[[], Awaitable[Readings]],
        reconnect: Callable[[], None],
        *,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._pushes = pushes
        self._applier = applier
        self._read = read
        self._reconnect = reconnect
        self._end_process = end_process
        self._history: deque[Readings] = deque()
        self._earlier: Baseline | None = None
        self._first: Readings | None = None
        self._trial: tuple[int, frozenset[str]] | None = None
        self._broken: list[str] = []
        self._turns = 0
        self._warn_at_s = 0.0
        self.waits_for: tuple[str, ...] = ()
        """The evidence that the present trial lacks (`agent.pushes.health`)."""
        applier.baseline = self.baseline

    async def baseline(self) -> Baseline:
        """Return the present state of the agent, before a trial."""
        now = await self._read()
        self._earlier = baseline(self._history[0] if self._history else now, now, self._earlier)
        return self._earlier

    async def watch(self, trial_s: float, poll_s: float = POLL_S, look_s: float = LOOK_S) -> None:
        """Judge the release on trial again and again, until cancelled."""
        looked_at_s = -look_s
        while True:
            await asyncio.sleep(min(poll_s, trial_s))
            self._warn_of_expiry()
            if self._pushes.in_trial:
                health = await self._judge(trial_s)
            else:
                health, self._trial, self.waits_for = Health(), None, ()
                if time.monotonic() - looked_at_s >= look_s:
                    looked_at_s = time.monotonic()
                    await self._look()
            try:
                outcome = await self._pushes.poll_trial(trial_s=trial_s, health=health)
            except Transient as error:
                # The disk is full; the next poll judges again.
                log.warning("trial_postponed", reason=str(error))
                continue
            if outcome is None:
                continue
            if health.breach is not None and health.breach.bound == PROGRESS:
                log.error("agent_hangs", release=outcome.version, reason=outcome.detail)
                self._end_process(1)
            await whole(self._applier.settle(outcome))
            if outcome.result is Result.REVERTED:
                self._history.clear()

    async def _look(self) -> None:
        now = await self._read()
        self._history.append(now)
        while now.at_s - self._history[0].at_s > HISTORY_S:
            self._history.popleft()
        self._earlier = baseline(self._history[0], now, self._earlier)

    async def _judge(self, trial_s: float) -> Health:
        """Return the health of the agent with the release on trial."""
        if self._applier.problem is not None:
            detail = f"the agent cannot apply the release: {self._applier.problem}; publish a corrected one"
            return Health(Breach("applied", detail))
        now = await self._read()
        if self._trial is None or self._trial[0] != self._applier.version:
            if self._applier.work.seconds:
                return self._confirmed_breach(examine(self._pushes.record.before or Baseline(), now, now, frozenset()))
            await self._begin(now)
        assert self._first is not None and self._trial is not None
        before = self._pushes.record.before or Baseline(memory_bytes=self._first.memory_bytes)
        health = examine(before, self._first, now, self._trial[1])
        if LINK in self._trial[1] and now.earlier_authorities and now.online:
            self._take_another_turn(now)
        if now.at_s - self._first.at_s < trial_s:
            # Large releases take seconds to take effect, which do not count.
            health = msgspec.structs.replace(health, missing=(*health.missing, TIME))
        health = self._confirmed_breach(health)
        self.waits_for = tuple(each for each in health.missing if each != TIME)
        return health

    async def _begin(self, now: Readings) -> None:
        """Begin to measure: the release has taken effect."""
        try:
            changed = await self._pushes.changed_documents()
        except AgentError:
            # A stored document cannot be read, so the release counts as one that changes everything.
            changed = {kind.pattern for kind in KINDS}
        self._trial, self._first = (self._applier.version, _needs(changed)), now
        self._broken, self._turns = [], 0
        self._history.clear()
        if ANSWER in self._trial[1]:
            # A parked car has nothing else to send, so this event is what the fleet acknowledges under the new key.
            event = Event(time.time_ns() // 1_000, "trial_begun", {"version": self._applier.version})
            await self._applier.report(event)
        if AUTHORITIES.pattern in changed:
            self._reconnect()

    def _take_another_turn(self, now: Readings) -> None:
        """Connect once more: the pushed authorities failed, perhaps for another reason, and have the next turn."""
        assert self._first is not None
        turns = now.connections - self._first.connections
        if self._turns < turns < TURNS:
            self._turns = turns
            self._reconnect()

    def _confirmed_breach(self, health: Health) -> Health:
        """Return `health`, without its breach until HOLD readings in a row have shown the breach.

        The trial then waits until the breach is confirmed or gone.
        """
        bound = None if health.breach is None else health.breach.bound
        self._broken = [*self._broken, bound][-HOLD:] if bound is not None else []
        if self._broken == [bound] * HOLD or bound == PROGRESS:
            return health
        missing = health.missing if bound is None else (*health.missing, TIME)
        return msgspec.structs.replace(health, breach=None, missing=missing)

    def _warn_of_expiry(self) -> None:
        expires = self._pushes.record.expires
        if time.monotonic() < self._warn_at_s or not must_warn(expires, datetime.now(UTC)):
            return
        self._warn_at_s = time.monotonic() + WARN_AGAIN_S
        log.warning(
            "pushes_expire",
            expires=f"{expires:%Y-%m-%d}",
            remedy="keep `fleet receive` running, or run `fleet publish`; after this day, the vehicle accepts no push",
        )


def _needs(changed: Iterable[str]) -> frozenset[str]:
    """Return the evidence that is needed for a release with these changed documents."""
    kinds = [kind for path in changed if (kind := kind_of(path, KINDS)) is not None]
    needs = set()
    if any(kind in kinds for kind in (CAMPAIGN, DATABASE, MAPPING, SETTINGS)):
        needs.add(FRAMES)
    if any(kind in kinds for kind in (AUTHORITIES, SETTINGS)):
        needs.add(LINK)
    if RECIPIENT in kinds:
        needs.add(ANSWER)
    return frozenset(needs)
