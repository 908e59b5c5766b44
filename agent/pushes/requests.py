"""What the vehicle asks: the fleet for documents, and the verifier about a bundle.  Pure."""

from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import TIMESTAMP, SyncRequest, Versions, build_bundle, build_request, have
from agent.pushes.record import Record
from agent.pushes.release import Question, Release


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
            have=tuple(have(content) for content in _contents(release)),
            software=vehicle.software,
        )
    )


def nothing_new(record: Record) -> bytes | None:
    """Return the bundle that the fleet sends if nothing is new, or None if the vehicle holds no metadata.

    The bundle contains only the timestamp file that the vehicle already holds.
    """
    held = record.metadata.get("timestamp.json")
    return None if held is None else build_bundle({TIMESTAMP: held})


def to_verifier(
    bundle: bytes, vehicle: Attributes, record: Record, release: Release | None, *, trusted_root: bytes, now_s: int
) -> Question:
    """Return the question whether this vehicle may trust and use `bundle`, at the Unix time `now_s`."""
    return Question(
        bundle=bundle,
        trusted_root=trusted_root,
        metadata=record.metadata,
        contents=_contents(release),
        floor=record.floor,
        # A release whose file was damaged is unpacked again although its version was applied before.
        settled=(record.slots.refused,) if release is None else record.slots.settled,
        now_s=now_s,
        vehicle=vehicle,
    )


def _contents(release: Release | None) -> tuple[bytes, ...]:
    return () if release is None else tuple(release.documents.values())
