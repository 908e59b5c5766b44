"""recipient.json is refused unless a vehicle can seal to its key."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.down.documents import KINDS, check_documents, read_documents
from agent.formats.down.recipient import parse_recipient
from agent.formats.up.recipient import RecipientPrivateKey, RecipientPublicKey, SuiteName, _public_key

SUITES: tuple[SuiteName, ...] = ("MLKEM768_X25519", "X25519")
GOOD = {suite: RecipientPrivateKey.generate(suite).public for suite in SUITES}


@pytest.mark.parametrize("suite", SUITES)
def test_the_public_key_of_a_fleet_is_a_document_of_a_release(suite: SuiteName) -> None:
    documents = read_documents({"recipient.json": GOOD[suite].to_json()}, KINDS)
    check_documents(documents, None, KINDS)
    (document,) = documents
    assert (document.value.suite, document.value.raw) == (suite, GOOD[suite].raw)


def _with(**changes: object) -> bytes:
    return json.dumps(json.loads(GOOD["X25519"].to_json()) | changes).encode()


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"", "not JSON"),
        (b"[]", "not a sealing key"),
        (_with(private_key="AAAA"), "unknown field 'private_key'"),
        (_with(suite="ROT13"), "suite 'ROT13' is unknown"),
        (_with(key_id="0" * 16), "does not belong to public_key"),
        (_with(public_key="AAAA"), "is not a X25519 key"),
        (_with(public_key="?"), "not a key file"),
        (GOOD["MLKEM768_X25519"].to_json() * 3, "at most 4,096 are allowed"),
    ],
    ids=["empty", "a list", "private", "suite", "id", "short", "no base64", "too long"],
)
def test_a_malformed_key_is_refused_and_the_message_names_document_and_fault(document: bytes, fault: str) -> None:
    with pytest.raises(Permanent) as refused:
        read_documents({"recipient.json": document}, KINDS)
    assert fault in str(refused.value)
    assert "recipient.json" in str(refused.value)


@pytest.mark.parametrize("suite", SUITES)
def test_a_point_of_low_order_is_refused_because_nothing_can_be_sealed_to_it(suite: SuiteName) -> None:
    low = _public_key(suite, GOOD[suite].raw[:-32] + bytes(32))
    with pytest.raises(Permanent, match="nothing can be sealed"):
        parse_recipient(low.to_json(), "recipient.json")


@given(st.binary(max_size=200) | st.dictionaries(st.text(), st.text()).map(lambda d: json.dumps(d).encode()))
def test_any_bytes_give_a_key_or_a_refusal(document: bytes) -> None:
    try:
        assert isinstance(parse_recipient(document, "recipient.json"), RecipientPublicKey)
    except Permanent as refused:
        assert str(refused).startswith("recipient.json")
