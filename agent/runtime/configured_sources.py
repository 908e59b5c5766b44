"""Make the sources that the settings ask for.

Making a source opens no interface; the source's method `blocks` does.  `check` and `run` both make the sources here.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from agent.errors import Permanent
from agent.formats.iso_time import ns_of_iso
from agent.formats.up.losses import Reason
from agent.settings.sections import (
    PacketRingSettings,
    PythonCanSettings,
    ReplaySettings,
    VirtualVehicleSettings,
)
from agent.settings.settings import Loaded
from agent.sources import BusLoss, Source, kept_rings, packet_ring, ring_socket
from agent.sources.lean_import import without_asammdf
from agent.system.descriptors import Descriptors
from agent.telemetry.collect.holdings import Holder
from agent.telemetry.losses import Loss

NO_SOURCES: Final = (
    "there are no [[sources]], so the agent collects nothing; it only takes releases and serves toggles; "
    "add a source, as the comments of the agent.toml that came with the agent show"
)


def make_sources(
    loaded: Loaded, on_loss: Callable[[BusLoss], None], descriptors: Descriptors | None = None
) -> tuple[Source, ...]:
    """Make all sources of the settings.

    A source calls `on_loss` for frames that its bus carried but that the source could not deliver.  A ring in
    `descriptors` is closed if its interface is no longer configured.  Raises: Permanent if a source cannot be made.
    """
    if descriptors is not None:
        rings = [source for source in loaded.settings.sources if isinstance(source, PacketRingSettings)]
        kept_rings.drop_unused(descriptors, [source.interface for source in rings])
    return tuple(make_source(loaded, number, on_loss, descriptors) for number in range(len(loaded.settings.sources)))


def make_source(
    loaded: Loaded, number: int, on_loss: Callable[[BusLoss], None], descriptors: Descriptors | None = None
) -> Source:
    """Make source `number` of the settings.

    A log is read once to find its channels, unless the settings name them.  If `descriptors` are given, they keep the
    ring of a source open after the source has ended.  Raises: Permanent if the source cannot be made.
    """
    # The module of a source is imported with the first source of its kind, because python-can and the simulator would
    # double the start-up time of a head unit that captures with packet rings.
    where = f"{loaded.file}: sources[{number}]"
    match loaded.settings.sources[number]:
        case ReplaySettings() as log:
            with without_asammdf():
                from agent.sources import replay  # noqa: PLC0415

            return replay.ReplaySource(loaded.path(log.log), channels=log.channels, speed=log.speed, zone=log.timezone)
        case VirtualVehicleSettings() as vehicle:
            from agent.sources import virtual_vehicle  # noqa: PLC0415

            return virtual_vehicle.VirtualVehicle(
                vehicle.seed,
                _start_ns(vehicle.start, where),
                vehicle.duration_s or None,
                vehicle.speed,
            )
        case PacketRingSettings() as bus if ring_socket.unavailable() is None:
            return packet_ring.PacketRingSource(
                bus=bus.bus,
                interface=bus.interface,
                ring_bytes=bus.ring_bytes,
                on_loss=on_loss,
                descriptors=descriptors,
            )
        case PacketRingSettings() as bus:
            # This process cannot use rings (no CAP_NET_RAW, an old kernel), so python-can reads the same interface at
            # ten times the cost.  An interface that is not set up for CAN FD accepts fd=True as well.
            with without_asammdf():
                from agent.sources import adapter, python_can  # noqa: PLC0415

            opened = adapter.Adapter("socketcan", bus.interface, fd=True)
            return python_can.PythonCanSource(bus.bus, opened, on_loss=on_loss)
        case PythonCanSettings() as bus:
            with without_asammdf():
                from agent.sources import adapter, python_can  # noqa: PLC0415

            opened = adapter.Adapter(bus.interface, bus.channel, bus.bitrate, fd=bus.fd, options=bus.options)
            return python_can.PythonCanSource(bus.bus, opened, on_loss=on_loss)


def source_buses(sources: Sequence[Source]) -> tuple[str, ...]:
    """Return the names of all buses, in the order of the sources.  Raises: Permanent if a bus has two sources."""
    owner: dict[str, str] = {}
    for source in sources:
        for bus in source.buses:
            if bus in owner:
                raise Permanent(
                    f"sources {owner[bus]} and {source.name} both deliver bus {bus}; give that bus another name in one "
                    "of them, or remove one source"
                )
            owner[bus] = source.name
    return tuple(owner)


def try_sources(loaded: Loaded) -> None:
    """Check that all sources can be made, and that no bus has two sources.  Raises: Permanent if a check fails."""
    source_buses(make_sources(loaded, lambda _: None))


def _start_ns(text: str, where: str) -> int:
    if not text:
        return time.time_ns()
    return ns_of_iso(text, f"{where}.start")


def held_in(sources: Sequence[Source]) -> dict[str, str]:
    """Return for each bus the name of the ring or log that holds its frames, or "" if only the agent's memory does."""
    held = {source.name: source.held_in for source in sources if isinstance(source, Holder)}
    return {bus: held.get(source.name, "") for source in sources for bus in source.buses}


def loss_of(lost: BusLoss) -> Loss:
    """Return the record for the ledger of frames that a source could not deliver."""
    return Loss(
        Reason.BUS_OVERFLOW,
        bus=lost.bus,
        detail=lost.detail,
        frames=lost.count,
        first_t_us=lost.first_ns // 1_000,
        last_t_us=lost.last_ns // 1_000,
    )
