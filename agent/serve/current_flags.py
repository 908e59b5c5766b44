"""Keep OFREP and flagd's file at the flag definition in force, as it is at the present time.

A release changes the definition in three steps (`prepare`, `write`, `switch`), like every kind of document.  Between
releases, `run` looks every CHECK_S whether a feature has begun or ended, or a flag has become stale (`validity`).  Then
it writes the file and switches OFREP by itself.

Invariants:

- OFREP and the file have the same definition, but for the moment between writing and switching.
- A feature that has ended leaves OFREP even if the disk refuses the file.  The file is then removed, because it would
  contradict OFREP.
"""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from agent.errors import Transient
from agent.formats.down.evaluation import Evaluator, for_vehicle
from agent.formats.down.toggles import Toggles
from agent.formats.down.validity import Moment, State, Validity, resolved_at, states_at, validities_in
from agent.serve.flagd_file import FlagdFile
from agent.serve.toggles import ToggleService
from agent.system.tasks import whole

CHECK_S: Final = 1.0
"""Ends and starts are kept to the second; a check of 2,000 flags takes a millisecond."""

log = structlog.get_logger()


class Flags(msgspec.Struct, frozen=True):
    """A flag definition for this vehicle at one moment.  `toggles` is None if there are no flags.

    `toggles` and its terms in `validities` are those of every moment.  `states` has the state of each flag with terms.
    `content` goes to flagd's file, and `tag` names it.
    """

    toggles: Toggles | None
    validities: Mapping[str, Validity]
    states: Mapping[str, State]
    content: bytes | None
    evaluator: Evaluator | None
    tag: str


class CurrentFlags:
    """Owns flagd's file, and the definition of a ToggleService."""

    def __init__(self, service: ToggleService, file: FlagdFile, now: Callable[[], Moment]) -> None:
        """`now` returns the present moment; it may block."""
        self._service = service
        self._file = file
        self._now = now
        self._lock = threading.Lock()
        """Held while the file is written, because releases and time change it from different threads."""
        self._written: Flags | None = None
        """What the file has, or None if it was removed."""
        self._in_force: Flags | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of the flags that apps can ask for."""
        return self._service.keys

    def prepare(self, toggles: Toggles | None) -> Flags:
        """Return `toggles`, as published, for this vehicle at the present moment.  Blocking.

        Raises: Permanent if the evaluator refuses them.
        """
        if toggles is None:
            return Flags(None, {}, {}, None, None, "")
        # OFREP and the file share one form of the rules, so that both give an app the same answer.
        own = for_vehicle(toggles, self._service.attributes)
        validities = validities_in(own.resolved)
        # Without terms, nothing depends on the time, and the clock is not asked.
        return _at(own, validities, states_at(validities, self._now()) if validities else {})

    def write(self, flags: Flags) -> None:
        """Write flagd's file.  Blocking.  Raises: Transient if the disk refuses; the file then keeps its content."""
        with self._lock:
            self._file.write(flags.content)
            self._written = flags

    def withdraw(self) -> None:
        """Remove flagd's file.  Blocking; raises nothing."""
        with self._lock:
            self._file.remove()
            self._written = None

    def switch(self, flags: Flags) -> None:
        """Serve `flags` over OFREP, and tell the apps if they differ.  Call this on the event loop."""
        self._in_force = flags
        self._service.replace(flags.evaluator, flags.tag)

    async def run(self, check_s: float = CHECK_S) -> None:
        """Follow the time.  Runs until cancelled."""
        while True:
            await asyncio.sleep(check_s)
            await self.follow_time()

    async def follow_time(self) -> None:
        """Make the changes that the time has brought since the latest switch, if any."""
        before = self._in_force
        if before is None or not before.validities:
            return
        after = await whole(asyncio.to_thread(self._renew, before))
        # A release may have switched meanwhile.  Its flags are those of the present moment already.
        if after is not None and self._in_force is before:
            self.switch(after)
            log.info("flags_changed_with_time", flags=_names_of_changes(before.states, after.states))

    def _renew(self, before: Flags) -> Flags | None:
        """Write the file with `before` as it is now, and return it, or None if there is nothing to change."""
        toggles = before.toggles
        assert toggles is not None
        states = states_at(before.validities, self._now())
        written = self._written
        if states == before.states and (written is None or written.states == states):
            return None
        after = _at(toggles, before.validities, states)
        with self._lock:
            if self._written is not None:
                if self._written.toggles is not toggles:
                    # A release has written its file, and switches OFREP next.
                    return None
                try:
                    self._file.write(after.content)
                    self._written = after
                except Transient as error:
                    log.error("flags_not_written", reason=str(error), effect="the file is removed; OFREP goes on")
                    self._file.remove()
                    self._written = None
        return after


def _at(toggles: Toggles, validities: Mapping[str, Validity], states: Mapping[str, State]) -> Flags:
    """Return `toggles`, whose rules are those of this vehicle, as they are in `states`."""
    resolved = resolved_at(toggles.resolved, validities, states)
    content = resolved.encode()
    evaluator = Evaluator(msgspec.structs.replace(toggles, resolved=resolved))
    return Flags(toggles, validities, states, content, evaluator, hashlib.sha256(content).hexdigest()[:32])


def _names_of_changes(before: Mapping[str, State], after: Mapping[str, State]) -> list[str]:
    return [key for key in after if after[key] != before.get(key)][:20]
