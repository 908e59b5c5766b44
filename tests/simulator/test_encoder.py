"""The encoder gives the same bytes as cantools for every message."""

import math
from pathlib import Path

import cantools
import numpy as np
import pytest
from cantools.database.can import Message, Signal
from cantools.database.conversion import BaseConversion
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.encoder import MessageEncoder, compile_message

DBC = Path(__file__).parents[2] / "can_dbc" / "dbc"
MESSAGES = [message for path in sorted(DBC.glob("*.dbc")) for message in cantools.database.load_file(path).messages]
FRAMES = 200


def limits(signal: Signal) -> tuple[int, int]:
    if signal.is_signed:
        return -(1 << signal.length - 1), (1 << signal.length - 1) - 1
    return 0, (1 << signal.length) - 1


def random_raw(message: Message, rng: np.random.Generator) -> np.ndarray:
    """Return columns of random raw values.  Multiplexers get only numbers that the message lists."""
    columns = []
    for signal in message.signals:
        listed = sorted(
            {
                value
                for other in message.signals
                if other.multiplexer_signal == signal.name
                for value in other.multiplexer_ids
            }
        )
        low, high = limits(signal)
        columns.append(rng.choice(listed, FRAMES) if listed else rng.integers(low, high, FRAMES, endpoint=True))
    return np.array(columns, np.int64)


def present(message: Message, values: dict[str, int]) -> set[str]:
    """Return the signals that the multiplexer values of a frame select, by cantools' own tree."""

    def walk(node: str | dict[str, dict[int, list]]) -> set[str]:
        if isinstance(node, str):
            return {node}
        ((selector, branches),) = node.items()
        return {selector}.union(*(walk(child) for child in branches[values[selector]]))

    return set().union(*(walk(node) for node in message.signal_tree))


def by_cantools(message: Message, values: dict[str, float], *, scaling: bool) -> bytes:
    names = present(message, values)
    return message.encode({name: values[name] for name in names}, scaling=scaling, strict=False)


def raw_for_cantools(signal: Signal, raw: int) -> float:
    if not signal.conversion.is_float:
        return raw
    kind = {16: np.float16, 32: np.float32, 64: np.float64}[signal.length]
    return float(np.array([raw], np.int64).view(np.uint8)[: signal.length // 8].view(kind)[0])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_raw_columns_become_the_bytes_of_cantools(message: Message) -> None:
    raw = random_raw(message, np.random.default_rng(1))
    for row, signal in enumerate(message.signals):
        if signal.conversion.is_float:
            raw[row] = np.linspace(-1e6, 1e6, FRAMES).astype(np.float32).view(np.uint32)
    data = compile_message(message).encode_raw(raw)
    assert data.shape == (FRAMES, message.length)
    for frame in range(FRAMES):
        values = {
            signal.name: raw_for_cantools(signal, int(raw[row, frame])) for row, signal in enumerate(message.signals)
        }
        assert data[frame].tobytes() == by_cantools(message, values, scaling=False)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_physical_columns_become_the_bytes_of_cantools(message: Message) -> None:
    rng = np.random.default_rng(2)
    raw = random_raw(message, rng)
    physical = np.empty(raw.shape)
    multiplexers = {signal.multiplexer_signal for signal in message.signals}
    for row, signal in enumerate(message.signals):
        # A value lies between two steps, to test rounding, but within the limits of the signal.
        shift = 0.0 if signal.name in multiplexers else rng.uniform(-0.49, 0.49, FRAMES)
        stepped = np.clip(raw[row] + shift, *limits(signal))
        physical[row] = stepped * signal.conversion.scale + signal.conversion.offset
    data = compile_message(message).encode(physical)
    for frame in range(FRAMES):
        values = {signal.name: float(physical[row, frame]) for row, signal in enumerate(message.signals)}
        assert data[frame].tobytes() == by_cantools(message, values, scaling=True)


def one_signal(
    *,
    start: int,
    length: int,
    big_endian: bool,
    signed: bool = False,
    is_float: bool = False,
    scale: float = 1,
    offset: float = 0,
) -> Message:
    signal = Signal(
        "Value",
        start,
        length,
        "big_endian" if big_endian else "little_endian",
        signed,
        conversion=BaseConversion.factory(scale=scale, offset=offset, is_float=is_float),
    )
    return Message(1, "Wide", 64, [signal], is_fd=True)


@settings(deadline=None)
@given(st.data())
def test_any_position_in_an_fd_frame_becomes_the_bytes_of_cantools(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 64), "length")
    first = data.draw(st.integers(0, 512 - length), "first bit")
    big_endian = data.draw(st.booleans(), "big endian")
    signed = data.draw(st.booleans(), "signed")
    start = 8 * (first // 8) + 7 - first % 8 if big_endian else first
    message = one_signal(start=start, length=length, big_endian=big_endian, signed=signed)
    low, high = limits(message.signals[0])
    value = data.draw(st.integers(low, high), "value")
    raw = np.array([[value & (1 << 64) - 1]], np.uint64).view(np.int64)
    encoded = compile_message(message).encode_raw(raw)
    assert encoded[0].tobytes() == message.encode({"Value": value}, scaling=False)


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("big_endian", [False, True])
def test_ieee_floats_keep_their_value(bits: int, big_endian: bool) -> None:
    message = one_signal(start=7 if big_endian else 3, length=bits, big_endian=big_endian, is_float=True)
    values = np.array([[0.0, -1.5, 0.333, 65504.0, math.inf]])
    for frame, data in enumerate(compile_message(message).encode(values)):
        assert data.tobytes() == message.encode({"Value": float(values[0, frame])}, strict=False)


def test_unsigned_64_bit_values_pass_beyond_int64() -> None:
    message = one_signal(start=0, length=64, big_endian=False)
    assert compile_message(message).encode(np.array([[2.0**63 + 4096]]))[0, :8].tobytes() == (2**63 + 4096).to_bytes(
        8, "little"
    )


@pytest.mark.parametrize("value", [256.0, -1.0, math.nan, math.inf])
def test_a_value_that_does_not_fit_names_its_signal(value: float) -> None:
    encoder = compile_message(one_signal(start=0, length=8, big_endian=False))
    with pytest.raises(ValueError, match=r"Wide\.Value"):
        encoder.encode(np.array([[1.0, value]]))


@pytest.mark.parametrize(("length", "value"), [(63, 2.0**63), (64, 2.0**64)])
def test_a_value_just_beyond_a_wide_signal_is_refused(length: int, value: float) -> None:
    encoder = compile_message(one_signal(start=0, length=length, big_endian=False))
    with pytest.raises(ValueError, match=r"Wide\.Value"):
        encoder.encode(np.array([[value]]))


def test_a_raw_value_that_does_not_fit_names_its_signal() -> None:
    encoder = compile_message(one_signal(start=0, length=8, big_endian=False, signed=True))
    with pytest.raises(ValueError, match=r"Wide\.Value"):
        encoder.encode_raw(np.array([[128]]))


def test_no_frames_give_no_rows() -> None:
    encoder = compile_message(MESSAGES[0])
    assert encoder.encode(np.empty((len(encoder.signals), 0))).shape == (0, encoder.length)


def test_a_missing_column_is_refused() -> None:
    encoder: MessageEncoder = compile_message(MESSAGES[0])
    with pytest.raises(ValueError, match="columns"):
        encoder.encode_raw(np.zeros((1, 1), np.int64))
