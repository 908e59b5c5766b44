"""Publishes releases without the checks of `fleet publish`, as a fleet that has made a mistake, or a thief, could."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

from agent.formats.down.audience import EVERYONE
from fleet.publishing import repository
from fleet.publishing.nudge import nudge
from fleet.publishing.targets import target_of
from fleet.state.folder import FleetFolder

EXPIRY_DAYS = 90


def sign(fleet: FleetFolder, documents: Mapping[str, bytes], fleet_port: int | None = None) -> int:
    """Make `documents`, by path, the whole release, and return its version.  Nudge the vehicles if a port is given."""
    state = repository.read_state(fleet.metadata)
    made = {path: target_of(path, content, EVERYONE) for path, content in documents.items()}
    targets = {path: target for path, (target, _) in made.items()}
    contents = {path: content for path, (_, content) in made.items()}
    now = datetime.now(UTC)
    versions = repository.write_version(
        fleet, state.versions, targets, contents, bins=None, now=now, expiry_days=EXPIRY_DAYS
    )
    if fleet_port is not None:
        asyncio.run(nudge(fleet, "localhost", fleet_port))
    return versions.targets
