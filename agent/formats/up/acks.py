"""Sign and verify acknowledgements.  Pure.

An acknowledgement tells a vehicle which batches are stored, which batches are refused for good, and which catalogues
the fleet lacks.  The vehicle deletes stored and refused batches.

Invariant: a vehicle deletes data only on an acknowledgement that the fleet's acknowledgement key signed, so neither the
broker nor another vehicle can cause a deletion.  An acknowledgement names each batch by its number and by its digest,
so it acknowledges exactly the bytes that the receiver got:

- A replayed acknowledgement is harmless, because a stored batch stays stored.  After a disk was put back, the spool
  uses numbers again.  An old acknowledgement of these numbers does not match the new batches, because their digests
  differ.
- A stranger may send bytes in the vehicle's name, and the receiver refuses these bytes.  No batch of the vehicle has
  their digest, so the vehicle deletes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from agent.errors import Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.topics import is_vehicle
from agent.formats.up import seal
from agent.formats.up.catalogue import DIGEST_BYTES

FORMAT: Final = 1
# The greatest number of batches in one acknowledgement; a receiver with more batches sends several acknowledgements.
MAX_SEQS: Final = 1_000
MAX_REASON_CHARS: Final = 200
# The limit is enough for MAX_SEQS refusals with reasons of MAX_REASON_CHARS ASCII characters.
MAX_ACK_BYTES: Final = 256 * 1024
_DOMAIN: Final = b"hu/v1/ack\0"


class Sealed(NamedTuple):
    """Names a sealed batch of an epoch, by its sequence number and the digest of its envelope."""

    seq: int
    digest: bytes


class Refusal(msgspec.Struct, frozen=True):
    """Says that the receiver will never store a batch, and why.

    `digest` is the digest of the refused envelope.  A vehicle discards its batch only if the digest matches.
    """

    reason: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """Answers batches of one vehicle and epoch.

    Batches in `stored` are in the lake, and batches in `refused` will never be there.  `wanted` has the digest of each
    catalogue that the fleet lacks, with the batches that refer to it.  The vehicle must send the catalogue, and then
    these batches again.
    """

    vehicle: str
    epoch: str
    stored: tuple[Sealed, ...]
    refused: Mapping[int, Refusal] = field(default_factory=dict)
    wanted: Mapping[bytes, tuple[Sealed, ...]] = field(default_factory=dict)

    @property
    def batches(self) -> int:
        """Return the number of batches that the acknowledgement names."""
        return len(self.stored) + len(self.refused) + sum(map(len, self.wanted.values()))


def sign_ack(ack: Ack, key: Ed25519PrivateKey) -> bytes:
    """Sign `ack` and return it as an MQTT payload.  Raises: ValueError if it names more than MAX_SEQS batches."""
    if ack.batches > MAX_SEQS:
        raise ValueError(f"The acknowledgement names {ack.batches} batches; at most {MAX_SEQS} are allowed.")
    body = pb.Ack(
        format=FORMAT,
        vehicle=ack.vehicle,
        epoch=ack.epoch,
        stored=[pb.Sealed(seq=seq, digest=digest) for seq, digest in sorted(ack.stored)],
        refused=[
            pb.Refusal(seq=seq, reason=refusal.reason[:MAX_REASON_CHARS], digest=refusal.digest)
            for seq, refusal in sorted(ack.refused.items(), key=itemgetter(0))
        ],
        wanted=[
            pb.Wanted(
                catalogue=catalogue, batches=[pb.Sealed(seq=seq, digest=digest) for seq, digest in sorted(sealed)]
            )
            for catalogue, sealed in sorted(ack.wanted.items())
        ],
    ).SerializeToString(deterministic=True)
    return pb.SignedAck(ack=body, signature=key.sign(_DOMAIN + body)).SerializeToString(deterministic=True)


def verify_ack(payload: bytes, public_key: Ed25519PublicKey) -> Ack:
    """Verify and return an acknowledgement.  Raises: Untrusted if the fleet did not sign it, or if it is malformed."""
    if len(payload) > MAX_ACK_BYTES:
        raise Untrusted(f"The acknowledgement has {len(payload)} bytes, which exceeds {MAX_ACK_BYTES}.")
    signed, ack = pb.SignedAck(), pb.Ack()
    try:
        signed.ParseFromString(payload)
        # The acknowledgement is parsed only after its signature is verified.
        public_key.verify(signed.signature, _DOMAIN + signed.ack)
        ack.ParseFromString(signed.ack)
    except DecodeError as error:
        raise Untrusted("The acknowledgement is not a protobuf SignedAck.") from error
    except InvalidSignature as error:
        raise Untrusted(
            "The acknowledgement is not signed by the fleet's acknowledgement key (acks.pub.pem)."
        ) from error
    if ack.format != FORMAT:
        raise Untrusted(
            f"The acknowledgement has format {ack.format}, and this agent reads format {FORMAT}: update the agent."
        )
    read = Ack(
        ack.vehicle,
        ack.epoch,
        _sealed(ack.stored),
        {each.seq: Refusal(each.reason[:MAX_REASON_CHARS], each.digest) for each in ack.refused},
        {wanted.catalogue: _sealed(wanted.batches) for wanted in ack.wanted},
    )
    if not is_vehicle(read.vehicle) or read.batches > MAX_SEQS or len(ack.wanted) > MAX_SEQS:
        raise Untrusted(f"The acknowledgement names no vehicle, or more than {MAX_SEQS} batches.")
    if any(len(digest) != DIGEST_BYTES for digest in read.wanted):
        raise Untrusted("The acknowledgement names a wanted catalogue by bytes that are not a digest.")
    named = [*read.stored, *(sealed for wanted in read.wanted.values() for sealed in wanted)]
    if any(len(digest) != seal.DIGEST_BYTES for _, digest in named):
        raise Untrusted("The acknowledgement names a batch by bytes that are not a digest.")
    return read


def _sealed(messages: Iterable[pb.Sealed]) -> tuple[Sealed, ...]:
    return tuple(Sealed(message.seq, message.digest) for message in messages)
