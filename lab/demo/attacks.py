"""Three bundles that the vehicle must refuse, made from genuine ones, as somebody with the broker in hand could.

Each is whole, so it reaches the verification that it is meant to fail.
"""

from collections.abc import Mapping

from agent.formats.down.bundle import SyncRequest, Versions, build_bundle, parse_bundle
from fleet.publishing.sync import build_answer
from fleet.state.folder import FleetFolder

NAMES = ("tampered", "rollback", "foreign_key")


def everything(folder: FleetFolder, vehicle: str) -> bytes:
    """The bundle for a vehicle that holds nothing yet."""
    return build_answer(folder, SyncRequest(vehicle, Versions()))


def tampered(genuine: bytes) -> bytes:
    """A genuine bundle with one letter of the toggles changed: no longer what was signed."""
    files = dict(parse_bundle(genuine))
    name = next(name for name in files if name.endswith("toggles.json"))
    files[name] = files[name].replace(b"fleet", b"thief", 1)
    return build_bundle(files)


def attacks(newest: bytes, oldest: bytes, foreign: bytes) -> Mapping[str, bytes]:
    """The three, by NAMES: from the newest bundle, an earlier one of the same fleet, one of another fleet."""
    return dict(zip(NAMES, (tampered(newest), oldest, foreign), strict=True))
