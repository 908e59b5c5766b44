"""Say what this vehicle has: in its request to the fleet, and to judge whether an answer has news."""

from agent.formats.down.bundle import TIMESTAMP, SyncRequest, Versions, build_bundle, build_request, have
from agent.pushes.release import Release
from agent.pushes.store import Record


def request_for_everything(vehicle: str) -> bytes:
    """Return the request of a vehicle that has nothing."""
    return build_request(SyncRequest(vehicle, Versions()))


def request_for_news(vehicle: str, record: Record, release: Release | None) -> bytes:
    """Return the request of a vehicle with the metadata of `record` and the `release` in force."""
    # Large documents never come in a bundle, so the request does not name them.
    contents = () if release is None else release.without_large().documents.values()
    return build_request(
        SyncRequest(
            vehicle=vehicle,
            held=record.floor,
            applied=0 if release is None else release.version,
            refused=record.slots.refused,
            have=tuple(have(content) for content in contents),
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
