"""Makes the requests of the vehicle to the fleet, and finds out whether an answer has news.  Pure."""

from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import TIMESTAMP, SyncRequest, Versions, build_bundle, build_request, have
from agent.pushes.record import Record
from agent.pushes.release import Release


def for_all_files(vehicle: Attributes) -> bytes:
    """Return the request of a vehicle that has nothing."""
    return build_request(SyncRequest(vehicle.vehicle, Versions(), software=vehicle.software))


def for_news(vehicle: Attributes, record: Record, release: Release | None) -> bytes:
    """Return the request for the files that are newer than `record` and that the `release` in force lacks."""
    if not record.metadata:
        return for_all_files(vehicle)
    return build_request(
        SyncRequest(
            vehicle=vehicle.vehicle,
            held=record.floor,
            applied=0 if release is None else release.version,
            refused=record.slots.refused,
            # Large documents never come in a bundle, so the request does not name them.
            have=() if release is None else tuple(map(have, release.without_large().documents.values())),
            software=vehicle.software,
        )
    )


def nothing_new(record: Record) -> bytes | None:
    """Return the bundle that the fleet sends if nothing is new, or None if the vehicle holds no metadata.

    The bundle contains only the timestamp file that the vehicle already holds.
    """
    held = record.metadata.get("timestamp.json")
    return None if held is None else build_bundle({TIMESTAMP: held})


def settled(record: Record, release: Release | None) -> tuple[int, ...]:
    """Return the versions of targets whose documents need not be unpacked.  `release` is the one in force."""
    # A release whose file was damaged is unpacked again although its version was applied before.
    return (record.slots.refused,) if release is None else record.slots.settled
