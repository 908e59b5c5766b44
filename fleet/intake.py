"""Judging what arrives: an envelope becomes an opened batch, or a rejection with its reason.  Pure.

The invariant: nothing reaches the lake that a registered vehicle did not sign with its own key, on its own
topic.  The checks go from cheap to costly, so a flood of rubbish costs little.

A vehicle deletes what it is told was refused, so it is told only where the batch is proved to be its own and can
never become good.  All else is answered with silence, and the vehicle keeps the batch and sends it again: what
anybody may have sent in its name, and what the fleet can mend (enrolment, revocation, a record, a key, an update).
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent, Untrusted
from agent.formats.codec import UnknownFormat, decode_window
from agent.formats.seal import Header, RecipientPrivateKey, read_header, unseal, unseal_unverified
from agent.formats.topics import parse_up, partition_of
from fleet.registry import VehicleRecord
from fleet.rows import OpenedBatch, check_times

FindVehicle = Callable[[str], tuple[VehicleRecord, ec.EllipticCurvePublicKey] | None]
MAX_SEQ = 2**63 - 1
"""What SQLite and Delta hold."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an envelope was not taken.

    `claimed` is what it says it is, where that can be read and it came on the claimed vehicle's own topic; `final`:
    the vehicle is told, and gives the batch up.
    """

    reason: str
    claimed: Header | None
    final: bool = False


class Hopeless(Untrusted):
    """Verified as the vehicle's own, and good for nothing now or ever."""


def judge(
    topic: str, payload: bytes, find: FindVehicle, private: RecipientPrivateKey, *, received_at_us: int
) -> OpenedBatch | Rejection:
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
        return open_batch(payload, _key_of(header.vehicle, find), private, received_at_us=received_at_us)
    except Untrusted as error:
        return Rejection(str(error), header, isinstance(error, Hopeless))


def open_batch(
    payload: bytes,
    device_key: ec.EllipticCurvePublicKey,
    private: RecipientPrivateKey,
    *,
    received_at_us: int,
) -> OpenedBatch:
    """Open an envelope that `device_key` must have signed.  Raises Untrusted, Hopeless where it did sign it."""
    return _opened(payload, *unseal(payload, private, device_key), received_at_us)


def reopen_batch(payload: bytes, private: RecipientPrivateKey, *, received_at_us: int) -> OpenedBatch:
    """Open once more what `open_batch` took before a crash, whatever became of the vehicle's record.  Raises
    Untrusted."""
    return _opened(payload, *unseal_unverified(payload, private), received_at_us)


def _opened(payload: bytes, header: Header, body: bytes, received_at_us: int) -> OpenedBatch:
    if header.seq > MAX_SEQ:
        raise Hopeless(f"sequence number {header.seq} exceeds {MAX_SEQ}")
    try:
        window = decode_window(body)
    except UnknownFormat:  # a newer vehicle's: the receiver is to be updated
        raise
    except Untrusted as error:
        raise Hopeless(str(error)) from error
    check_times(header, window)
    return OpenedBatch(header, window, len(payload), received_at_us)


def _key_of(vehicle: str, find: FindVehicle) -> ec.EllipticCurvePublicKey:
    """Raises Untrusted: one vehicle's record that is missing, revoked or damaged concerns nobody else."""
    try:
        found = find(vehicle)
    except Permanent as error:
        raise Untrusted(f"the record of vehicle {vehicle} cannot be used: {error}") from error
    if found is None:
        raise Untrusted(f"vehicle {vehicle} is not enrolled in this fleet")
    record, device_key = found
    if record.revoked:
        raise Untrusted(f"vehicle {vehicle} is revoked")
    return device_key
