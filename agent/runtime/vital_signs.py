"""Read the vital signs of the running agent, by which a release on trial is judged (`agent.pushes.health`)."""

import asyncio
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import AgentError
from agent.formats.up.losses import Reason
from agent.link.authorities import Authorities
from agent.link.keeper import LinkKeeper
from agent.link.session import State as LinkState
from agent.pushes.health import Readings
from agent.runtime.apply import Applier
from agent.sources.feeder import Feeder, State
from agent.telemetry.collect.collector import Collector
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.spool.spool import Spool
from agent.telemetry.uplink.uplink import Uplink

_STATM: Final = Path("/proc/self/statm")
_PATIENCE_S: Final = 2.0
"""A reading waits at most this long for the spool, because an fsync on worn flash can take longer."""


class VitalSigns(msgspec.Struct, kw_only=True):
    """Reads counters and sizes of the components of one agent.

    `quota_bytes` returns the quota of the spool in force.
    """

    collector: Collector
    feeders: Sequence[Feeder]
    outbox: Outbox
    spool: Spool
    uplink: Uplink
    link: LinkKeeper
    authorities: Authorities
    applier: Applier
    quota_bytes: Callable[[], int]
    _lost: Mapping[str, int] = {}
    _waiting_bytes: int = 0
    _waiting: int = 0
    _reading: asyncio.Future[None] | None = None

    async def read(self) -> Readings:
        """Return the present readings.  If the disk is busy, the figures of the spool are those of an earlier call."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read_spool))
        await asyncio.wait({self._reading}, timeout=_PATIENCE_S)
        counts = self.uplink.counts
        return Readings(
            at_s=time.monotonic(),
            decoding=self.collector.decoding.by_bus(),
            feeding=any(feeder.state in (State.WAITING, State.RUNNING) for feeder in self.feeders),
            failed_sources=tuple(feeder.name for feeder in self.feeders if feeder.state is State.FAILED),
            stuck_s=max(self.collector.work.seconds, self.applier.work.seconds),
            memory_bytes=_resident_bytes(),
            cpu_s=time.process_time(),
            written_bytes=self.outbox.written_bytes,
            sent_bytes=counts.published_bytes,
            waiting_bytes=self._waiting_bytes,
            waiting=self._waiting,
            acknowledged=counts.acknowledged,
            lost=self._lost,
            online=self.link.state is LinkState.ONLINE,
            connections=self.link.connections,
            earlier_authorities=self.authorities.following is not None,
            quota_bytes=self.quota_bytes(),
        )

    def _read_spool(self) -> None:
        try:
            counts = self.spool.counts()
        except AgentError:
            return
        self._lost = {
            str(reason): total.frames if reason is Reason.BUS_OVERFLOW else total.batches
            for reason, total in counts.lost.items()
        }
        self._waiting = counts.batches
        self._waiting_bytes = counts.size_bytes + self.outbox.pending_bytes


def _resident_bytes() -> int:
    # The second field of statm is the resident size in pages (proc(5)).
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()
