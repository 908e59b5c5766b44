"""authorities.pem is refused unless each of its certificates is a self-signed authority."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.down.authorities import parse_authorities
from fleet.state import certificates

NOW = datetime.now(UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = certificates.create_authority(KEY, name="one", now=NOW, days=9, serial=1)
CLIENT = certificates.create_client(KEY, common_name="receiver", now=NOW, days=9, serial=2)
LEAF = certificates.issue_client(AUTHORITY, KEY, KEY.public_key(), common_name="x", now=NOW, days=9, serial=3)
ONE, SELF, ISSUED = (each.public_bytes(Encoding.PEM) for each in (AUTHORITY, CLIENT, LEAF))


def test_one_or_more_authorities_are_read_in_their_order() -> None:
    assert parse_authorities(ONE, "authorities.pem") == (AUTHORITY,)
    assert len(parse_authorities(ONE * 8, "authorities.pem")) == 8


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"", "not a list of certificates"),
        (ONE * 9, "has 9 authorities"),
        (ONE + SELF, "certificate 2 may not issue"),
        (ONE + ISSUED, "certificate 2 is not a self-signed"),
        (ONE[:200], "not a list"),
    ],
)
def test_anything_else_is_refused_and_the_message_names_the_document(document: bytes, fault: str) -> None:
    with pytest.raises(Permanent, match=rf"authorities\.pem: .*{fault}"):
        parse_authorities(document, "authorities.pem")


@given(st.binary(max_size=300) | st.integers(0, len(ONE) - 1).map(lambda at: ONE[:at] + b"A" + ONE[at + 1 :]))
def test_any_bytes_give_authorities_or_a_refusal(document: bytes) -> None:
    try:
        parse_authorities(document, "authorities.pem")
    except Permanent as refused:
        assert str(refused).startswith("authorities.pem")
