"""Settings turned into parts: databases, campaigns, sources, the broker's endpoint.

Reads the files that the settings name.  `check` and `run` both go through here, so what `check` accepts, `run` can build.
Each function raises Permanent that names the file and the remedy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.errors import Permanent
from agent.formats.campaign import Campaign, parse_campaign
from agent.identity import AUTHORITY, DEVICE_CERTIFICATE, DEVICE_KEY, Identity
from agent.link.endpoint import Endpoint
from agent.settings import Loaded, PythonCanSource, ReplaySource, Uplink, VirtualVehicleSource
from agent.sources import Source
from can_dbc.database import load
from can_dbc.errors import DatabaseError
from can_dbc.plan import BusPlan, Match, compile_plan


@dataclass(frozen=True, slots=True)
class CampaignFile:
    """A campaign and where it came from: a file, or a push."""

    source: str
    campaign: Campaign


def bus_plans(loaded: Loaded) -> dict[str, BusPlan]:
    """The compiled databases, by bus."""
    return {name: bus_plan(loaded, name) for name in loaded.settings.bus}


def bus_plan(loaded: Loaded, bus: str) -> BusPlan:
    """The compiled databases of one bus."""
    table = loaded.settings.bus[bus]
    try:
        return compile_plan([load(loaded.path(file)) for file in table.dbc], Match(table.match))
    except DatabaseError as error:
        raise Permanent(f"{loaded.file}: bus.{bus}.dbc: {error}") from error


def local_campaigns(folder: Path) -> tuple[CampaignFile, ...]:
    """The campaigns in `folder` (*.json, by name): what holds until the fleet pushes its own.  Missing: none."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return parse_campaigns((str(file), _read(file)) for file in files)


def parse_campaigns(documents: Iterable[tuple[str, bytes]]) -> tuple[CampaignFile, ...]:
    """Campaigns of (source, JSON) pairs; no two may share a name."""
    found: dict[str, CampaignFile] = {}
    for source, document in documents:
        campaign = parse_campaign(document, source)
        if campaign.name in found:
            raise Permanent(f"{source}: campaign {campaign.name!r} is also in {found[campaign.name].source}; rename one")
        found[campaign.name] = CampaignFile(source, campaign)
    return tuple(found.values())


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path}: {error.strerror}; make it readable for the agent, or remove it") from error
