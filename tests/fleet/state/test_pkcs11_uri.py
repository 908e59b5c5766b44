"""PKCS#11 URIs are read as RFC 7512 says, and what cannot be meant is refused with the remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from fleet.state.pkcs11_uri import MAX_LENGTH, Pkcs11Uri, parse


def escaped(value: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in value)


def test_the_examples_of_the_rfc_that_name_a_key_are_read() -> None:
    """RFC 7512, section 3, written without line breaks."""
    assert parse(
        "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;"
        "object=my-certificate;type=private;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin"
    ) == Pkcs11Uri(
        token="Software PKCS#11 softtoken",
        manufacturer="Snake Oil, Inc.",
        model="1.0",
        object="my-certificate",
        id=b"\x69\x95\x3e\x5c\xf4\xbd\xec\x91",
        serial="",
        pin_source="/etc/token_pin",
    )
    assert parse("pkcs11:object=my-sign-key;type=private;slot-id=327?module-path=/mnt/libmypkcs11.so.1") == Pkcs11Uri(
        object="my-sign-key", slot_id=327, module_path="/mnt/libmypkcs11.so.1"
    )


@given(st.text(min_size=1), st.binary(min_size=1), st.text())
def test_any_label_and_identifier_can_be_written_with_escapes(label: str, identifier: bytes, token: str) -> None:
    uri = f"pkcs11:object={escaped(label.encode())};id={escaped(identifier)};token={escaped(token.encode())}"
    if len(uri) <= MAX_LENGTH:
        assert parse(uri) == Pkcs11Uri(object=label, id=identifier, token=token)


@given(st.text() | st.text("pkcs11:;?&=%abcdeiknot-0123456789").map("pkcs11:{}".format))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except Permanent:
        return
    assert found.object or found.id


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("safe/root1.pem", "not a PKCS#11 URI"),
        ("pkcs11:", "names no key"),
        ("pkcs11:token=root-1", r"names no key. Add its label"),
        ("pkcs11:object=a;object=b", "object is there twice"),
        ("pkcs11:object=a;tokn=b", "'tokn' is unknown. Did you mean token"),
        ("pkcs11:object=a;frobnicate=b", "unknown. Known here are token"),
        ("pkcs11:object=a?token=b", "'token' is unknown"),
        ("pkcs11:object=a;token", "'token' is unknown"),
        ("pkcs11:object=100%", "Write %25"),
        ("pkcs11:object=%ff", "not UTF-8"),
        ("pkcs11:object=a;type=cert", "must be private"),
        ("pkcs11:object=a;slot-id=one", "whole number"),
        ("pkcs11:object=a?pin-value=1234", "must not be part of the URI.*--pin-file"),
        ("pkcs11:object=a?pin-source=|/bin/cat", "not a command"),
        ("pkcs11:object=" + "a" * MAX_LENGTH, "at most"),
    ],
)
def test_what_cannot_be_meant_is_refused(uri: str, says: str) -> None:
    with pytest.raises(Permanent, match=says):
        parse(uri)


def test_a_refusal_does_not_repeat_the_pin() -> None:
    with pytest.raises(Permanent) as refused:
        parse("pkcs11:object=a?pin-value=98765")
    assert "98765" not in str(refused.value)
