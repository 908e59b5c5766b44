import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.up.acks import MAX_ACK_BYTES, MAX_REASON_CHARS, MAX_SEQS, Ack, Refusal, Sealed, sign_ack, verify_ack

VEHICLE = "0b8a4a5e-31a6-4a5b-8d43-9b3c5a1de0f1"
KEY = Ed25519PrivateKey.generate()
ACK = Ack(
    VEHICLE,
    "0f" * 16,
    (Sealed(1, b"\x11" * 16), Sealed(2, b"\x22" * 16), Sealed(2, b"\x23" * 16)),
    {4: Refusal("batch does not decompress", b"\xa5" * 16)},
    {bytes(range(16)): (Sealed(5, b"\x55" * 16), Sealed(7, b"\x77" * 16))},
)
PAYLOAD = sign_ack(ACK, KEY)


def test_an_acknowledgement_of_the_fleet_reads_back():
    assert verify_ack(PAYLOAD, KEY.public_key()) == ACK


def test_an_acknowledgement_of_another_key_is_untrusted():
    with pytest.raises(Untrusted, match="not signed by the fleet"):
        verify_ack(PAYLOAD, Ed25519PrivateKey.generate().public_key())


@given(st.integers(0, len(PAYLOAD) * 8 - 1))
def test_no_flipped_bit_acknowledges_anything_else(bit):
    forged = bytearray(PAYLOAD)
    forged[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(Untrusted):  # a flipped bit that raises nothing was protobuf framing without meaning
        assert verify_ack(bytes(forged), KEY.public_key()) == ACK


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_untrusted_and_nothing_else(payload):
    with pytest.raises(Untrusted):
        verify_ack(payload, KEY.public_key())


def test_a_signature_for_another_purpose_acknowledges_nothing():
    body = pb.SignedAck.FromString(PAYLOAD).ack
    with pytest.raises(Untrusted, match="not signed by the fleet"):
        verify_ack(pb.SignedAck(ack=body, signature=KEY.sign(body)).SerializeToString(), KEY.public_key())


def test_the_largest_acknowledgement_fits_its_bounds_and_one_more_is_an_error():
    refused = {2**63 + seq: Refusal("x" * 500, bytes(16)) for seq in range(MAX_SEQS)}
    payload = sign_ack(Ack(VEHICLE, "0f" * 16, (), refused), KEY)
    assert len(payload) <= MAX_ACK_BYTES
    assert set(verify_ack(payload, KEY.public_key()).refused.values()) == {Refusal("x" * MAX_REASON_CHARS, bytes(16))}
    with pytest.raises(ValueError, match="at most"):
        sign_ack(Ack(VEHICLE, "0f" * 16, (Sealed(1, bytes(16)),), refused), KEY)


def test_an_oversized_acknowledgement_is_untrusted_unread():
    with pytest.raises(Untrusted, match="exceeds"):
        verify_ack(bytes(MAX_ACK_BYTES + 1), KEY.public_key())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format 2"),
        ({"vehicle": "WVWZZZ1JZXW000001"}, "names no vehicle"),
        ({"stored": [pb.Sealed(seq=1, digest=bytes(16))] * (MAX_SEQS + 1)}, "more than 1000 batches"),
        ({"stored": [pb.Sealed(seq=1, digest=bytes(15))]}, "names a batch by bytes that are not a digest"),
        ({"stored": [pb.Sealed(seq=1)]}, "names a batch by bytes that are not a digest"),
    ],
)
def test_a_signed_acknowledgement_out_of_bounds_is_untrusted(change, reason):
    body = pb.Ack(**{"format": 1, "vehicle": VEHICLE, "epoch": "0f" * 16, **change}).SerializeToString()
    with pytest.raises(Untrusted, match=reason):
        verify_ack(
            pb.SignedAck(ack=body, signature=KEY.sign(b"hu/v1/ack\0" + body)).SerializeToString(), KEY.public_key()
        )


def test_what_is_wanted_counts_towards_the_limit_and_is_named_by_a_digest():
    batches = tuple(Sealed(seq, bytes(16)) for seq in range(MAX_SEQS))
    with pytest.raises(ValueError, match="at most"):
        sign_ack(Ack(VEHICLE, "0f" * 16, (Sealed(1, bytes(16)),), {}, {bytes(16): batches}), KEY)
    body = pb.Ack(format=1, vehicle=VEHICLE, wanted=[pb.Wanted(catalogue=b"short", batches=[])]).SerializeToString()
    payload = pb.SignedAck(ack=body, signature=KEY.sign(b"hu/v1/ack\0" + body)).SerializeToString()
    with pytest.raises(Untrusted, match="not a digest"):
        verify_ack(payload, KEY.public_key())


def test_a_refusal_without_a_digest_reads_and_names_no_bytes():
    body = (
        bytes.fromhex("0801")
        + b"\x12\x24"
        + VEHICLE.encode()
        + b"\x1a\x20"
        + b"0f" * 16
        + b"\x2a\x06\x08\x04\x12\x02no"
    )
    signed = b"\x0a" + bytes([len(body)]) + body + b"\x12\x40" + KEY.sign(b"hu/v1/ack\0" + body)
    assert verify_ack(signed, KEY.public_key()) == Ack(VEHICLE, "0f" * 16, (), {4: Refusal("no", b"")})
