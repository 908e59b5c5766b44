"""Computes which samples the lake must hold.  This module is the oracle of the demonstration.

cantools decodes frame by frame, and plain Python applies the campaigns sample by sample (`oracle_campaigns.py`).  The
oracle is slow and simple.  It shares no code with the agent's decoder, campaigns and formats, so it does not share
their errors.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import can
import cantools
from cantools.database.can import Database, Message, Signal
from cantools.database.errors import UnsupportedDatabaseFormatError

from agent.errors import Permanent
from can_dbc.buses import file_and_bus
from lab.demo.blf_scan import scan
from lab.demo.mf4_rows import rows
from lab.demo.oracle_campaigns import OracleCampaign
from lab.demo.oracle_signals import keep_short_names, raw_values, repair_long_names

EXTENDED = 0x8000_0000
NO_DATABASE: Final = "{}: This file is not a CAN database (DBC, ARXML, KCD, SYM). Check --dbc."


@dataclass(frozen=True, slots=True)
class Frame:
    """Holds one frame of the input, from a log or the simulator.  `t_ns` is the time since the Unix epoch."""

    t_ns: int
    bus: str
    can_id: int
    extended: bool
    data: bytes


@dataclass(slots=True)
class Expected:
    """Holds the expected samples as columns.  `frames` counts the frames read, and `decoded` the frames decoded."""

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
    """Read a log, and yield its frames in their order in the log.  python-can reads all formats but BLF and MF4.

    Raises: Permanent if the log is compressed (.zst, .xz or .bz2), or if a part of a binary log is missing.
    """
    # python-can opens only some kinds of compressed logs, so the caller must unpack all of them.
    if path.suffix in {".zst", ".xz", ".bz2"}:
        raise Permanent(f"{path}: The oracle cannot read a compressed log. Give it the unpacked log.")
    if path.suffix.lower() == ".blf":
        for found in scan(path):
            yield Frame(_ns(found.t_s), f"can{found.channel}", found.can_id, found.extended, found.data)
        return
    if path.suffix.lower() == ".mf4":
        for t_s, bus, can_id, extended, data in rows(path):
            yield Frame(_ns(t_s), f"can{bus}", can_id, extended, data)
        return
    with can.LogReader(path) as reader:
        for message in reader:
            data = b"" if message.is_error_frame or message.is_remote_frame else bytes(message.data)
            channel = message.channel if isinstance(message.channel, str) else f"can{message.channel or 0}"
            yield Frame(
                _ns(message.timestamp),
                channel,
                message.arbitration_id,
                message.is_extended_id,
                data,
            )


def _ns(t_s: float) -> int:
    return round(t_s * 1e6) * 1000


def require_cantools(files: Iterable[Path], match: str) -> None:
    """Check that cantools reads the databases `files`.  Raises: Permanent that names the file."""
    _Bus(files, match)


class _Bus:
    """Finds the database's message for each frame of one bus.

    Messages are found by their identifier.  If `match` is "pgn", the messages of extended frames are found by their
    J1939 parameter group number instead.  If two databases define the same message, the first definition is used.
    """

    def __init__(self, files: Iterable[Path], match: str) -> None:
        self._pgn = match == "pgn"
        self._messages: dict[int, Message] = {}
        for path in files:
            file, bus = file_and_bus(path)
            encoding = _encoding(file)
            try:
                database = cantools.database.load_file(file, encoding=encoding, strict=False)
            except UnsupportedDatabaseFormatError as error:
                raise Permanent(
                    f"{file}: cantools, which decodes independently of the agent, refuses this database: {error}. "
                    "Repair the database, or give another one with --dbc."
                ) from error
            # cantools raises ValueError if it does not know a file by its name.
            except ValueError as error:
                raise Permanent(NO_DATABASE.format(file)) from error
            if not isinstance(database, Database):
                raise Permanent(NO_DATABASE.format(file))
            text = file.read_text(encoding, errors="replace")
            for message in database.messages:
                if bus not in (None, message.bus_name):
                    continue
                repair_long_names(message)
                keep_short_names(message, text)
                # With setdefault, the first database that has an identifier wins, as in the agent's settings of a bus.
                self._messages.setdefault(self._key(message.frame_id, message.is_extended_frame), message)

    def _key(self, can_id: int, extended: bool) -> int:
        if not extended:
            return -1 - can_id if self._pgn else can_id
        if not self._pgn:
            return can_id | EXTENDED
        # SAE J1939-21: if the PDU format is below 240, the low byte is a destination and does not belong to the group.
        pgn = (can_id >> 8) & 0x3FFFF
        return pgn & 0x3FF00 if (pgn >> 8) & 0xFF < 240 else pgn

    def message(self, frame: Frame) -> Message | None:
        return self._messages.get(self._key(frame.can_id, frame.extended))

    def sender(self, frame: Frame) -> int | None:
        """Return the J1939 source address of a frame, or None if its message is found by identifier."""
        return frame.can_id % 256 if self._pgn and frame.extended else None


def _encoding(file: Path) -> str:
    try:
        file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


Stage = tuple[Mapping[str, int], Sequence[Mapping[str, Any]]]
"""A set of campaign documents, and the number of frames of each bus before the set took effect."""


def expected_samples(
    frames: Iterable[Frame], databases: Mapping[str, Sequence[Path]], match: str, stages: Sequence[Stage]
) -> Expected:
    """Decode `frames`, apply the campaigns of `stages` to them, and return the expected samples.

    A stage (see `Stage`) names a number of frames for each bus.  After that many frames of a bus, the stage begins on
    this bus.  It ends there when the next stage begins.  A campaign that is unchanged in the next stage keeps its
    state.  A new or changed campaign starts without state.
    """
    buses = {bus: _Bus(files, match) for bus, files in databases.items()}
    campaigns: list[list[OracleCampaign]] = [[]]
    for _, documents in stages:
        known = {campaign.revision: campaign for campaign in campaigns[-1]}
        fresh = [OracleCampaign(document) for document in documents]
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
        raws = raw_values(message, frame.data)
        # A frame that is too short gives no sample.  The agent also collects nothing from it.
        if raws is None:
            continue
        result.decoded += 1
        _collect(result, campaigns[stage], frame, buses[frame.bus].sender(frame), message, raws)
    return result


def _collect(
    result: Expected,
    active: Sequence[OracleCampaign],
    frame: Frame,
    sender: int | None,
    message: Message,
    raws: Mapping[str, Any],
) -> None:
    for name, raw in raws.items():
        signal = f"{message.name}.{name}"
        bits: int | None = None
        for campaign in active:
            rule = campaign.rule(frame.bus, sender, signal)
            if rule is None:
                continue
            definition = message.get_signal_by_name(name)
            # The rule must see every sample, kept or not, because `onChange` compares with the previous sample.
            if bits is None:
                bits = _bits(definition, raw)
            if not rule.keeps(frame.t_ns, bits):
                continue
            # Scaling takes most of cantools' time, so it is done only if a campaign keeps the sample.
            physical = definition.conversion.raw_to_scaled(raw, decode_choices=False)
            assert isinstance(physical, int | float)
            choice = (definition.choices or {}).get(raw) if not definition.is_float else None
            result.campaign.append(campaign.name)
            result.bus.append(frame.bus)
            result.signal.append(signal)
            result.time_us.append(frame.t_ns // 1000)
            result.raw.append(bits)
            result.value.append(float(physical))
            result.text.append(None if choice is None else str(choice))
            result.unit.append(definition.unit)
            result.source_address.append(sender)


def _bits(signal: Signal, raw: float) -> int:
    """Return a raw value as the lake stores it: as a signed 64-bit integer, or as the bit pattern of a float."""
    if signal.is_float:
        pack, unpack = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<q")}[signal.length]
        return int(struct.unpack(unpack, struct.pack(pack, raw))[0])
    value = int(raw)
    return value - (1 << 64) if value >= 1 << 63 else value
