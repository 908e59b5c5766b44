"""Settings turned into parts: databases, campaigns, sources, the broker's endpoint.

Reads the files that the settings name.  `check` and `run` both go through here, so what `check` accepts, `run` can
build.  Each function raises Permanent that names the file and the remedy.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.errors import Permanent
from agent.formats.down import campaign
from agent.formats.down.campaign import Campaign
from agent.formats.topics import Lane
from agent.link.endpoint import Endpoint
from agent.settings.identity import AUTHORITY, DEVICE_CERTIFICATE, DEVICE_KEY, Identity
from agent.settings.identity import load as load_identity
from agent.settings.plans import bus_plans
from agent.settings.settings import (
    Loaded,
    PacketRingSource,
    PythonCanSource,
    ReplaySource,
    Uplink,
    VirtualVehicleSource,
)
from agent.sources import BusLoss, Source, kept_rings, packet_ring, ring_socket
from agent.system.descriptors import Descriptors
from agent.system.durable import make_folder
from agent.telemetry.uplink.link_policy import LinkPolicy
from can_dbc.plan import BusPlan


@dataclass(frozen=True, slots=True)
class CampaignFile:
    """A campaign and where it came from: a file, or a push."""

    source: str
    campaign: Campaign


@dataclass(frozen=True, slots=True)
class Parts:
    """A configuration with what its files say: all that can be read before anything is opened.

    `state` and `runtime_folder` exist.
    """

    loaded: Loaded
    identity: Identity
    state: Path
    runtime_folder: Path
    plans: Mapping[str, BusPlan]
    local: tuple[CampaignFile, ...]

    def same_but_campaigns(self, other: "Parts") -> bool:
        """Whether a running agent need only exchange its campaigns to go from `other` to these."""
        return (self.loaded, self.identity, self.plans) == (other.loaded, other.identity, other.plans)


def read_parts(loaded: Loaded) -> Parts:
    """Read the files that `loaded` names, but for the sources, and make its folders.  Blocking."""
    settings = loaded.settings
    return Parts(
        loaded,
        load_identity(loaded.path(settings.identity.folder)),
        _make_folder(loaded, "folder", settings.state.folder, mode=0o700),
        _make_folder(loaded, "runtime_folder", settings.state.runtime_folder, mode=0o755),  # flagd's file is for apps
        bus_plans(loaded),
        local_campaigns(loaded.path(settings.telemetry.campaigns)),
    )


def local_campaigns(folder: Path) -> tuple[CampaignFile, ...]:
    """The campaigns in `folder` (*.json, by name): what holds until the fleet pushes its own.  Missing: none."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return parse_campaigns((str(file), _read(file)) for file in files)


def parse_campaigns(documents: Iterable[tuple[str, bytes]]) -> tuple[CampaignFile, ...]:
    """Parse campaigns of (source, JSON) pairs, of which no two may share a name.  Raises Permanent."""
    return tuple(CampaignFile(source, parsed) for source, parsed in campaign.parse_campaigns(documents))


def make_sources(
    loaded: Loaded, on_loss: Callable[[BusLoss], None], descriptors: Descriptors | None = None
) -> tuple[Source, ...]:
    """All sources; `on_loss` hears of frames that a live bus delivered and nobody could take."""
    if descriptors is not None:
        rings = [source for source in loaded.settings.sources if isinstance(source, PacketRingSource)]
        kept_rings.drop_unused(descriptors, [source.interface for source in rings])
    return tuple(make_source(loaded, number, on_loss, descriptors) for number in range(len(loaded.settings.sources)))


def make_source(
    loaded: Loaded, number: int, on_loss: Callable[[BusLoss], None], descriptors: Descriptors | None = None
) -> Source:
    """Source `number` of the settings.  Logs are read once to find their channels, unless the settings name them.

    A packet ring that this process cannot have becomes python-can on the same interface.  `descriptors`: where rings
    outlive the source.  A source's module is imported with the first source of its kind: python-can and the simulator
    cost a head unit that captures with rings half of its start otherwise.
    """
    where = f"{loaded.file}: sources[{number}]"
    match loaded.settings.sources[number]:
        case ReplaySource() as log:
            from agent.sources import replay  # noqa: PLC0415

            return replay.ReplaySource(
                loaded.path(log.log), channels=log.channels, speed=log.speed, drain_ms=log.drain_ms
            )
        case VirtualVehicleSource() as vehicle:
            from agent.sources import virtual_vehicle  # noqa: PLC0415

            return virtual_vehicle.VirtualVehicle(
                vehicle.seed,
                _start_ns(vehicle.start, where),
                vehicle.duration_s or None,
                vehicle.speed,
                drain_ms=vehicle.drain_ms,
            )
        case PacketRingSource() as bus if ring_socket.unavailable() is None:
            return packet_ring.PacketRingSource(
                bus=bus.bus,
                interface=bus.interface,
                drain_ms=bus.drain_ms,
                ring_bytes=bus.ring_bytes,
                on_loss=on_loss,
                descriptors=descriptors,
            )
        case PacketRingSource() as bus:
            from agent.sources import adapter, python_can  # noqa: PLC0415

            opened = adapter.Adapter("socketcan", bus.interface, fd=True)
            limits = python_can.Limits(drain_ms=bus.drain_ms)
            return python_can.PythonCanSource(bus.bus, opened, on_loss=on_loss, limits=limits)
        case PythonCanSource() as bus:
            from agent.sources import adapter, python_can  # noqa: PLC0415

            opened = adapter.Adapter(bus.interface, bus.channel, bus.bitrate, fd=bus.fd, options=bus.options)
            limits = python_can.Limits(drain_ms=bus.drain_ms, buffer_frames=bus.buffer_frames)
            return python_can.PythonCanSource(bus.bus, opened, on_loss=on_loss, limits=limits)


def source_buses(sources: Sequence[Source]) -> tuple[str, ...]:
    """The names of all buses, in the order of the sources.  Raises Permanent where two deliver the same one."""
    owner: dict[str, str] = {}
    for source in sources:
        for bus in source.buses:
            if bus in owner:
                raise Permanent(f"sources {owner[bus]} and {source.name} both deliver bus {bus}; rename or drop one")
            owner[bus] = source.name
    return tuple(owner)


def try_sources(loaded: Loaded) -> None:
    """Find the mistakes that `make_sources` would find, and touch nothing."""
    source_buses(make_sources(loaded, lambda _: None))


def _make_folder(loaded: Loaded, key: str, name: str, *, mode: int) -> Path:
    """The folder, made with `mode` whatever the umask says; one that is there stays as it is."""
    folder = loaded.path(name)
    try:
        if not folder.is_dir():
            make_folder(folder)
            folder.chmod(mode)
    except OSError as error:
        raise Permanent(
            f"{loaded.file}: state.{key}: cannot make {folder} ({error.strerror}); name one that the agent may write"
        ) from error
    return folder


def _start_ns(text: str, where: str) -> int:
    if not text:
        return time.time_ns()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Permanent(f"{where}.start: {text!r} is no ISO 8601 time, such as 2026-07-01T08:00:00Z") from error
    if moment.tzinfo is None:
        raise Permanent(f"{where}.start: {text!r} has no time zone; append Z for UTC")
    return round(moment.timestamp() * 1_000_000) * 1_000


def endpoint(identity: Identity, uplink: Uplink) -> Endpoint:
    """The broker, and this vehicle's certificate for it."""
    host, port = uplink.address
    return Endpoint(
        host=host,
        port=port,
        ca_file=identity.folder / AUTHORITY,
        cert_file=identity.folder / DEVICE_CERTIFICATE,
        key_file=identity.folder / DEVICE_KEY,
        client_id=identity.vehicle,
        keepalive_s=uplink.keepalive_s,
        timeout_s=uplink.connect_timeout_s,
    )


def link_policy(uplink: Uplink) -> LinkPolicy:
    """Which lanes may use which link."""
    lanes = frozenset(lane for lane in Lane if lane.label in uplink.metered_lanes)
    return LinkPolicy(lanes, uplink.metered_daily_mb * 1_000_000)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path}: {error.strerror}; make it readable for the agent, or remove it") from error
