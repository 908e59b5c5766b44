"""Applies the link policy to the real link, and keeps the count of bytes on metered links in a file.

Invariant: bytes on metered links are counted before they are sent, and the count survives restarts.  `watch` saves the
count after SAVE_BYTES or SAVE_S, so a crash forgets few bytes.  If the file cannot be read or written, counting goes on
in memory, and the log says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock
from agent.link.metered import is_metered
from agent.system.durable import write_file
from agent.telemetry.uplink.link_policy import DayUse, LinkPolicy, seconds_between

LOOK_S: Final = 60.0  # time between two looks; a link rarely becomes metered, and each look starts a process
SAVE_S: Final = 300.0
SAVE_BYTES: Final = 1_000_000
Metered = Literal["auto"] | bool
log = structlog.get_logger()


class _Saved(msgspec.Struct, frozen=True):
    """Holds what the file stores as JSON: how many bytes metered links carried today, and when they were counted."""

    today: DayUse
    clock: Clock


class LinkGate:
    """Says which lanes may use the link, and counts the bytes on metered links.

    Call `look` at each new connection, run `watch` while the connection lasts, and call `sent` before each batch.
    """

    def __init__(
        self,
        policy: LinkPolicy,
        file: Path,
        clock: Callable[[], Clock],
        *,
        metered: Metered = "auto",
        ask: Callable[[str], Awaitable[bool | None]] = is_metered,
        look_s: float = LOOK_S,
    ) -> None:
        """Read the count from `file`.

        `metered` is the setting: True, False or "auto".  With "auto", `ask` finds out whether each link is metered.
        """
        self._policy = policy
        self._file = file
        self._clock = clock
        self._setting = metered
        self._ask = ask
        self._look_s = look_s
        self._today, self._read_at = self._load()
        self._saved_bytes, self._saved_at = self._today.used_bytes, self._read_at
        self._problem = ""
        self.metered: bool | None = None if metered == "auto" else metered
        """True if the link is metered, and None if that is unknown."""

    def set_rules(self, policy: LinkPolicy, metered: Metered) -> None:
        """Use another policy and another setting `metered`.  The day's count goes on.

        A change to "auto" takes effect at the next look, at most a minute later.
        """
        self._policy = policy
        self._setting = metered
        if metered != "auto":
            self.metered = metered

    async def look(self, address: str) -> None:
        """Find out whether the link with this local address is metered."""
        metered = await self._ask(address) if self._setting == "auto" else self._setting
        if metered != self.metered:
            log.info("link_metered", metered=metered)
        self.metered = metered

    async def watch(self, address: str, changed: Callable[[], None]) -> None:
        """Look at the link at intervals, save the count, and call `changed` after each look.  Runs until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._look_s)
                await self.look(address)
                if self._unsaved():
                    await asyncio.to_thread(self.save)
                changed()
        finally:
            if self._today.used_bytes != self._saved_bytes:
                await asyncio.to_thread(self.save)

    def lanes(self) -> tuple[Lane, ...]:
        """Return the lanes whose batches may be sent over the link now."""
        return self._policy.lanes(self.metered, self.today())

    def sent(self, size_bytes: int) -> None:
        """Count bytes that are about to be sent, if the link is metered."""
        if self.metered:
            self._today = self.today().sent(size_bytes)

    def today(self) -> DayUse:
        """Return how many bytes metered links have carried on the current day."""
        now = self._clock()
        self._today = self._today.after(seconds_between(self._read_at, now))
        self._read_at = now
        return self._today

    def save(self) -> None:
        """Write the count to the file, and log a failure.  Blocks on the disk."""
        today, clock = self._today, self._read_at
        try:
            write_file(self._file, msgspec.json.encode(_Saved(today, clock)))
        except OSError as error:
            if self._problem != str(error):
                log.warning("metered_use_not_saved", file=str(self._file), reason=str(error))
            self._problem = str(error)
            return
        self._problem = ""
        self._saved_bytes, self._saved_at = today.used_bytes, clock

    def status(self) -> dict[str, Any]:
        """Return the state of the link for `/status`."""
        return {
            "metered": self.metered,
            "lanes": [lane.label for lane in self.lanes()],
            "metered_bytes_today": self._today.used_bytes,
            "metered_daily_bytes": self._policy.daily_bytes,
        }

    def _unsaved(self) -> bool:
        more = abs(self._today.used_bytes - self._saved_bytes)
        return more >= SAVE_BYTES or (more > 0 and seconds_between(self._saved_at, self._read_at) >= SAVE_S)

    def _load(self) -> tuple[DayUse, Clock]:
        try:
            saved = msgspec.json.decode(self._file.read_bytes(), type=_Saved)
        except FileNotFoundError:
            return DayUse(), self._clock()
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("metered_use_unreadable", file=str(self._file), reason=str(error))
            return DayUse(), self._clock()
        return saved.today, saved.clock
