"""Makes bodies of batches that an enrolled but hostile vehicle might sign.  Several once harmed the receiver."""

from collections.abc import Callable, Mapping

import zstandard

from agent.formats import telemetry_pb2 as pb
from agent.formats.up.limits import (
    MAX_BODY_BYTES,
    MAX_EVENT_FIELDS,
    MAX_EVENTS,
    MAX_LABEL_CHARS,
    MAX_NAME_CHARS,
    MAX_SIGNALS,
    MAX_TEXT_CHARS,
    MAX_VALUES,
)
from tests.fleet.vehicles import T0_US


def body(message: pb.TelemetryBatch) -> bytes:
    """Return the body of a batch, compressed as tightly as an attacker would."""
    return zstandard.ZstdCompressor(level=19).compress(message.SerializeToString())


def _batch() -> pb.TelemetryBatch:
    clock = pb.Clock(quality=pb.CLOCK_QUALITY_NETWORK, boot_id="boot", wall_us=T0_US, boottime_us=5_000_000)
    return pb.TelemetryBatch(
        format=1, campaign="drive", revision="0123456789ab", start_us=T0_US, end_us=T0_US + 1, clock=clock
    )


def one_signal(
    count: int, *, name: str = "A.x", unit: str = "", text: str = "on", columns: int = 1
) -> pb.TelemetryBatch:
    """Return a batch with `columns` constant signals, each of `count` samples, in a few hundred compressed bytes."""
    message = _batch()
    names = [name, *(f"{name}{i}" for i in range(1, columns))]
    message.signals.CopyFrom(
        pb.SignalTable(
            names="\n".join(names),
            strings=["", unit, text],
            buses=[0] * columns,
            types=[0] * columns,
            units=[1],
            kinds=bytes([pb.KIND_UINT]),
            bits=b"\x08",
            scales=bytes(8),
            offsets=bytes(8),
            texts=[1] * columns,
            text_counts=[0, 1],
            text_raws=[0],
            text_values=[2],
        )
    )
    message.columns.CopyFrom(
        pb.Columns(
            sizes=[columns],
            counts=[count],
            unit=1,
            time=pb.Deltas(bases=[0], steps=[1], widths=b"\0"),
            value=pb.Deltas(bases=[0] * columns, steps=[0] * columns, widths=bytes(columns)),
        )
    )
    return message


def _many_events() -> pb.TelemetryBatch:
    message = _batch()
    message.events.extend([pb.Event(t_us=T0_US)] * (MAX_BODY_BYTES // 16))
    return message


def _many_fields() -> pb.TelemetryBatch:
    message = _batch()
    message.events.add(t_us=T0_US, kind="x").fields.extend(
        [pb.EventField(name="a", flag=True)] * (MAX_EVENT_FIELDS + 1)
    )
    return message


def _many_texts() -> pb.TelemetryBatch:
    message = one_signal(1)
    message.signals.text_counts.extend([0] * (MAX_BODY_BYTES // 2))
    return message


def _many_groups() -> pb.TelemetryBatch:
    message = one_signal(1)
    message.columns.sizes.extend([1] * (MAX_BODY_BYTES // 2))
    return message


def _boot_time() -> pb.TelemetryBatch:
    message = one_signal(1)
    message.clock.boottime_us = -(2**63)
    return message


def _campaign() -> pb.TelemetryBatch:
    message = one_signal(1)
    message.campaign = "c" * (MAX_LABEL_CHARS + 1)
    return message


REFUSED: Mapping[str, Callable[[], pb.TelemetryBatch]] = {
    "more events than a vehicle makes": _many_events,
    "one event more than the limit": lambda: _events(MAX_EVENTS + 1),
    "more fields in an event than the limit": _many_fields,
    "more value tables than signals": _many_texts,
    "more groups than signals": _many_groups,
    "more rows than the limit": lambda: one_signal(MAX_VALUES),
    "more columns than the limit": lambda: one_signal(1, columns=MAX_SIGNALS + 1),
    "long texts in many rows": lambda: one_signal(
        MAX_VALUES // 2, name="n" * MAX_NAME_CHARS, unit="u" * MAX_LABEL_CHARS, text="t" * MAX_TEXT_CHARS
    ),
    "a text of megabytes": lambda: one_signal(1, text="t" * (MAX_BODY_BYTES // 2)),
    "a unit of megabytes": lambda: one_signal(3_000, unit="u" * (MAX_BODY_BYTES // 2)),
    "a signal name of megabytes": lambda: one_signal(3_000, name="n" * (MAX_BODY_BYTES // 2)),
    "a long name of a campaign": _campaign,
    "a time since boot that overflows": _boot_time,
}
"""Bodies that must be refused, by what they contain."""


def _events(count: int) -> pb.TelemetryBatch:
    message = _batch()
    message.events.extend([pb.Event(t_us=T0_US, kind="x")] * count)
    return message


def _losses() -> pb.TelemetryBatch:
    message = _batch()
    huge, text = 2**63 - 1, "x"
    reports: tuple[Mapping[str, str | int], ...] = (
        {},
        {"reason": "x", "samples": text, "batches": text},
        {"reason": 7, "lane": 7, "epoch": 7, "id": text},
        {"reason": "x", "batches": huge, "samples": huge, "frames": huge, "first_seq": 1, "last_seq": huge, "id": 1},
        {"reason": "x", "first_seq": 5, "last_seq": 1, "batches": -huge, "id": 2},
        {"reason": "x", "first_t_us": huge, "last_t_us": -huge, "id": 3},
        {"reason": "x", "first_seq": text, "last_seq": 2, "id": 4, "batches": 1},
    )
    for fields in reports:
        event = message.events.add(t_us=T0_US, kind="loss")
        for name, value in fields.items():
            field = event.fields.add(name=name)
            setattr(field, "text" if isinstance(value, str) else "integer", value)
    return message


STORED: Mapping[str, Callable[[], pb.TelemetryBatch]] = {
    "as many rows as the limit allows": lambda: one_signal(MAX_VALUES // 2),
    "as many events as the limit allows": lambda: _events(MAX_EVENTS),
    "line separators and control characters in texts": lambda: one_signal(
        5, name="A.\u2028x", unit="\u2029\x85", text="\x1b[2J\x0b\x0c\x1c\u2028"
    ),
    "loss reports without sense": _losses,
}
"""Bodies that are odd but must be stored, and must then be readable."""
