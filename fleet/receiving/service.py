"""The receiver as a service: open what it keeps on disk, run it until a signal ends it, close."""

import asyncio
import random
import signal
import time

import structlog

from agent.errors import Transient
from fleet.lake.location import Location
from fleet.lake.tables import Lake
from fleet.receiving.inbox import Inbox
from fleet.receiving.quarantine import Quarantine
from fleet.receiving.receiver import RETRY, Receiver, endpoint_of
from fleet.receiving.share import Share
from fleet.receiving.store import Store, Totals
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_ed25519, read_recipient
from fleet.state.registry import Registry

_log = structlog.get_logger()


def receive(fleet: FleetFolder, host: str, port: int, share: Share, lake: Location | None = None) -> Totals:
    """Run a receiver until SIGTERM or SIGINT, and return what it did.  Without `lake`, it fills the fleet folder's.

    Raises: Permanent where it cannot work; Transient where it was told to stop while the lake refused.  What was taken
    in then waits in the inbox for the next start.
    """
    store = _open_when_the_disk_allows(fleet, share, lake)
    receiver = Receiver(fleet, endpoint_of(fleet, host, port, share), share, store)
    try:
        asyncio.run(_run_until_signalled(receiver))
    finally:
        # Only now: asyncio.run waits for the threads that still store.
        store.close()
    return store.totals


def open_store(fleet: FleetFolder, share: Share, location: Location | None = None) -> Store:
    """Open everything that the receiver of `share` keeps on disk.

    Raises: Permanent where something is missing, or another receiver serves the share; Transient where the disk
    refuses.
    """
    fleet.require()
    private = read_recipient(fleet)
    acks_key = read_ed25519(fleet.key("acks"))
    lake = Lake(location or Location(str(fleet.lake.resolve())))
    return Store(
        inbox=Inbox.open(fleet.inbox, share=str(share), known=lake.known),
        lake=lake,
        quarantine=Quarantine(fleet.quarantine),
        registry=Registry(fleet.vehicles),
        private=private,
        acks_key=acks_key,
    )


def _open_when_the_disk_allows(fleet: FleetFolder, share: Share, lake: Location | None) -> Store:
    failures = 0
    while True:
        try:
            return open_store(fleet, share, lake)
        except Transient as error:
            failures += 1
            # Once for each outage, not once for each attempt.
            if failures == 1:
                _log.error("store_unavailable", reason=str(error))
            # Nothing is held here, so a signal may end the process at any moment.
            time.sleep(RETRY.wait_s(failures, random.random()))  # noqa: S311 (jitter)


async def _run_until_signalled(receiver: Receiver) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await receiver.run(stop)
