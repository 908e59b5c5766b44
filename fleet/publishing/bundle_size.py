"""Says how large the bundle of a publication is, before anything is signed."""

from collections.abc import Mapping
from typing import Final

from tuf.api.metadata import Metadata, Snapshot, TargetFile, Targets

from agent.errors import Permanent
from agent.formats.down.bundle import BUNDLE_BYTES, OWN_LEVEL, SHARED_LEVEL, TIMESTAMP, build_bundle
from fleet.publishing import repository
from fleet.publishing.bins import largest_bin
from fleet.publishing.large import is_large_target
from fleet.publishing.targets import read_file
from fleet.state.folder import FleetFolder

_LIST_BYTES: Final = 5_000
"""Bytes added for the list of a vehicle's own documents, compressed."""
_SIGNATURES_BYTES: Final = 1_000
"""Bytes added for signatures, because the size of the metadata is checked before it is signed."""


def bundle_bytes(
    folder: FleetFolder,
    state: repository.State,
    targets: Mapping[str, TargetFile],
    stored: Mapping[str, bytes],
    bins: repository.Bins | None,
) -> int:
    """Return the size of the largest bundle, which a vehicle from the factory gets if all documents are for it.

    `stored` has the files of all targets, by path.  `bins` are the hash bins, of which the vehicle gets the largest.

    Raises: Permanent if the bundle would be too large.
    """
    document = Targets(version=state.targets.version + 1, targets=dict(targets))
    snapshot = Snapshot(version=state.snapshot.version + 1, meta={"targets.json": state.snapshot.meta["targets.json"]})
    level, more_bytes = SHARED_LEVEL, _SIGNATURES_BYTES
    if bins is not None:
        document.delegations = bins.delegations
        snapshot.meta |= bins.versions
        level, more_bytes = OWN_LEVEL, _SIGNATURES_BYTES + _LIST_BYTES
    files = {
        TIMESTAMP: Metadata(state.timestamp).to_bytes(),
        "metadata/1.snapshot.json": Metadata(snapshot).to_bytes(),
        "metadata/1.targets.json": Metadata(document).to_bytes(),
    }
    files |= largest_bin(folder, bins)
    for version in range(2, state.root + 1):
        name = f"{version}.root.json"
        files[f"metadata/{name}"] = read_file(folder.metadata / name)
    # Large documents travel in chunks beside the bundle.
    files |= {
        f"targets/{repository.stored_name(target)}": stored[path]
        for path, target in targets.items()
        if not is_large_target(target)
    }
    # A vehicle that holds only the root from the factory needs the largest bundle.
    size = len(build_bundle(files, level)) + more_bytes
    if size > BUNDLE_BYTES:
        raise Permanent(
            f"A vehicle that has no documents yet would need all of them in one bundle of {size:,} bytes, but one "
            f"message holds at most {BUNDLE_BYTES:,}. Remove some documents, or make them smaller."
        )
    return size
