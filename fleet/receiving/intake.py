"""Judging what arrives: an envelope becomes an opened batch, a rejection with its reason, or waits for its catalogue.

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
from agent.formats.topics import parse_up, partition_of
from agent.formats.up.catalogue import Catalogue, UnknownCatalogue
from agent.formats.up.codec import UnknownFormat, decode_batch
from agent.formats.up.seal import Header, RecipientPrivateKey, read_header, unseal, unseal_unverified
from fleet.lake.opened_batch import OpenedBatch, check_times
from fleet.state.registry import VehicleRecord

FindVehicle = Callable[[str], tuple[VehicleRecord, ec.EllipticCurvePublicKey] | None]
FindCatalogue = Callable[[str, bytes], Catalogue | None]
"""By vehicle and digest."""

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
) -> OpenedBatch | Rejection | Waiting:
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
        device_key = _key_of(header.vehicle, find)
        return open_batch(payload, device_key, private, find_catalogue, received_at_us=received_at_us)
    except Untrusted as error:
        return Rejection(str(error), header, isinstance(error, Hopeless))
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
    """Open an envelope that `device_key` must have signed.

    Raises UnknownCatalogue; Untrusted, Hopeless where it did sign it.
    """
    return _opened(payload, *unseal(payload, private, device_key), find_catalogue, received_at_us)


def reopen_batch(
    payload: bytes, private: RecipientPrivateKey, find_catalogue: FindCatalogue, *, received_at_us: int
) -> OpenedBatch:
    """Open once more what `open_batch` took before a crash, whatever became of the vehicle's record.  Raises
    Untrusted and UnknownCatalogue."""
    return _opened(payload, *unseal_unverified(payload, private), find_catalogue, received_at_us)


def _opened(
    payload: bytes, header: Header, body: bytes, find_catalogue: FindCatalogue, received_at_us: int
) -> OpenedBatch:
    if header.seq > MAX_SEQ:
        raise Hopeless(f"sequence number {header.seq} exceeds {MAX_SEQ}")
    used: list[bytes] = []

    def find(digest: bytes) -> Catalogue | None:
        used.append(digest)
        return find_catalogue(header.vehicle, digest)

    try:
        window, carried = decode_batch(body, find)
    except UnknownFormat:  # a newer vehicle's: the receiver is to be updated
        raise
    except Untrusted as error:
        raise Hopeless(str(error)) from error
    check_times(header, window)
    return OpenedBatch(header, window, len(payload), received_at_us, used[0] if used else None, carried)


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
