"""Judge what arrives: an envelope becomes an opened batch, a rejection with its reason, or waits for its catalogue.

Invariant: nothing reaches the lake that a registered vehicle did not sign with its own key and send on its own topic.
The checks go from cheap to costly, so a flood of rubbish costs little.

A vehicle deletes a batch when the receiver refuses it.  The receiver therefore refuses only a batch that is proved to
be the vehicle's own and that can never become good.  Every other rejection is silent, so the vehicle keeps the batch
and sends it again: a stranger may have sent the batch in the vehicle's name, or the fleet can mend the cause
(enrolment, revocation, a record, a key, an update of the receiver).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent, Untrusted
from agent.formats.topics import parse_up, partition_of
from agent.formats.up.catalogue import Catalogue, UnknownCatalogue
from agent.formats.up.codec import UnknownFormat, decode_batch
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import Header, read_header, unseal, unseal_unverified
from fleet.lake.opened_batch import OpenedBatch, check_times
from fleet.state.registry import VehicleRecord

FindVehicle = Callable[[str], tuple[VehicleRecord, ec.EllipticCurvePublicKey] | None]
FindCatalogue = Callable[[str, bytes], Catalogue | None]
"""Find a catalogue by vehicle and digest."""

MAX_SEQ: Final = 2**63 - 1
"""The largest integer that SQLite and Delta hold."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An envelope that is not taken, and why.

    `claimed` is its header, where that can be read and the envelope came on the claimed vehicle's own topic.  Where
    `final` is set, the vehicle is told and gives the batch up.
    """

    reason: str
    claimed: Header | None
    final: bool = False


class Hopeless(Untrusted):
    """The batch is verified as the vehicle's own, and no change at the fleet can ever make it readable."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that its vehicle signed, but that refers to a catalogue which is not here."""

    header: Header
    catalogue: bytes


def judge(
    topic: str,
    payload: bytes,
    find_vehicle: FindVehicle,
    private: RecipientPrivateKey,
    find_catalogue: FindCatalogue,
    *,
    received_at_us: int,
) -> OpenedBatch | Rejection | Waiting:
    """Verify and open what came on `topic`.  Raises: Transient where the disk with the catalogues refuses."""
    header = None
    try:
        # The broker's access list guards the topic, so the topic decides whose batch this may be.
        sender = parse_up(topic)
        claimed = read_header(payload)
        if claimed.vehicle != sender.vehicle:
            raise Untrusted(f"batch of vehicle {claimed.vehicle} on the topic of {sender.vehicle}")
        header = claimed
        if (header.lane, partition_of(header.vehicle)) != (sender.lane, sender.partition):
            raise Untrusted(f"lane or partition of topic {topic} are not those of the batch")
        device_key = _key_of(header.vehicle, find_vehicle)
        return open_batch(payload, device_key, private, find_catalogue, received_at_us=received_at_us)
    except Untrusted as error:
        return Rejection(str(error), header, isinstance(error, Hopeless))
    except UnknownCatalogue as error:
        # Only a batch that was unsealed can refer to a catalogue.
        assert header is not None
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

    Raises: Untrusted where another key signed it; Hopeless where the content is bad although the key signed it;
    UnknownCatalogue where the batch refers to a catalogue that is not here.
    """
    return _opened(payload, *unseal(payload, private, device_key), find_catalogue, received_at_us)


def reopen_batch(
    payload: bytes, private: RecipientPrivateKey, find_catalogue: FindCatalogue, *, received_at_us: int
) -> OpenedBatch:
    """Open a batch again that `open_batch` took before a crash, even if the vehicle's record is damaged by now.

    Raises: Untrusted and UnknownCatalogue, as `open_batch`.
    """
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
    except UnknownFormat:
        # A newer vehicle made the batch.  An update of the receiver can mend that, so the batch is not hopeless.
        raise
    except Untrusted as error:
        raise Hopeless(str(error)) from error
    check_times(header, window)
    return OpenedBatch(header, window, len(payload), received_at_us, used[0] if used else None, carried)


def _key_of(vehicle: str, find: FindVehicle) -> ec.EllipticCurvePublicKey:
    """Return the vehicle's key.  Raises: Untrusted where its record is missing, revoked or damaged."""
    try:
        found = find(vehicle)
    except Permanent as error:
        # Permanent would end the receiver, but one damaged record concerns no other vehicle.
        raise Untrusted(f"the record of vehicle {vehicle} cannot be used: {error}") from error
    if found is None:
        raise Untrusted(f"vehicle {vehicle} is not enrolled in this fleet")
    record, device_key = found
    if record.revoked:
        raise Untrusted(f"vehicle {vehicle} is revoked")
    return device_key
