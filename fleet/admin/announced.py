"""Tells whether a document with keys is published.  A difference from the fleet folder means an interrupted command."""

import hashlib

from fleet.publishing.repository import read_state
from fleet.state.folder import FleetFolder


def is_announced(fleet: FleetFolder, path: str, content: bytes) -> bool:
    """Return whether the document `path` is published with this content.  Raises: Permanent, as `read_state` does."""
    target = read_state(fleet.metadata).targets.targets.get(path)
    return target is not None and target.hashes["sha256"] == hashlib.sha256(content).hexdigest()


def was_announced(fleet: FleetFolder, path: str) -> bool:
    """Return whether the document `path` is published at all.  Raises: Permanent, as `read_state` does."""
    return path in read_state(fleet.metadata).targets.targets
