"""Signed acknowledgements: the fleet tells a vehicle which batches it may delete, and which catalogues it lacks.  Pure.

Invariant: a vehicle deletes data only on an acknowledgement that the fleet's acknowledgement key signed; neither the
broker nor another vehicle can make it do so.  A replayed acknowledgement is harmless, because what was stored stays
stored.  A refusal names the bytes that were refused, so junk that a stranger sends in a vehicle's name costs the
vehicle nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from agent.errors import Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.topics import is_vehicle
from agent.formats.up.catalogue import DIGEST_BYTES

FORMAT: Final = 1
# Batches of one acknowledgement; a receiver with more to say sends several.
MAX_SEQS: Final = 1_000
MAX_REASON_CHARS: Final = 200
# More than MAX_SEQS refusals of full length come to.
MAX_ACK_BYTES: Final = 256 * 1024
_DOMAIN: Final = b"hu/v1/ack\0"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The receiver's statement that it will never store a batch, and why.

    `digest` is the SHA-256 of the envelope that was refused; a vehicle gives up only a batch that has this digest.
    """

    reason: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """Batches of one (vehicle, epoch): `stored` are in the lake, `refused` (by seq) never will be.

    `wanted` (digest to seqs) are batches that refer to a catalogue which the fleet lacks; the vehicle sends that
    catalogue, and then the batches again.
    """

    vehicle: str
    epoch: str
    stored: tuple[int, ...]
    refused: Mapping[int, Refusal] = field(default_factory=dict)
    wanted: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)

    @property
    def seqs(self) -> int:
        """Count the batches that the acknowledgement names."""
        return len(self.stored) + len(self.refused) + sum(map(len, self.wanted.values()))


def sign_ack(ack: Ack, key: Ed25519PrivateKey) -> bytes:
    """Return `ack` signed, as an MQTT payload.  Raises: ValueError above MAX_SEQS batches."""
    if ack.seqs > MAX_SEQS:
        raise ValueError(f"an acknowledgement holds at most {MAX_SEQS} batches")
    body = pb.Ack(
        format=FORMAT,
        vehicle=ack.vehicle,
        epoch=ack.epoch,
        stored=sorted(ack.stored),
        refused=[
            pb.Refusal(seq=seq, reason=refusal.reason[:MAX_REASON_CHARS], digest=refusal.digest)
            for seq, refusal in sorted(ack.refused.items(), key=itemgetter(0))
        ],
        wanted=[pb.Wanted(catalogue=digest, seqs=sorted(seqs)) for digest, seqs in sorted(ack.wanted.items())],
    ).SerializeToString(deterministic=True)
    return pb.SignedAck(ack=body, signature=key.sign(_DOMAIN + body)).SerializeToString(deterministic=True)


def verify_ack(payload: bytes, public_key: Ed25519PublicKey) -> Ack:
    """Verify and read an acknowledgement.  Raises: Untrusted where the fleet did not sign it or it is malformed."""
    if len(payload) > MAX_ACK_BYTES:
        raise Untrusted(f"acknowledgement of {len(payload)} bytes exceeds {MAX_ACK_BYTES}")
    signed, ack = pb.SignedAck(), pb.Ack()
    try:
        signed.ParseFromString(payload)
        # The acknowledgement is parsed only after its signature is verified.
        public_key.verify(signed.signature, _DOMAIN + signed.ack)
        ack.ParseFromString(signed.ack)
    except DecodeError as error:
        raise Untrusted("acknowledgement is not a protobuf message of ours") from error
    except InvalidSignature as error:
        raise Untrusted("acknowledgement is not signed by the fleet's acknowledgement key (acks.pub.pem)") from error
    if ack.format != FORMAT:
        raise Untrusted(f"acknowledgement has format {ack.format}, this agent reads {FORMAT}: update the agent")
    read = Ack(
        ack.vehicle,
        ack.epoch,
        tuple(ack.stored),
        {each.seq: Refusal(each.reason[:MAX_REASON_CHARS], each.digest) for each in ack.refused},
        {wanted.catalogue: tuple(wanted.seqs) for wanted in ack.wanted},
    )
    if not is_vehicle(read.vehicle) or read.seqs > MAX_SEQS or len(ack.wanted) > MAX_SEQS:
        raise Untrusted("acknowledgement names no vehicle, or more batches than allowed")
    if any(len(digest) != DIGEST_BYTES for digest in read.wanted):
        raise Untrusted("acknowledgement wants a catalogue by something that is not a digest")
    return read
