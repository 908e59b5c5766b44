"""What the lake must hold, worked out a second time by other means: cantools decodes frame by frame, plain Python
applies the campaigns sample by sample.

Shares no code with the agent's decoder, policy or codec; that is its purpose.  Slow and simple.  The rules are those
of config/campaigns/README.md: the first sample of a signal is kept, then each one at least `minimumSamplingIntervalMs`
after the last kept one; with `onChange` only samples whose raw value differs from the one before.  Where messages are
found by parameter group (J1939), the samples of each source address are taken for themselves.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import can
import cantools
from cantools.database import DecodeError
from cantools.database.can import Database, Message, Signal

from agent.errors import Permanent

EXTENDED = 0x8000_0000
CLOCK_SET_BACK_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the input, as python-can or the simulator gives it."""

    t_ns: int
    bus: str
    can_id: int
    extended: bool
    data: bytes


@dataclass(slots=True)
class Expected:
    """The samples that must be in the lake, as columns; and what the input held."""

    campaign: list[str] = field(default_factory=list)
    bus: list[str] = field(default_factory=list)
    signal: list[str] = field(default_factory=list)
    time_us: list[int] = field(default_factory=list)
    raw: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    text: list[str | None] = field(default_factory=list)
    unit: list[str | None] = field(default_factory=list)
    source_address: list[int | None] = field(default_factory=list)
    frames: int = 0
    decoded: int = 0

    def __len__(self) -> int:
        return len(self.raw)


def read_log(path: Path) -> Iterator[Frame]:
    """The frames of a log in its own order, by python-can."""
    if path.suffix in {".zst", ".xz", ".bz2"}:
        raise Permanent(f"{path}: give the oracle an unpacked log")
    with can.LogReader(path) as reader:
        for message in reader:
            data = b"" if message.is_error_frame or message.is_remote_frame else bytes(message.data)
            channel = message.channel if isinstance(message.channel, str) else f"can{message.channel or 0}"
            yield Frame(
                round(message.timestamp * 1e6) * 1000,
                channel,
                message.arbitration_id,
                message.is_extended_id,
                data,
            )


class _Rule:
    """One entry of `signalsToCollect` with the state of the one signal it is applied to."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.interval_ns = int(entry.get("minimumSamplingIntervalMs", 0) or 0) * 1_000_000
        self.on_change = bool(entry.get("onChange", False))
        self.last_kept_ns: int | None = None
        self.last_raw: int | None = None

    def keeps(self, t_ns: int, raw: int) -> bool:
        changed = self.last_raw is None or raw != self.last_raw
        self.last_raw = raw
        if self.on_change and not changed:
            return False
        if self.last_kept_ns is not None and self.interval_ns:
            waited_ns = t_ns - self.last_kept_ns
            if -CLOCK_SET_BACK_NS <= waited_ns < self.interval_ns:
                return False
        self.last_kept_ns = t_ns
        return True


class _Campaign:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.name = str(document["name"])
        self.revision = json.dumps(document, sort_keys=True)
        self._entries: Sequence[Mapping[str, Any]] = document["signalsToCollect"]
        self._rules: dict[tuple[str, int | None, str], _Rule | None] = {}

    def rule(self, bus: str, sender: int | None, signal: str) -> _Rule | None:
        key = (bus, sender, signal)
        if key not in self._rules:
            exact = [entry for entry in self._entries if entry["name"] == signal]
            globs = [entry for entry in self._entries if fnmatchcase(signal, entry["name"])]
            found = (exact or globs)[:1]
            self._rules[key] = _Rule(found[0]) if found else None
        return self._rules[key]


class _Bus:
    """The databases of one bus, the first one winning, by identifier or by parameter group number."""

    def __init__(self, files: Iterable[Path], match: str) -> None:
        self._pgn = match == "pgn"
        self._messages: dict[int, Message] = {}
        for file in files:
            database = cantools.database.load_file(file, encoding=_encoding(file), strict=False)
            if not isinstance(database, Database):
                raise Permanent(f"{file}: not a CAN database")
            for message in database.messages:
                self._messages.setdefault(self._key(message.frame_id, message.is_extended_frame), message)

    def _key(self, can_id: int, extended: bool) -> int:
        if not extended:
            return -1 - can_id if self._pgn else can_id
        if not self._pgn:
            return can_id | EXTENDED
        pgn = (can_id >> 8) & 0x3FFFF
        return pgn & 0x3FF00 if (pgn >> 8) & 0xFF < 240 else pgn

    def message(self, frame: Frame) -> Message | None:
        return self._messages.get(self._key(frame.can_id, frame.extended))

    def sender(self, frame: Frame) -> int | None:
        """The source address of J1939."""
        return frame.can_id % 256 if self._pgn and frame.extended else None


def _encoding(file: Path) -> str:
    try:
        file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


Stage = tuple[Mapping[str, int], Sequence[Mapping[str, Any]]]
"""How many frames of each bus came before a set of campaign documents took effect, and the documents."""


def expected_samples(
    frames: Iterable[Frame], databases: Mapping[str, Sequence[Path]], match: str, stages: Sequence[Stage]
) -> Expected:
    """Decode `frames` and apply the campaigns of each stage, in order.

    A campaign that the next stage leaves unchanged goes on where it was; one that is new or changed starts with no
    memory.
    """
    buses = {bus: _Bus(files, match) for bus, files in databases.items()}
    campaigns: list[list[_Campaign]] = [[]]
    for _, documents in stages:
        known = {campaign.revision: campaign for campaign in campaigns[-1]}
        fresh = [_Campaign(document) for document in documents]
        campaigns.append([known.get(campaign.revision, campaign) for campaign in fresh])
    seen: dict[str, int] = {}
    reached: dict[str, int] = {}
    result = Expected()
    for frame in frames:
        count = seen.get(frame.bus, 0)
        seen[frame.bus] = count + 1
        stage = reached.get(frame.bus, 0)
        while stage < len(stages) and count >= stages[stage][0].get(frame.bus, 0):
            stage += 1
        reached[frame.bus] = stage
        result.frames += 1
        message = buses[frame.bus].message(frame) if frame.bus in buses else None
        if message is None or not frame.data:
            continue
        try:
            raws = message.decode_simple(frame.data, decode_choices=False, scaling=False)
        except DecodeError:
            continue
        result.decoded += 1
        _collect(result, campaigns[stage], frame, buses[frame.bus].sender(frame), message, raws)
    return result


def _collect(
    result: Expected,
    active: Sequence[_Campaign],
    frame: Frame,
    sender: int | None,
    message: Message,
    raws: Mapping[str, Any],
) -> None:
    physical: dict[str, Any] | None = None
    for name, raw in raws.items():
        signal = f"{message.name}.{name}"
        bits: int | None = None
        for campaign in active:
            rule = campaign.rule(frame.bus, sender, signal)
            if rule is None:
                continue
            definition = message.get_signal_by_name(name)
            if bits is None:
                bits = _bits(definition, raw)
            if not rule.keeps(frame.t_ns, bits):
                continue
            if physical is None:
                physical = dict(message.decode_simple(frame.data, decode_choices=False, scaling=True))
            choice = (definition.choices or {}).get(raw) if not definition.is_float else None
            result.campaign.append(campaign.name)
            result.bus.append(frame.bus)
            result.signal.append(signal)
            result.time_us.append(frame.t_ns // 1000)
            result.raw.append(bits)
            result.value.append(float(physical[name]))
            result.text.append(None if choice is None else str(choice))
            result.unit.append(definition.unit)
            result.source_address.append(sender)


def _bits(signal: Signal, raw: float) -> int:
    """The raw value as the lake keeps it: a signed 64-bit integer, floats by their bit pattern."""
    if signal.is_float:
        pack, unpack = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<q")}[signal.length]
        return int(struct.unpack(unpack, struct.pack(pack, raw))[0])
    value = int(raw)
    return value - (1 << 64) if value >= 1 << 63 else value
