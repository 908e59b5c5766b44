"""What a broker sends reaches the MQTT library only if an honest broker could have sent it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.link.packets import ANSWER_BYTES, PROPERTIES_BYTES, TOPIC_BYTES, Inspector, PacketRefusedError

LIMIT_BYTES = 20_000


def variable(number: int) -> bytes:
    """Return MQTT's variable byte integer."""
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | (128 if number else 0))
        if not number:
            return bytes(digits)


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + variable(len(body)) + body


def publish(topic: bytes = b"hu/v1/nudge", properties: bytes = b"", payload: bytes = b"", qos: int = 1) -> bytes:
    mid = b"\x00\x01" if qos else b""
    return packet(
        0x30 | qos << 1, len(topic).to_bytes(2, "big") + topic + mid + variable(len(properties)) + properties + payload
    )


HONEST = [
    packet(0x20, b"\x00\x00\x03\x21\x00\x14"),
    packet(0x40, b"\x00\x01"),
    packet(0x90, b"\x00\x01\x00\x01"),
    packet(0xD0, b""),
    packet(0xE0, b""),
    packet(0xE0, b"\x8b"),
    publish(),
    publish(payload=bytes(LIMIT_BYTES - 50)),
    publish(topic=b"t" * TOPIC_BYTES, properties=bytes(PROPERTIES_BYTES), payload=b"x", qos=0),
]
HOSTILE = {
    "a PUBLISH above the limit": b"\x30" + variable(LIMIT_BYTES),
    "the largest PUBLISH of MQTT": b"\x30" + variable(268_435_455),
    "an answer above its limit": b"\x90" + variable(ANSWER_BYTES + 1),
    "a message that must be kept until its release": publish(qos=2),
    "QoS 3": publish(qos=3),
    "a ping, which would be answered": packet(0xC0, b""),
    "PUBREC": packet(0x50, b"\x00\x01"),
    "PUBREL": packet(0x62, b"\x00\x01"),
    "AUTH": packet(0xF0, b""),
    "an answer to a ping with content": packet(0xD0, b"x"),
    "a topic without end": publish(topic=b"t" * (TOPIC_BYTES + 1)),
    "many properties": publish(properties=bytes(PROPERTIES_BYTES + 1)),
    "a PUBLISH without a topic": packet(0x30, b""),
    "a PUBLISH that ends in its topic": packet(0x30, b"\x00\x0aabc"),
    "a PUBLISH that ends in the length of its properties": packet(0x30, b"\x00\x01a\x80"),
    "a length of five bytes": b"\x30\x80\x80\x80\x80\x01",
    "properties with a length of five bytes": packet(0x30, b"\x00\x01a\x80\x80\x80\x80\x01"),
}


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at `places`, each taken modulo its length."""
    ends = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


@given(st.lists(st.sampled_from(HONEST), max_size=6), st.lists(st.integers(0, 1 << 20), max_size=30))
def test_everything_that_honest_brokers_send_passes_however_it_is_cut(packets: list[bytes], places: list[int]) -> None:
    inspector = Inspector(LIMIT_BYTES)
    for chunk in cut(b"".join(packets), places):
        inspector.take(chunk)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_packet_is_refused_by_its_first_bytes(name: str) -> None:
    inspector = Inspector(LIMIT_BYTES)
    with pytest.raises(PacketRefusedError, match="the broker"):
        inspector.take(HOSTILE[name])


@given(
    st.lists(st.sampled_from(HONEST), max_size=4),
    st.sampled_from(list(HOSTILE.values())),
    st.lists(st.integers(0, 1 << 20), max_size=30),
)
def test_no_cut_hides_a_hostile_packet(before: list[bytes], hostile: bytes, places: list[int]) -> None:
    inspector = Inspector(LIMIT_BYTES)
    with pytest.raises(PacketRefusedError):
        for chunk in cut(b"".join(before) + hostile, places):
            inspector.take(chunk)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_are_accepted_or_refused_alike_however_they_are_cut(stream: bytes, places: list[int]) -> None:
    def refusal(chunks: list[bytes]) -> str | None:
        inspector = Inspector(LIMIT_BYTES)
        try:
            for chunk in chunks:
                inspector.take(chunk)
        except PacketRefusedError as error:
            return str(error)
        return None

    assert refusal([stream]) == refusal(cut(stream, places))
