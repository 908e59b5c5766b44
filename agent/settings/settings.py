"""The configuration file `agent.toml`: parsed once, strictly, into frozen structures.

`parse` takes text and gives `Settings`; only `load` reads a file.  Both raise one `Permanent` error that names file,
key and remedy.  An unknown key, a wrong type, a value out of its range and an impossible pair of limits are all errors:
a typing mistake must not become a default.
Relative paths are relative to the folder of the configuration file.  What each key means, its unit, default and reason
stand in `config/agent.toml`; a test holds that file against these classes.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from agent.errors import Permanent

_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400 * 366)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Speed = Annotated[float, Meta(ge=0, le=10_000)]
DrainMs = Annotated[int, Meta(ge=1, le=10_000)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: immutable, keyword-only, no unknown keys."""


class ReplaySource(_Section, frozen=True, kw_only=True, tag="replay", tag_field="kind"):
    """A recorded log, played back at `speed` times real time (0: as fast as possible)."""

    recorded: ClassVar[bool] = True
    log: str
    speed: Speed = 1.0
    channels: tuple[str, ...] = ()
    drain_ms: DrainMs = 50


class VirtualVehicleSource(_Section, frozen=True, kw_only=True, tag="virtual_vehicle", tag_field="kind"):
    """The demonstration vehicle, simulated: seeded, on buses `can0` and `can1`."""

    recorded: ClassVar[bool] = True
    seed: Annotated[int, Meta(ge=0)] = 1
    start: str = ""
    duration_s: Annotated[float, Meta(ge=0)] = 0.0
    speed: Speed = 1.0
    drain_ms: DrainMs = 50


class PythonCanSource(_Section, frozen=True, kw_only=True, tag="python_can", tag_field="kind"):
    """Any live python-can interface: socketcan, slcan, udp_multicast, virtual, …; receives only."""

    recorded: ClassVar[bool] = False
    bus: str
    interface: str
    channel: str
    bitrate: Annotated[int, Meta(ge=0)] = 0
    fd: bool = False
    drain_ms: DrainMs = 100
    buffer_frames: Positive = 65_536
    options: dict[str, str | int | float | bool] = {}


class PacketRingSource(_Section, frozen=True, kw_only=True, tag="packet_ring", tag_field="kind"):
    """A SocketCAN interface through a packet ring; receives only."""

    recorded: ClassVar[bool] = False
    bus: str
    interface: Annotated[str, Meta(pattern=r"^[^\s/:]{1,15}$")]
    drain_ms: DrainMs = 100
    ring_mb: Annotated[int, Meta(ge=1, le=256)] = 8

    @property
    def ring_bytes(self) -> int:
        """The memory of the ring."""
        return self.ring_mb * 1_000_000


LiveSource = PythonCanSource | PacketRingSource
AnySource = ReplaySource | VirtualVehicleSource | LiveSource
_KINDS: Final = (ReplaySource, VirtualVehicleSource, PythonCanSource, PacketRingSource)


class Bus(_Section, frozen=True, kw_only=True):
    """How one bus is decoded."""

    dbc: Annotated[tuple[str, ...], Meta(min_length=1)]
    match: Literal["exact", "pgn"] = "exact"


class Identity(_Section, frozen=True, kw_only=True):
    """Who the vehicle is: the folder that `fleet enrol` made."""

    folder: str = "identity"


class State(_Section, frozen=True, kw_only=True):
    """Where the agent keeps what survives a restart, and what need not."""

    folder: str = "/var/lib/headunit-agent"
    runtime_folder: str = "/run/headunit-agent"


class Telemetry(_Section, frozen=True, kw_only=True):
    """From frames to sealed batches."""

    campaigns: str = "campaigns"
    increment_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    loss_window_s: Annotated[float, Meta(ge=0, le=3_600)] = 5.0
    increment_max_frames: Annotated[int, Meta(ge=1_000, le=2_000_000)] = 10_000
    silence_s: Seconds = 10.0
    window_max_samples: Annotated[int, Meta(ge=1_000, le=50_000_000)] = 500_000
    batch_max_bytes: Annotated[int, Meta(ge=4_096, le=256_000)] = 60_000
    pending_max_bytes: Positive = 8_000_000


class Spool(_Section, frozen=True, kw_only=True):
    """Limits of the durable store."""

    quota_bytes: Annotated[int, Meta(ge=100_000)] = 256_000_000
    max_age_s: Seconds = 30 * 86_400.0
    reserve_bytes: Annotated[int, Meta(ge=0)] = 64_000_000


class Uplink(_Section, frozen=True, kw_only=True):
    """The connection to the broker and the delivery of batches."""

    broker: str
    ack: Literal["receiver", "broker"] = "receiver"
    in_flight: Annotated[int, Meta(ge=1, le=1_000)] = 64
    unconfirmed_bytes: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    ack_timeout_s: Seconds = 20.0
    keepalive_s: Annotated[int, Meta(ge=5, le=3_600)] = 30
    connect_timeout_s: Seconds = 10.0
    backoff_min_s: Seconds = 1.0
    backoff_max_s: Seconds = 300.0
    backlog_kbit_s: Annotated[int, Meta(ge=0, le=10_000_000)] = 4_000
    metered: bool | Literal["auto"] = "auto"
    metered_lanes: tuple[Literal["events", "live", "backlog"], ...] = ("events", "live", "backlog")
    metered_daily_mb: Annotated[int, Meta(ge=0, le=1_000_000)] = 100

    def __post_init__(self) -> None:
        address = _ADDRESS.fullmatch(self.broker)
        if address is None or not 0 < int(address[1]) < 65_536:
            raise ValueError(f"broker = {self.broker!r} is not host:port (1 to 65535), as in 'broker.example.org:8883'")
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError(
                f"backoff_min_s = {self.backoff_min_s} is above backoff_max_s = {self.backoff_max_s}; lower the first"
            )
        if "live" in self.metered_lanes and "events" not in self.metered_lanes:
            raise ValueError(
                "metered_lanes has live without events, which say what is lost and carry what live data is read with; "
                'add "events"'
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host (brackets of IPv6 removed) and port."""
        host, _, port = self.broker.rpartition(":")
        return host.strip("[]"), int(port)


class Pushes(_Section, frozen=True, kw_only=True):
    """Toggles and campaigns from the fleet."""

    trial_s: Seconds = 30.0


class Serve(_Section, frozen=True, kw_only=True):
    """The loopback HTTP server: toggles (OFREP) and status."""

    port: Port = 8016
    host: Literal["127.0.0.1", "::1"] = "127.0.0.1"


class Log(_Section, frozen=True, kw_only=True):
    """What the agent says about itself."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"


class Settings(_Section, frozen=True, kw_only=True):
    """The whole file.  `sources` and `bus` may be empty: then the agent only takes pushes and serves toggles."""

    uplink: Uplink
    sources: tuple[AnySource, ...] = ()
    bus: dict[str, Bus] = {}
    identity: Identity = Identity()
    state: State = State()
    telemetry: Telemetry = Telemetry()
    spool: Spool = Spool()
    pushes: Pushes = Pushes()
    serve: Serve = Serve()
    log: Log = Log()

    def __post_init__(self) -> None:
        if self.telemetry.batch_max_bytes * 2 > self.spool.quota_bytes:
            raise ValueError(
                f"spool.quota_bytes = {self.spool.quota_bytes} holds fewer than two batches of "
                f"telemetry.batch_max_bytes = {self.telemetry.batch_max_bytes}; raise the quota"
            )
        live = [source.bus for source in self.sources if isinstance(source, LiveSource)]
        for bus in live:
            if live.count(bus) > 1:
                raise ValueError(f"two sources feed bus {bus!r}; give each its own bus name")


class Loaded(msgspec.Struct, frozen=True):
    """Settings and the file they came from; resolves the file's relative paths."""

    settings: Settings
    file: Path

    def path(self, name: str) -> Path:
        """`name` as an absolute path; relative names count from the configuration file's folder."""
        return (self.file.parent / Path(name).expanduser()).resolve()


def load(file: Path) -> Loaded:
    """Read and parse `file`.  Raises Permanent that names the file, the key and the remedy."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise Permanent(f"{file}: cannot read the configuration ({error.strerror}); name it with --config") from error
    except UnicodeDecodeError as error:
        raise Permanent(f"{file}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    return Loaded(settings=parse(text, str(file)), file=file.resolve())


def with_replay(loaded: Loaded, log: Path, speed: float) -> Loaded:
    """The same configuration with `log` in the place of all sources.  Raises Permanent for an impossible speed."""
    try:
        source = msgspec.convert(
            {"kind": "replay", "log": str(log.resolve()), "speed": speed}, type=ReplaySource, strict=True
        )
    except msgspec.ValidationError as error:
        what = str(error).partition(" - at ")[0]
        raise Permanent(f"--speed {speed:g}: {what[0].lower()}{what[1:]}") from error
    return Loaded(settings=msgspec.structs.replace(loaded.settings, sources=(source,)), file=loaded.file)


def parse(text: str, name: str) -> Settings:
    """Parse TOML `text`; `name` stands for the file in messages.  Raises Permanent."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Permanent(f"{name}: not valid TOML: {error}") from error
    try:
        return msgspec.convert(document, type=Settings)
    except msgspec.ValidationError as error:
        raise Permanent(f"{name}: {_explain(str(error), document)}") from error


def _explain(message: str, document: Mapping[str, object]) -> str:
    """Turn msgspec's wording into `key: what is wrong; remedy`."""
    what, _, where = message.partition(" - at `")
    key = where.rstrip("`").removeprefix("$").removeprefix(".")
    if key.startswith("bus[...]"):
        key = key.replace("[...]", f".{_offending_bus(document)}", 1)
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown is not None:
        section = _sections().get(re.sub(r"\[\d+\]|(?<=^bus\.).*", "", key), ())
        close = difflib.get_close_matches(unknown[1], section, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(section))}"
        full = f"{key}.{unknown[1]}" if key else unknown[1]
        return f"{full}: no such key; {remedy}"
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing is not None:
        full = f"{key}.{missing[1]}" if key else missing[1]
        return f"{full}: missing; config/agent.toml shows every key with its unit and default"
    value = _value_at(document, key)
    choices = _choices(key)
    if choices and what.startswith("Invalid"):
        return f"{key}: {value!r} is none of {', '.join(choices)}"
    given = f" (given: {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{key}: {what[0].lower()}{what[1:]}{given}" if key else what


def _choices(key: str) -> tuple[str, ...]:
    """What the setting at `key` may be, where it is one of a few words."""
    path = re.sub(r"\[\d+\]", "", key).split(".")
    if path == ["sources", "kind"]:
        return tuple(str(kind.__struct_config__.tag) for kind in _KINDS)
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)} | {"bus": Bus}
    section = sections.get(path[0])
    if not (isinstance(section, type) and issubclass(section, msgspec.Struct)):
        return ()
    found = next((field.type for field in msgspec.structs.fields(section) if field.name == path[-1]), None)
    return _words(found)


def _words(kind: object) -> tuple[str, ...]:
    """The words that a setting of that type takes, or each of several; none where it takes others as well."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    if kind is bool:
        return ("true", "false")
    if get_origin(kind) in (tuple, Union):
        return tuple(word for part in get_args(kind) if part is not Ellipsis for word in _words(part))
    return ()


def _offending_bus(document: Mapping[str, object]) -> str:
    """msgspec does not name the key of a mapping it fails in: find it."""
    buses = document.get("bus")
    for name, table in buses.items() if isinstance(buses, dict) else ():
        try:
            msgspec.convert(table, type=Bus)
        except msgspec.ValidationError:
            return str(name)
    return "*"


def _value_at(document: object, key: str) -> object:
    for part in re.findall(r"[^.\[\]]+", key):
        if isinstance(document, Mapping):
            document = document.get(part)
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def _sections() -> dict[str, tuple[str, ...]]:
    """Key names by section path, for suggestions."""
    sections: dict[str, tuple[str, ...]] = {"": Settings.__struct_fields__, "bus.": Bus.__struct_fields__}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            sections[field.name] = field.type.__struct_fields__
    every = [name for kind in _KINDS for name in kind.__struct_fields__]
    sections["sources"] = tuple(dict.fromkeys(every))
    return sections
