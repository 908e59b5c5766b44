"""Compares databases and values with canmatrix, which reads every format with code of its own.

A difference is named by its database, its kind and the message or signal.  `docs/second_opinion.md` explains each one.
"""

import logging
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from io import BytesIO
from typing import Any

import canmatrix
import canmatrix.formats
from canmatrix.canmatrix import DecodingFrameLength

from can_dbc.decoder import Decoder, SignalColumns
from can_dbc.plan import BusPlan, MessagePlan, SignalPlan
from can_dbc.values import Kind, physical, text_keys
from tests.can_dbc.oracle import block_of

Key = tuple[int, bool]
"""The identifier of a message, and whether it has 29 bits."""

INDEPENDENT = 0x4000_0000  # Vector's pseudo-message for signals of no message, which no frame can carry.
FLOATS = {Kind.FLOAT16, Kind.FLOAT32, Kind.FLOAT64}

logging.getLogger("canmatrix").setLevel(logging.CRITICAL)


@dataclass(frozen=True, order=True)
class Difference:
    """`kind` is one word, `subject` is `Message` or `Message.Signal`, and `detail` shows both opinions."""

    kind: str
    subject: str
    detail: str = field(compare=False, default="")


def matrix_of(content: bytes, database_format: str, bus: str = "") -> canmatrix.CanMatrix | None:
    """Return what canmatrix reads, or None if it refuses the file."""
    options = {} if database_format in ("arxml", "kcd") else {f"{database_format}ImportEncoding": _encoding(content)}
    try:
        found = canmatrix.formats.load(BytesIO(content), database_format, **options)
    except Exception:  # noqa: BLE001 - canmatrix documents no errors
        return None
    if isinstance(found, Mapping):
        if bus:
            return found.get(bus)
        if len(found) != 1:
            return None
        (found,) = found.values()
    for frame in found.frames if database_format == "sym" else ():
        frame.size = frame.size or 8  # It reads the keyword DLC of old files, but not Len.
    return found


def _encoding(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def frames_of(matrix: canmatrix.CanMatrix) -> dict[Key, Any]:
    """Return the frames of canmatrix by identifier; of two with the same identifier the later one, as in a plan."""
    return {
        (frame.arbitration_id.id, bool(frame.arbitration_id.extended)): frame
        for frame in matrix.frames
        if frame.arbitration_id.id < INDEPENDENT
    }


def compared(plan: BusPlan, matrix: canmatrix.CanMatrix) -> Iterator[Difference]:
    """Yield the differences of messages, signals, bits, factors and texts."""
    theirs = frames_of(matrix)
    ours = {(message.can_id, message.extended): message for message in plan.messages}
    for key in sorted(theirs.keys() | ours.keys()):
        if key not in theirs:
            yield Difference("only here", ours[key].name)
        elif key not in ours:
            yield Difference("only there", theirs[key].name)
        elif not ours[key].contained:
            yield from _messages(ours[key], theirs[key])


def _messages(message: MessagePlan, frame: Any) -> Iterator[Difference]:
    if message.name != frame.name:
        yield Difference("name", message.name, frame.name)
    if message.length != frame.size:
        yield Difference("length", message.name, f"{message.length} and {frame.size}")
    ours, theirs = defaultdict(list), defaultdict(list)
    for signal in message.signals:
        ours[signal.name].append(_our_facts(message, signal))
    for signal in frame.signals:
        theirs[signal.name].append(_their_facts(frame, signal))
    for name in sorted(ours.keys() | theirs.keys()):
        subject = f"{message.name}.{name}"
        if name not in theirs:
            yield Difference("only here", subject)
        elif name not in ours:
            yield Difference("only there", subject)
        elif len(ours[name]) != len(theirs[name]):
            yield Difference("repeated", subject, f"{len(ours[name])} and {len(theirs[name])}")
        else:
            for our, their in zip(_sorted(ours[name]), _sorted(theirs[name]), strict=True):
                for fact in our:
                    if our[fact] != their[fact]:
                        yield Difference(fact, subject, f"{our[fact]} and {their[fact]}")


def _sorted(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(facts, key=lambda f: (f["selection"], f["place"]))


def _our_facts(message: MessagePlan, signal: SignalPlan) -> dict[str, Any]:
    return {
        "place": (signal.start, signal.bits, signal.big_endian and signal.bits > 1),
        "type": "float" if signal.kind in FLOATS else "signed" if signal.kind is Kind.INT else "unsigned",
        "scale": (signal.scale, signal.offset + 0.0),
        "unit": signal.unit or "",
        "texts": dict(signal.texts),
        "selection": tuple(signal.multiplexer_ids),
    }


def _their_facts(frame: Any, signal: Any) -> dict[str, Any]:
    start = signal.get_startbit(bit_numbering=1)
    texts = {}
    for value, text in signal.values.items():
        texts[_as_raw(int(value), signal)] = str(text)
    selection: Sequence[int] = ()
    if frame.is_complex_multiplexed and signal.muxer_for_signal is not None:
        selection = sorted({n for low, high in signal.mux_val_grp for n in range(int(low), int(high) + 1)})
        selection = selection or ([signal.mux_val] if signal.mux_val is not None else [])
    elif signal.mux_val is not None and not signal.is_multiplexer:
        selection = [signal.mux_val]
    return {
        "place": (start, signal.size, not signal.is_little_endian and signal.size > 1),
        "type": "float" if signal.is_float else "signed" if signal.is_signed else "unsigned",
        "scale": (float(signal.factor), float(signal.offset) + 0.0),
        "unit": signal.unit or "",
        "texts": {raw: text for raw, text in texts.items() if raw is not None},
        "selection": tuple(selection),
    }


def _as_raw(value: int, signal: Any) -> int | None:
    if signal.is_float:
        return value
    low, high = (-(1 << signal.size - 1), 1 << signal.size - 1) if signal.is_signed else (0, 1 << signal.size)
    if not low <= value < high:
        return None  # The signal cannot have this value.
    return value - (1 << 64) if value >> 63 > 0 else value


def compared_values(
    plan: BusPlan, matrix: canmatrix.CanMatrix, payloads: Mapping[Key, Iterable[bytes]]
) -> Iterator[Difference]:
    """Yield the differences of values and texts in frames that both decode; each signal is named once for each kind."""
    theirs = frames_of(matrix)
    messages = {(m.can_id, m.extended): m for m in plan.messages if not m.contained}
    frames = [(*key, data) for key in messages if key in theirs for data in payloads.get(key, ())]
    found: dict[Difference, None] = {}
    for columns in Decoder({0: plan}).decode(block_of(frames)).columns if frames else ():
        frame = theirs[columns.message.can_id, columns.message.extended]
        found.update(dict.fromkeys(_values(columns, frame, frames)))
    yield from found


def random_payloads(plan: BusPlan, count: int, seed: int) -> dict[Key, list[bytes]]:
    """Return `count` random payloads of each message, the same for the same seed."""
    draw = random.Random(seed)
    return {
        (message.can_id, message.extended): [draw.randbytes(message.length) for _ in range(count)]
        for message in plan.messages
        if 0 < message.length <= 64
    }


def _values(columns: SignalColumns, frame: Any, frames: Sequence[tuple[int, bool, bytes]]) -> Iterator[Difference]:
    decoded = [_their_values(frame, frames[row][2]) for row in columns.rows.tolist()]
    names = [signal.name for signal in columns.message.signals]
    their_names = [signal.name for signal in frame.signals]
    for position, index in enumerate(columns.signals):
        signal, raw = columns.message.signals[index], columns.raw[position]
        subject = f"{columns.message.name}.{signal.name}"
        if names.count(signal.name) > 1 or their_names.count(signal.name) != 1:
            continue  # canmatrix keeps one of the values; the lists of signals are compared above.
        values, keys = physical(signal, raw).tolist(), text_keys(signal, raw).tolist()
        for place, theirs in enumerate(decoded):
            if theirs is None:
                continue  # canmatrix refuses this frame.
            valid = columns.valid is None or bool(columns.valid[position, place])
            if valid != (signal.name in theirs):
                yield Difference("selected", subject)
            elif valid:
                their, text = theirs[signal.name], signal.texts.get(keys[place])
                if not _equal(values[place], _physical(their), abs(signal.offset)):
                    yield Difference("value", subject, f"{values[place]!r} and {_physical(their)!r}")
                if text is not None and their.named_value != text:
                    yield Difference("text", subject, f"{text!r} and {their.named_value!r}")


def _their_values(frame: Any, data: bytes) -> Mapping[str, Any] | None:
    try:
        return frame.decode(data[: frame.size])
    except (DecodingFrameLength, ValueError, ArithmeticError, IndexError, UnboundLocalError):
        return None


def _physical(decoded: Any) -> float:
    value = decoded.phys_value
    try:
        return float(value if isinstance(value, (int, float, Decimal)) else decoded.signal.raw2phys(decoded.raw_value))
    except (ArithmeticError, ValueError):
        return math.nan


def _equal(ours: float, theirs: float, offset: float) -> bool:
    """Return whether the values are equal but for rounding: canmatrix computes in decimals, and we in float64."""
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) == math.isnan(theirs)
    return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-12 * offset)
