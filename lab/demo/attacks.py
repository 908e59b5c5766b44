"""Three bundles that the vehicle must refuse, made from genuine ones: what an attacker in control of the broker can do.

Each bundle is whole, so that it reaches the verification step that it is meant to fail.
"""

from collections.abc import Mapping
from typing import Final

from agent.formats.down.bundle import SyncRequest, Versions, build_bundle, parse_bundle
from fleet.publishing.sync import build_answer
from fleet.state.folder import FleetFolder

NAMES: Final = ("tampered", "rollback", "foreign_key")


def everything(folder: FleetFolder, vehicle: str) -> bytes:
    """Return the bundle for a vehicle that holds nothing yet."""
    return build_answer(folder, SyncRequest(vehicle, Versions()))


def tampered(genuine: bytes) -> bytes:
    """Return a genuine bundle with one letter of the toggles changed, which is no longer what was signed."""
    files = dict(parse_bundle(genuine))
    name = next(name for name in files if name.endswith("toggles.json"))
    # The length stays the same, so that the hash is wrong and nothing else.
    files[name] = files[name].replace(b"fleet", b"thief", 1)
    return build_bundle(files)


def attacks(newest: bytes, oldest: bytes, foreign: bytes) -> Mapping[str, bytes]:
    """Return the bundles by NAMES, from the newest bundle, an earlier one of the same fleet, one of another fleet."""
    return dict(zip(NAMES, (tampered(newest), oldest, foreign), strict=True))
