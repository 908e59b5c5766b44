"""Runs the receiver as a service: opens its files, receives until a signal, and closes the files."""

import asyncio
import random
import signal
import time

import structlog

from agent.errors import Transient
from fleet.lake.location import Location
from fleet.receiving.inbox import Inbox
from fleet.receiving.quarantine import Quarantine
from fleet.receiving.receiver import RETRY, Receiver, endpoint_of
from fleet.receiving.reconcile import open_lake, reconcile
from fleet.receiving.roster import Roster
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.receiving.totals import Totals
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_ed25519
from fleet.state.registry import Registry
from fleet.state.sealing_keys import SealingKeys

_log = structlog.get_logger()


def receive(
    fleet: FleetFolder,
    host: str,
    port: int,
    share: Share,
    lake: Location | None = None,
    *,
    accept_lake: bool = False,
) -> Totals:
    """Run a receiver until SIGTERM or SIGINT, and return its counts.

    Without `lake`, the receiver uses the lake in the fleet folder.  With `accept_lake`, it uses the lake even if the
    inbox knows another one (fleet.receiving.reconcile).

    Raises: Permanent if the fleet's files are missing or damaged, or if another receiver serves the share; Transient if
    a signal comes while the lake or the disk refuses.  Batches in the inbox then reach the lake after the next start.
    """
    store = _open_when_the_disk_allows(fleet, share, lake, accept_lake)
    roster = Roster(Registry(fleet.vehicles), lake or own_lake(fleet), share, store.reports)
    receiver = Receiver(fleet, endpoint_of(fleet, host, port, share), share, store, roster)
    try:
        asyncio.run(_run_until_signalled(receiver))
    finally:
        # The store may be closed now, because asyncio.run has waited for the threads that use it.
        store.close()
    return store.totals


def own_lake(fleet: FleetFolder) -> Location:
    """Return the location of the lake in the fleet folder."""
    return Location(str(fleet.lake.resolve()))


def open_store(
    fleet: FleetFolder, share: Share, location: Location | None = None, *, accept_lake: bool = False
) -> Store:
    """Open the keys, the inbox, the lake and the other files that the receiver of `share` uses.

    The receiver claims its partitions in the lake, and the inbox is compared with the lake (fleet.receiving.reconcile).

    Raises: Permanent if a file is missing or damaged, if another receiver serves the share, or if the lake is not the
    one of the inbox and is not accepted; Transient if the disk or the lake refuses.
    """
    fleet.require()
    sealing_keys = SealingKeys(fleet)
    acks_key = read_ed25519(fleet.key("acks"))
    inbox = Inbox.open(fleet.inbox, share=str(share))
    try:
        lake = open_lake(location or own_lake(fleet), inbox, accept=accept_lake)
        missing = reconcile(inbox, lake)
        store = Store(
            inbox=inbox,
            lake=lake,
            quarantine=Quarantine(fleet.quarantine),
            registry=Registry(fleet.vehicles),
            find_key=sealing_keys.find,
            acks_key=acks_key,
        )
    except BaseException:
        inbox.close()
        raise
    store.totals.missing = missing
    return store


def _open_when_the_disk_allows(fleet: FleetFolder, share: Share, lake: Location | None, accept_lake: bool) -> Store:
    failures = 0
    while True:
        try:
            return open_store(fleet, share, lake, accept_lake=accept_lake)
        except Transient as error:
            failures += 1
            # The error is logged once for each outage, not for each attempt.
            if failures == 1:
                _log.error("store_unavailable", reason=str(error))
            # No file is open during this pause, so a signal may end the process at any moment.
            time.sleep(RETRY.wait_s(failures, random.random()))  # noqa: S311 (jitter)


async def _run_until_signalled(receiver: Receiver) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await receiver.run(stop)
