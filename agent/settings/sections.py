"""The sections of `agent.toml` as frozen structures: every key with its default and range.  Pure.

`config/agent.toml` explains the meaning, unit and default of each key; a test compares that file with these classes.
The unit is the end of a key's name: `_s`, `_mb` (10^6 bytes), `_kbit_s`.  A value that no owner of a vehicle could
choose sensibly is a constant and not a key (`agent.runtime.limits`, `agent.sources`).

A key whose type is `Remote[...]` can also be set by the fleet, in a pushed `settings.toml` (`agent.settings.remote`).
Every other key belongs to the vehicle alone.  These never become remote: sources, identity, state folders, the ports
for apps, what acknowledges a batch, and the broker's address.  A wrong value of one of them would leave the vehicle
blind, mute or open, and no later push could reach it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, TypeGuard, TypeVar

import msgspec
from msgspec import Meta

_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")

_T = TypeVar("_T")
_REMOTE: Final = "remote"
Remote = Annotated[_T, Meta(extra={_REMOTE: True})]
"""The type of a key that the fleet can set, too.  Nothing else marks a key as remote."""

Seconds = Annotated[float, Meta(gt=0, le=86_400 * 366)]
Speed = Annotated[float, Meta(ge=0, le=10_000)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all sections, which are immutable; an unknown key is an error."""


class ReplaySettings(Section, frozen=True, kw_only=True, tag="replay", tag_field="kind"):
    """A recorded log that is replayed at `speed` times real time; 0 is as fast as possible.

    `timezone` is the zone of dates in the log that name none; empty is the zone of this machine.
    """

    recorded: ClassVar[bool] = True
    log: str
    speed: Speed = 1.0
    channels: tuple[str, ...] = ()
    timezone: str = ""


class VirtualVehicleSettings(Section, frozen=True, kw_only=True, tag="virtual_vehicle", tag_field="kind"):
    """The simulated vehicle of the demonstration, on the buses `can0` and `can1`."""

    recorded: ClassVar[bool] = True
    seed: Annotated[int, Meta(ge=0)] = 1
    start: str = ""
    duration_s: Annotated[float, Meta(ge=0)] = 0.0
    speed: Speed = 1.0


class PythonCanSettings(Section, frozen=True, kw_only=True, tag="python_can", tag_field="kind"):
    """A live bus that is only read, through any interface of python-can (slcan, udp_multicast, virtual, ...)."""

    recorded: ClassVar[bool] = False
    bus: str
    interface: str
    channel: str
    bitrate: Annotated[int, Meta(ge=0)] = 0
    fd: bool = False
    options: dict[str, str | int | float | bool] = {}


class PacketRingSettings(Section, frozen=True, kw_only=True, tag="packet_ring", tag_field="kind"):
    """A live bus of the kernel (SocketCAN) that is only read, through a packet ring."""

    recorded: ClassVar[bool] = False
    bus: str
    # The kernel allows at most 15 bytes without white space, slash and colon (dev_valid_name in net/core/dev.c).
    interface: Annotated[str, Meta(pattern=r"^[^\s/:]{1,15}$")]
    ring_mb: Annotated[int, Meta(ge=1, le=256)] = 8

    @property
    def ring_bytes(self) -> int:
        """Return the memory of the ring in bytes."""
        return self.ring_mb * 1_000_000


LiveSettings = PythonCanSettings | PacketRingSettings
SourceSettings = ReplaySettings | VirtualVehicleSettings | LiveSettings
SOURCE_KINDS: Final = (ReplaySettings, VirtualVehicleSettings, PythonCanSettings, PacketRingSettings)


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """A database with the encoding of its texts, which DBC and SYM files do not name; without one it is detected."""

    file: str
    encoding: str | None = None


class BusSettings(Section, frozen=True, kw_only=True):
    """The databases of one bus, and how the identifiers of frames are matched with the messages of the databases.

    `car.kcd#Body` names the bus Body of a file that describes several buses (`can_dbc/buses.py`).
    """

    dbc: Annotated[tuple[str | DatabaseSettings, ...], Meta(min_length=1)]
    match: Literal["exact", "pgn"] = "exact"

    @property
    def databases(self) -> tuple[DatabaseSettings, ...]:
        """Return the databases in their order, including those that the configuration names by a plain string."""
        return tuple(DatabaseSettings(file=one) if isinstance(one, str) else one for one in self.dbc)


class IdentitySettings(Section, frozen=True, kw_only=True):
    """The identity of the vehicle: the folder that `fleet enrol` wrote, and the version of the software.

    If `software` is empty, it is the version of the agent.
    """

    folder: str = "identity"
    software: Annotated[str, Meta(pattern=r"^[!-~]{0,100}$")] = ""


class StateSettings(Section, frozen=True, kw_only=True):
    """The folder for data that must survive a restart, and the folder for data that need not."""

    folder: str = "/var/lib/headunit-agent"
    runtime_folder: str = "/run/headunit-agent"


class TelemetrySettings(Section, frozen=True, kw_only=True):
    """The folder of campaigns, the length of an increment, the time between checkpoints, and the memory for rings."""

    campaigns: str = "campaigns"
    # A live source delivers its frames every 100 ms, so an increment cannot be shorter.
    increment_s: Remote[Annotated[float, Meta(ge=0.1, le=60)]] = 5.0
    checkpoint_s: Remote[Annotated[float, Meta(ge=0, le=3_600)]] = 5.0
    rings_mb: Remote[Annotated[float, Meta(ge=0, le=10_000)]] = 20.0

    @property
    def rings_max_bytes(self) -> int:
        """Return the memory for the rings of all condition-based campaigns in bytes."""
        return round(self.rings_mb * 1e6)


class SpoolSettings(Section, frozen=True, kw_only=True):
    """The limits of the spool: bytes, age, and free space to leave on the disk."""

    quota_mb: Remote[Annotated[float, Meta(ge=0.1, le=1e9)]] = 256.0
    max_age_s: Remote[Seconds] = 30 * 86_400.0
    reserve_mb: Remote[Annotated[float, Meta(ge=0, le=1e9)]] = 64.0

    @property
    def quota_bytes(self) -> int:
        """Return the quota in bytes."""
        return round(self.quota_mb * 1e6)

    @property
    def reserve_bytes(self) -> int:
        """Return the reserve in bytes."""
        return round(self.reserve_mb * 1e6)


class UplinkSettings(Section, frozen=True, kw_only=True):
    """The connection to the broker and the delivery of batches."""

    broker: str
    # `agent.runtime.limits.UNCONFIRMED_BYTES` has the limit of each profile.
    broker_profile: Literal["standard", "azure_event_grid"] = "standard"
    ack: Literal["receiver", "broker"] = "receiver"
    in_flight: Remote[Annotated[int, Meta(ge=1, le=1_000)]] = 64
    ack_timeout_s: Remote[Seconds] = 20.0
    # MQTT carries whole seconds in 16 bits.  Below 5 s, the pings would keep a modem awake all the time.
    keepalive_s: Remote[Annotated[int, Meta(ge=5, le=3_600)]] = 30
    backoff_max_s: Remote[Annotated[float, Meta(ge=1, le=86_400)]] = 300.0
    backlog_kbit_s: Remote[Annotated[int, Meta(ge=0, le=10_000_000)]] = 4_000
    metered: Remote[bool | Literal["auto"]] = "auto"
    metered_lanes: Remote[tuple[Literal["events", "live", "backlog"], ...]] = ("events", "live", "backlog")
    metered_daily_mb: Remote[Annotated[int, Meta(ge=0, le=1_000_000)]] = 100

    def __post_init__(self) -> None:
        address = _ADDRESS.fullmatch(self.broker)
        if address is None or not 0 < int(address[1]) < 65_536:
            raise ValueError(
                f"broker = {self.broker!r} is not host:port; write it like 'broker.example.org:8883', "
                "with a port from 1 to 65535"
            )
        if "live" in self.metered_lanes and "events" not in self.metered_lanes:
            raise ValueError(
                "metered_lanes has live without events, but events report losses and carry the catalogues that live "
                'data refers to; add "events"'
            )

    @property
    def address(self) -> tuple[str, int]:
        """Return the host, without the brackets of IPv6, and the port."""
        host, _, port = self.broker.rpartition(":")
        return host.strip("[]"), int(port)


class PushesSettings(Section, frozen=True, kw_only=True):
    """The time in which a release from the fleet must prove itself before it counts as good."""

    trial_s: Seconds = 30.0


class ServeSettings(Section, frozen=True, kw_only=True):
    """The HTTP server on loopback: toggles (OFREP) and status."""

    port: Annotated[int, Meta(ge=0, le=65_535)] = 8016
    # Status and toggles are served without authentication, so only programs of the head unit itself may ask.
    host: Literal["127.0.0.1", "::1"] = "127.0.0.1"


class LogSettings(Section, frozen=True, kw_only=True):
    """The level and the style of the log."""

    level: Remote[Literal["debug", "info", "warning", "error"]] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"


def _is_section(kind: object) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)


class Settings(Section, frozen=True, kw_only=True):
    """All sections of `agent.toml`.

    Without `sources` the agent collects nothing, but still takes releases and serves toggles.
    """

    uplink: UplinkSettings
    sources: tuple[SourceSettings, ...] = ()
    bus: dict[str, BusSettings] = {}
    identity: IdentitySettings = IdentitySettings()
    state: StateSettings = StateSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    spool: SpoolSettings = SpoolSettings()
    pushes: PushesSettings = PushesSettings()
    serve: ServeSettings = ServeSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        # The buses of a log are known only after it is read, so `agent.runtime.configured_sources` checks them.
        live = [source.bus for source in self.sources if isinstance(source, LiveSettings)]
        for bus in live:
            if live.count(bus) > 1:
                raise ValueError(f"two sources feed bus {bus!r}; give each its own bus name")


SECTIONS: Final[Mapping[str, type[Section]]] = {
    field.name: field.type for field in msgspec.structs.fields(Settings) if _is_section(field.type)
}
"""The tables of `agent.toml` that have a fixed set of keys, by name."""


def is_remote(section: type[Section], key: str) -> bool:
    """Return whether the fleet can set `key` of `section`."""
    kind = next((field.type for field in msgspec.structs.fields(section) if field.name == key), None)
    marks = getattr(kind, "__metadata__", ())
    return any(isinstance(mark, Meta) and bool((mark.extra or {}).get(_REMOTE)) for mark in marks)


def remote_keys() -> tuple[str, ...]:
    """Return all keys that the fleet can set, such as `uplink.in_flight`, in the order of `agent.toml`."""
    return tuple(
        f"{name}.{key}" for name, kind in SECTIONS.items() for key in kind.__struct_fields__ if is_remote(kind, key)
    )
