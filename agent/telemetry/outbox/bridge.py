"""Passes windows from the queue of the outbox to the stopgap of the spool while the disk refuses."""

from collections.abc import Iterator
from dataclasses import replace

from agent.telemetry.outbox.packer import Parcel
from agent.telemetry.outbox.parcels import ParcelQueue
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.stopgap import Stopgap


def pass_windows(parcels: ParcelQueue, stopgap: Stopgap, sealer: Sealer) -> Iterator[Parcel]:
    """Seal the waiting windows under ids of the stopgap, pass them on in order, and yield each parcel that was taken.

    Windows that the stopgap cannot take stay in the queue.  Events and catalogues stay as well: they report to the
    ledger, or are confirmed there.  No append may be in doubt.  The caller must exhaust the iterator.
    """
    left = parcels.take_windows()
    while left:
        parcel = left[0]
        ids = stopgap.next_ids(len(parcel.bodies))
        # The place in the window is only needed on the disk, where a window and its checkpoints compete.
        batches = [
            sealer.seal_body(id_, replace(body, fragment=None)) for id_, body in zip(ids, parcel.bodies, strict=True)
        ]
        if not stopgap.take(batches, parcel.resume_points, [parcel.window] if parcel.window else []):
            break
        del left[0]
        yield parcel
    parcels.put_back(left)
