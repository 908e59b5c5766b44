"""Judging what arrives: an envelope becomes an opened batch, a refusal, or waits for its catalogue.

The invariant: nothing reaches the lake that a registered vehicle did not sign with its own key, on its own
topic.  The checks go from cheap to costly, so a flood of rubbish costs little.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Untrusted
from agent.formats.catalogue import Catalogue, UnknownCatalogue
from agent.formats.codec import decode_batch
from agent.formats.seal import Header, RecipientPrivateKey, read_header, unseal
from agent.formats.topics import parse_up, partition_of
from fleet.registry import VehicleRecord
from fleet.rows import OpenedBatch, check_times

FindVehicle = Callable[[str], tuple[VehicleRecord, ec.EllipticCurvePublicKey] | None]
FindCatalogue = Callable[[str, bytes], Catalogue | None]
"""By vehicle and digest."""

MAX_SEQ = 2**63 - 1
"""What SQLite and Delta hold."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an envelope was refused.

    `header` is what it claims to be, where that can be read and it came on the claimed vehicle's own topic:
    then the vehicle is told.
    """

    reason: str
    header: Header | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that its vehicle signed, but that refers to a catalogue which is not here."""

    header: Header
    catalogue: bytes


def judge(
    topic: str,
    payload: bytes,
    find: FindVehicle,
    private: RecipientPrivateKey,
    find_catalogue: FindCatalogue,
    *,
    received_at_us: int,
) -> OpenedBatch | Refusal | Waiting:
    """Verify and open what came on `topic`."""
    header = None
    try:
        sender = parse_up(topic)
        claimed = read_header(payload)
        if claimed.vehicle != sender.vehicle:
            raise Untrusted(f"batch of vehicle {claimed.vehicle} on the topic of {sender.vehicle}")
        header = claimed
        if (header.lane, partition_of(header.vehicle)) != (sender.lane, sender.partition):
            raise Untrusted(f"lane or partition of topic {topic} are not those of the batch")
        found = find(header.vehicle)
        if found is None:
            raise Untrusted(f"vehicle {header.vehicle} is not enrolled in this fleet")
        record, device_key = found
        if record.revoked:
            raise Untrusted(f"vehicle {header.vehicle} is revoked")
        return open_batch(payload, device_key, private, find_catalogue, received_at_us=received_at_us)
    except Untrusted as error:
        return Refusal(str(error), header)
    except UnknownCatalogue as error:
        assert header is not None  # it was unsealed
        return Waiting(header, error.digest)


def open_batch(
    payload: bytes,
    device_key: ec.EllipticCurvePublicKey,
    private: RecipientPrivateKey,
    find_catalogue: FindCatalogue,
    *,
    received_at_us: int,
) -> OpenedBatch:
    """Open an envelope that `device_key` must have signed.  Raises Untrusted and UnknownCatalogue."""
    header, body = unseal(payload, private, device_key)
    if header.seq > MAX_SEQ:
        raise Untrusted(f"sequence number {header.seq} exceeds {MAX_SEQ}")
    used: list[bytes] = []

    def find(digest: bytes) -> Catalogue | None:
        used.append(digest)
        return find_catalogue(header.vehicle, digest)

    window, carried = decode_batch(body, find)
    check_times(header, window)
    return OpenedBatch(header, window, len(payload), received_at_us, used[0] if used else None, carried)
