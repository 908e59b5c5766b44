"""Makes three bundles that the vehicle must refuse, as an attacker who controls the broker could make them.

Each bundle is meant to fail at one step of the verification: the hash, the version or the key.  In all other respects
it is well-formed, so that no earlier step refuses it.
"""

from collections.abc import Mapping
from typing import Final

from agent.formats.down.bundle import SyncRequest, Versions, build_bundle, parse_bundle
from fleet.publishing.sync import Bundles
from fleet.state.folder import FleetFolder

NAMES: Final = ("tampered", "rollback", "foreign_key")


def everything(folder: FleetFolder, vehicle: str) -> bytes:
    """Return the genuine bundle of all files for `vehicle`, which a vehicle without any files would get."""
    return Bundles(folder).answer(SyncRequest(vehicle, Versions()))


def tampered(genuine: bytes) -> bytes:
    """Return a copy of a genuine bundle whose toggles differ from the signed toggles in one word."""
    files = dict(parse_bundle(genuine))
    name = next(name for name in files if name.endswith("toggles.json"))
    # The length stays the same, so that only the hash is wrong.
    files[name] = files[name].replace(b"fleet", b"thief", 1)
    return build_bundle(files)


def attacks(newest: bytes, oldest: bytes, foreign: bytes) -> Mapping[str, bytes]:
    """Return the three bundles that the vehicle must refuse.  The keys are the names in NAMES.

    "tampered" is a changed copy of `newest`, the newest bundle of the vehicle's own fleet.  "rollback" is `oldest`, an
    older bundle of the same fleet.  "foreign_key" is `foreign`, a bundle of another fleet.
    """
    return dict(zip(NAMES, (tampered(newest), oldest, foreign), strict=True))
