"""Judges each envelope that arrives: it is opened, is rejected with a reason, or waits for its catalogue.

Invariant: a batch reaches the lake only if a registered vehicle signed it with its own key and sent it on its own
topic.  The checks go from cheap to costly, so a flood of invalid messages costs little.

There are two kinds of rejection:

    final   The vehicle is told, and deletes the batch.  A rejection is therefore final only if the vehicle has
            provably signed the batch, and if the batch can never become readable.
    silent  The vehicle gets no answer, keeps the batch, and sends it again.  A rejection is silent if an attacker may
            have sent the batch in the vehicle's name, or if the fleet can repair the cause.  Examples of such causes
            are a missing enrolment, a damaged record, a wrong key, and a receiver that needs an update.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import AgentError, Permanent, Untrusted
from agent.formats.topics import parse_up, partition_of
from agent.formats.up.catalogue import Catalogue, UnknownCatalogue
from agent.formats.up.decode import UnknownFormat, decode_batch
from agent.formats.up.limits import MAX_SEQ
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import Header, digest_of, read_header, unseal, unseal_unverified
from fleet.lake.opened_batch import OpenedBatch, check_times
from fleet.lake.rows import BatchRows, rows_of
from fleet.state.vehicle_record import VehicleRecord

FindVehicle = Callable[[str], tuple[VehicleRecord, Sequence[ec.EllipticCurvePublicKey]] | None]
FindKey = Callable[[str], RecipientPrivateKey]
"""A function that finds the fleet's private key by its id, or raises Untrusted."""
FindCatalogue = Callable[[str, bytes], Catalogue | None]
"""A function that finds a catalogue by vehicle and digest, or returns None."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Holds the reason why an envelope is rejected.

    `claimed` is the envelope's header, or None if the header cannot be read or names another vehicle than the topic.
    If `final` is set, the vehicle is told of the rejection, and then deletes the batch.  Otherwise the vehicle gets no
    answer, and sends the batch again.
    """

    reason: str
    claimed: Header | None
    final: bool = False


class Hopeless(Untrusted):
    """Raised for a batch that its vehicle has provably signed, but that no change at the fleet can make readable."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Holds the header of a batch that may go into the lake, and its rows in each table.

    `catalogue` is the digest of the catalogue that the batch refers to, and `carried` is the catalogue that the batch
    itself contains.  Either may be None.
    """

    header: Header
    rows: BatchRows
    catalogue: bytes | None
    carried: Catalogue | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Holds the header of a genuine batch that waits for a catalogue, and the digest of this catalogue."""

    header: Header
    catalogue: bytes


def judge(
    topic: str,
    payload: bytes,
    find_vehicle: FindVehicle,
    find_key: FindKey,
    find_catalogue: FindCatalogue,
    *,
    received_at_us: int,
) -> Accepted | Rejection | Waiting:
    """Verify and open an envelope that came on `topic`, and return the verdict.

    `received_at_us` is in microseconds since the Unix epoch.  Raises: Transient if a catalogue cannot be read now.
    """
    header = None
    try:
        # The broker's access list guards the topic, so the batch must belong to the vehicle that the topic names.
        sender = parse_up(topic)
        claimed = read_header(payload)
        if claimed.vehicle != sender.vehicle:
            raise Untrusted(f"A batch of vehicle {claimed.vehicle} came on the topic of vehicle {sender.vehicle}.")
        header = claimed
        if (header.lane, partition_of(header.vehicle)) != (sender.lane, sender.partition):
            raise Untrusted(f"The topic {topic} has another lane or partition than the batch.")
        device_keys = _keys_of(header.vehicle, find_vehicle)
        return open_batch(payload, device_keys, find_key, find_catalogue, received_at_us=received_at_us)
    except Untrusted as error:
        return Rejection(str(error), header, isinstance(error, Hopeless))
    except UnknownCatalogue as error:
        # A catalogue is looked up only after unsealing, so the header was read before.
        assert header is not None
        return Waiting(header, error.digest)


def open_batch(
    payload: bytes,
    device_keys: Sequence[ec.EllipticCurvePublicKey],
    find_key: FindKey,
    find_catalogue: FindCatalogue,
    *,
    received_at_us: int,
) -> Accepted:
    """Open an envelope, which must be signed with one of `device_keys`.

    Raises: Hopeless if one of `device_keys` signed the envelope, but its content is invalid; UnknownCatalogue if the
    receiver lacks the catalogue that the batch refers to; Untrusted for other faults, for example if another key signed
    it.
    """
    private = find_key(read_header(payload).key_id)
    return _opened(payload, *unseal(payload, private, *device_keys), find_catalogue, received_at_us)


def reopen_batch(payload: bytes, find_key: FindKey, find_catalogue: FindCatalogue, *, received_at_us: int) -> BatchRows:
    """Return the rows of a batch that `open_batch` accepted before a crash.

    The signature is not verified again.  Verifying it needs the vehicle's record, which may be damaged by now.

    Raises: Hopeless, UnknownCatalogue or Untrusted, as `open_batch` does.
    """
    private = find_key(read_header(payload).key_id)
    return _opened(payload, *unseal_unverified(payload, private), find_catalogue, received_at_us).rows


def _opened(
    payload: bytes, header: Header, body: bytes, find_catalogue: FindCatalogue, received_at_us: int
) -> Accepted:
    if header.seq > MAX_SEQ:
        raise Hopeless(f"The sequence number {header.seq} of the batch exceeds {MAX_SEQ}.")
    used: list[bytes] = []

    def find(digest: bytes) -> Catalogue | None:
        used.append(digest)
        return find_catalogue(header.vehicle, digest)

    try:
        window, carried = decode_batch(body, find)
        check_times(header, window)
        rows = rows_of(OpenedBatch(header, window, len(payload), received_at_us, digest_of(payload)))
    except UnknownFormat:
        # A newer agent made the batch.  The batch is not hopeless, because an updated receiver can read it.
        raise
    except Untrusted as error:
        raise Hopeless(str(error)) from error
    except (AgentError, UnknownCatalogue):
        raise
    except Exception as error:
        raise Untrusted(
            f"The receiver failed on this batch ({type(error).__name__}: {error}). This is a fault of the receiver: "
            "report it together with the batch in the quarantine."
        ) from error
    return Accepted(header, rows, used[0] if used else None, carried)


def _keys_of(vehicle: str, find: FindVehicle) -> Sequence[ec.EllipticCurvePublicKey]:
    """Return the public device keys that may have signed the vehicle's batches, the present one first.

    Raises: Untrusted if the vehicle is not enrolled or is revoked, or if its record is damaged.
    """
    try:
        found = find(vehicle)
    except Permanent as error:
        # Permanent would end the receiver, although one damaged record does not affect other vehicles.
        raise Untrusted(f"The key of vehicle {vehicle} cannot be read. {error}") from error
    if found is None:
        raise Untrusted(f"Vehicle {vehicle} is not enrolled in this fleet.")
    record, device_keys = found
    if record.revoked:
        raise Untrusted(f"Vehicle {vehicle} is revoked.")
    return device_keys
