import contextlib
import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import Permanent, Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.topics import Lane
from agent.formats.up import recipient
from agent.formats.up.recipient import RecipientPrivateKey, RecipientPublicKey
from agent.formats.up.seal import MAX_ENVELOPE_BYTES, SEAL_OVERHEAD_BYTES, Header, read_header, seal, unseal

SUITES = ("MLKEM768_X25519", "X25519")
DEVICE = ec.generate_private_key(ec.SECP256R1())
FLEET = {suite: RecipientPrivateKey.generate(suite) for suite in SUITES}
BODY = bytes(range(256)) * 4


def header(suite="MLKEM768_X25519", **changes):
    of_suite = Header(
        "0b8a4a5e-31a6-4a5b-8d43-9b3c5a1de0f1",
        "0f" * 16,
        7,
        Lane.LIVE,
        FLEET[suite].key_id,
        suite,
        1_700_000_000_000_000,
    )
    return dataclasses.replace(of_suite, **changes)


def sealed(suite="MLKEM768_X25519", body=BODY, device=DEVICE, **changes):
    return seal(header(suite, **changes), body, device, FLEET[suite].public)


ENVELOPES = {suite: sealed(suite) for suite in SUITES}


@pytest.mark.parametrize("suite", SUITES)
def test_the_fleet_opens_what_the_vehicle_sealed(suite):
    assert unseal(ENVELOPES[suite], FLEET[suite], DEVICE.public_key()) == (header(suite), BODY)
    assert read_header(ENVELOPES[suite]) == header(suite)


@pytest.mark.parametrize("suite", SUITES)
def test_the_overhead_stays_below_what_is_reserved_for_it(suite):
    envelope = sealed(suite, b"x" * 60_000, seq=2**64 - 1, sealed_at_us=2**62)
    assert 0 < len(envelope) - 60_000 <= SEAL_OVERHEAD_BYTES


def test_nothing_of_the_body_is_readable_in_the_envelope():
    envelope = sealed(body=b"Engine.Speed" * 100)
    assert b"Engine" not in envelope


def test_equal_batches_are_sealed_differently():
    assert sealed() != sealed()


def test_another_recipient_key_is_named():
    other = RecipientPrivateKey.generate()
    with pytest.raises(
        Untrusted,
        match=rf"sealed to MLKEM768_X25519 key {FLEET['MLKEM768_X25519'].key_id}, not to our MLKEM768_X25519 key",
    ):
        unseal(ENVELOPES["MLKEM768_X25519"], other, DEVICE.public_key())


def test_another_devices_signature_is_named():
    stranger = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Untrusted, match="registered for vehicle 0b8a4a5e"):
        unseal(sealed(device=stranger), FLEET["MLKEM768_X25519"], DEVICE.public_key())


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    "change",
    [{"seq": 8}, {"epoch": "1f" * 16}, {"lane": Lane.EVENTS}, {"vehicle": "1" * 8 + "-aaaa-aaaa-aaaa-" + "a" * 12}],
)
def test_a_body_under_another_header_does_not_open(suite, change):
    envelope = pb.Envelope.FromString(ENVELOPES[suite])
    envelope.header = pb.Envelope.FromString(sealed(suite, **change)).header
    with pytest.raises(Untrusted, match="altered"):
        unseal(envelope.SerializeToString(), FLEET[suite], DEVICE.public_key())


def test_a_body_signed_for_another_header_is_refused_even_where_the_fleets_public_key_sealed_it_again():
    """A signed body cannot be moved to another sequence number: the public key is enough to seal, but not to sign."""
    fleet = FLEET["X25519"]
    one, two = ENVELOPES["X25519"], sealed("X25519", seq=8)

    first, second = pb.Envelope.FromString(one), pb.Envelope.FromString(two)
    suite = recipient.SUITES["X25519"]
    signed = suite.decrypt(first.ciphertext, fleet.key, info=b"hu/v1/seal\0" + first.header)
    second.ciphertext = suite.encrypt(signed, fleet.public.key, info=b"hu/v1/seal\0" + second.header)
    with pytest.raises(Untrusted, match="signature"):
        unseal(second.SerializeToString(), fleet, DEVICE.public_key())


@settings(max_examples=200)
@given(st.sampled_from(SUITES), st.data())
def test_no_flipped_bit_yields_another_header_or_body(suite, data):
    forged = bytearray(ENVELOPES[suite])
    bit = data.draw(st.integers(0, len(forged) * 8 - 1))
    forged[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(Untrusted):
        assert unseal(bytes(forged), FLEET[suite], DEVICE.public_key()) == (header(suite), BODY)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_untrusted_and_nothing_else(envelope):
    with pytest.raises(Untrusted):
        unseal(envelope, FLEET["X25519"], DEVICE.public_key())


@given(st.binary(max_size=300))
def test_arbitrary_sealed_content_is_untrusted_and_nothing_else(content):
    fleet = FLEET["X25519"]

    envelope = pb.Envelope.FromString(ENVELOPES["X25519"])
    envelope.ciphertext = recipient.SUITES["X25519"].encrypt(
        content, fleet.public.key, info=b"hu/v1/seal\0" + envelope.header
    )
    with pytest.raises(Untrusted):
        unseal(envelope.SerializeToString(), fleet, DEVICE.public_key())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format 2"),
        ({"suite": 9}, "unknown suite .* suite 9"),
        ({"lane": 0}, "lane 0"),
        ({"vehicle": "WVWZZZ1JZXW000001"}, "vehicle"),
        ({"epoch": "0F" * 16}, "epoch"),
        ({"seq": 0}, "sequence number"),
        ({"key_id": "x" * 600}, "header has"),
    ],
)
def test_a_header_out_of_form_is_untrusted_and_its_fault_named(change, reason):
    message = pb.Header.FromString(pb.Envelope.FromString(ENVELOPES["X25519"]).header)
    for field, value in change.items():
        setattr(message, field, value)
    with pytest.raises(Untrusted, match=reason):
        read_header(pb.Envelope(header=message.SerializeToString(), ciphertext=b"x").SerializeToString())


def test_an_oversized_envelope_is_untrusted_unread():
    with pytest.raises(Untrusted, match="exceeds"):
        read_header(bytes(MAX_ENVELOPE_BYTES + 1))


@pytest.mark.parametrize("change", [{"seq": 0}, {"vehicle": "x"}, {"epoch": ""}, {"key_id": "0" * 16}])
def test_a_wrong_header_is_not_sealed(change):
    with pytest.raises(ValueError, match="header"):
        sealed(**change)


@pytest.mark.parametrize("suite", SUITES)
def test_key_files_read_back(suite):
    private = RecipientPrivateKey.from_json(FLEET[suite].to_json(), "hpke.json")
    public = RecipientPublicKey.from_json(FLEET[suite].public.to_json(), "hpke.pub.json")
    assert private.raw == FLEET[suite].raw
    assert public.raw == private.public.raw
    assert public.key_id == private.key_id
    envelope = seal(header(suite), BODY, DEVICE, public)
    assert unseal(envelope, private, DEVICE.public_key())[1] == BODY


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"suite": "RSA"}, "suite 'RSA' is unknown"),
        ({"suite": []}, "suite"),
        ({"key_id": "0" * 16}, "does not belong"),
        ({"public_key": "AAAA"}, "not a MLKEM768_X25519 key"),
        ({"public_key": "?"}, "not a key file"),
        ({"public_key": 5}, "not a key file"),
    ],
)
def test_a_wrong_key_file_is_named_with_its_fault(change, reason):
    document = {**json.loads(FLEET["MLKEM768_X25519"].public.to_json()), **change}
    with pytest.raises(Permanent, match=rf"^hpke\.pub\.json: .*{reason}"):
        RecipientPublicKey.from_json(json.dumps(document).encode(), "hpke.pub.json")


@given(st.binary(max_size=100))
def test_arbitrary_key_files_are_refused_and_nothing_else(document):
    for key in (RecipientPublicKey, RecipientPrivateKey):
        with pytest.raises(Permanent, match=r"^k: "):
            key.from_json(document, "k")


def test_a_private_key_does_not_print_its_secret():
    key = FLEET["X25519"]
    assert repr(key) == f"RecipientPrivateKey(suite='X25519', key_id='{key.key_id}')"
