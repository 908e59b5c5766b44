"""Plays the plot of the demonstration.  The plot is a table of what happens during the drive, and when.

Its times are fractions of the drive's length.  Every event therefore happens, however long the drive takes.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tqdm import tqdm

from agent.system.tasks import whole
from lab.demo.attacks import NAMES
from lab.demo.publisher import Publisher
from lab.road import Road
from lab.vehicle import delivered
from lab.world import World

OUTAGE: Final = (0.34, 0.68)
"""Begin and end of the time in a tunnel, as fractions of the drive."""

AFTER_S: Final = 120.0
"""Seconds that deliveries may take after the drive: the backlog of the outage, and the receiver's last commits."""

DOWN_S: Final = 1.0
"""Seconds that a program stays down after it was killed."""


@dataclass(slots=True)
class Record:
    """Holds what happened during the drive.

    `drive_us` is the pair (begin, end) of the drive, and `outages_us` holds such a pair for each outage.  `marks_us`
    holds the time of each kill and push, and what it was.  All are wall-clock times in microseconds since the Unix
    epoch.  `refused` says for each forged push whether the vehicle refused it.
    """

    outages_us: list[tuple[int, int]] = field(default_factory=list)
    marks_us: list[tuple[int, str]] = field(default_factory=list)
    drive_us: tuple[int, int] = (0, 0)
    broker_kills: int = 0
    receiver_kills: int = 0
    applied_version: int = 0
    refused: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(NAMES, False))

    @property
    def outage_s(self) -> float:
        """Return for how many seconds of the drive there was no connection."""
        began, ended = self.drive_us
        return sum(max(0, min(end, ended) - max(start, began)) for start, end in self.outages_us) / 1e6

    @property
    def drive_s(self) -> float:
        """Return the length of the drive in seconds."""
        return (self.drive_us[1] - self.drive_us[0]) / 1e6


class Drive:
    """Plays one drive that takes `length_s` seconds of wall time."""

    def __init__(self, world: World, road: Road, publisher: Publisher, length_s: float) -> None:
        self._world = world
        self._road = road
        self._publisher = publisher
        self._length_s = length_s
        self._tunnel_ends = OUTAGE[1]
        self.record = Record()

    @property
    def _plot(self) -> list[tuple[float, str, Callable[[], Awaitable[None]]]]:
        return [
            (0.12, "the receiver is killed (SIGKILL) and started again", self._kill_receiver),
            (0.24, "the fleet publishes toggles and another campaign", self._publish),
            (OUTAGE[0], "the vehicle enters a tunnel and loses the connection", self._enter_tunnel),
            (self._tunnel_ends, "the vehicle leaves the tunnel and sends the backlog", self._leave_tunnel),
            (0.76, "the broker is killed (SIGKILL) and started again", self._kill_broker),
            (0.84, "an attacker sends a tampered, an older and a foreign push", self._attack),
        ]

    async def play(self) -> dict[str, Any]:
        """Play the plot, wait until every batch is acknowledged, and return the agent's status.

        Raises: Permanent if the agent ends, or if the acknowledgements take longer than AFTER_S.
        """
        started_s = time.monotonic()
        began_us = time.time_ns() // 1000
        self.record.drive_us = (began_us, began_us + round(self._length_s * 1e6))
        acts = 0
        with tqdm(total=100, bar_format="  {bar:40} {percentage:3.0f} %  {desc}", leave=False, disable=None) as bar:
            # A slow act may last beyond the end of the drive.  The remaining acts are played nevertheless.
            while (share := (time.monotonic() - started_s) / self._length_s) < 1.0 or acts < len(self._plot):
                bar.n = min(100, round(share * 100))
                bar.refresh()
                # The plot kills broker and receiver, but never the agent.  If the agent ends, it has failed.
                self._world.agent.check_alive()
                if acts < len(self._plot) and share >= self._plot[acts][0]:
                    _, text, act = self._plot[acts]
                    acts += 1
                    bar.set_description_str(text)
                    _print(f"{min(share, 1.0):4.0%}  {text}")
                    if act == self._enter_tunnel:
                        # On a slow machine the tunnel begins late.  It then ends later, so that it lasts as long.
                        self._tunnel_ends = max(OUTAGE[1], share + OUTAGE[1] - OUTAGE[0])
                    await act()
                else:
                    await asyncio.sleep(0.1)
        _print("100%  the drive is over; waiting until every batch is acknowledged")
        return await self._world.until("every batch is acknowledged", delivered, AFTER_S)

    async def _publish(self) -> None:
        self._mark("push")
        await self._publisher.publish()
        self._note_version()

    async def _kill_receiver(self) -> None:
        self._mark("receiver killed")
        self._world.receiver.kill()
        self.record.receiver_kills += 1
        await asyncio.sleep(DOWN_S)
        self._world.receiver.start()

    async def _enter_tunnel(self) -> None:
        # The end of the outage is not known yet, so 0 stands in its place until `_leave_tunnel`.
        self.record.outages_us.append((time.time_ns() // 1000, 0))
        await self._road.cut()

    async def _leave_tunnel(self) -> None:
        start_us, _ = self.record.outages_us.pop()
        self.record.outages_us.append((start_us, time.time_ns() // 1000))
        await self._road.mend()

    async def _kill_broker(self) -> None:
        self._mark("broker killed")
        self._world.broker.kill()
        self.record.broker_kills += 1
        await asyncio.sleep(DOWN_S)
        # An interrupt waits until the broker has started.  Otherwise the broker could start later and never be stopped.
        await whole(asyncio.to_thread(self._world.broker.start))

    async def _attack(self) -> None:
        self._mark("forged pushes")
        self.record.refused = await self._publisher.attack()
        for name, refused in self.record.refused.items():
            _print(f"      the {name} push was {'refused' if refused else 'NOT refused, which is a failure'}")
        self._note_version()

    def _mark(self, what: str) -> None:
        self.record.marks_us.append((time.time_ns() // 1000, what))

    def _note_version(self) -> None:
        self.record.applied_version = self._publisher.applied_version
        _print(f"      push {self.record.applied_version} is applied")


def _print(text: str) -> None:
    tqdm.write(f"  {text}", file=sys.stderr)
