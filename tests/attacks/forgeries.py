"""Makes bundles that a vehicle must refuse, as an attacker on the broker could who may also have stolen keys.

Each has a wrong signature, version, date, hash, size or form.  A new form of transport adds its attacks to FORGERIES,
and tests/attacks/test_pushes.py plays them all.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import zstandard
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from agent.formats import push_pb2
from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import (
    BUNDLE_BYTES,
    FILES,
    FORMAT,
    TIMESTAMP,
    SyncRequest,
    Versions,
    build_bundle,
    parse_bundle,
)
from agent.pushes.release import Reason
from fleet.publishing import repository
from fleet.publishing.sync import Bundles
from fleet.state.folder import FleetFolder
from tests.agent.pushes.world import NOW, Fleet, campaign, toggles

OTHER = "11111111-2222-4333-8444-555555555555"


@dataclass
class Scene:
    """What an attacker has: the vehicle's fleet with all its keys, and what was published before.

    `older` is a genuine bundle that the vehicle once applied.  `revoked` is a key of the timestamp that the root has
    replaced.  `folder` is empty at first.
    """

    fleet: Fleet
    vehicle: Attributes
    older: bytes
    revoked: CryptoSigner
    folder: Path
    copies: int = 0

    def steal(self) -> Fleet:
        """Return a copy of the fleet, which the attacker may change without a trace in the genuine one."""
        self.copies += 1
        stolen = self.folder / f"stolen{self.copies}"
        for name in ("keys", "repository", "vehicles"):
            shutil.copytree(self.fleet.folder.root / name, stolen / name)
        return Fleet.of(FleetFolder(stolen))

    def genuine(self, fleet: Fleet | None = None, vehicle: Attributes | None = None) -> dict[str, bytes]:
        """Return all files that the fleet, or a stolen copy of it, has for a vehicle."""
        asked = SyncRequest((vehicle or self.vehicle).vehicle, Versions())
        return parse_bundle(Bundles((fleet or self.fleet).folder).answer(asked))


Make = Callable[[Scene], Iterator[bytes]]


@dataclass(frozen=True)
class Forgery:
    """One attack.  `make` yields its bundles, each of which must be refused for one of `reasons`."""

    name: str
    how: str
    make: Make
    reasons: tuple[Reason, ...]


def published(scene: Scene) -> tuple[Fleet, dict[str, bytes]]:
    """Publish one more version in a stolen copy, and return the copy and its files."""
    stolen = scene.steal()
    stolen.publish(toggles(False), campaign("stolen"))
    return stolen, scene.genuine(stolen)


def file_of(files: dict[str, bytes], role: str) -> str:
    return next(name for name in files if name.endswith(f"{role}.json") and name.startswith("metadata/"))


def target_of(files: dict[str, bytes]) -> str:
    return next(name for name in files if name.startswith("targets/"))


def tampered_target(scene: Scene) -> Iterator[bytes]:
    _, files = published(scene)
    name = target_of(files)
    content = files[name]
    yield build_bundle(files | {name: content[:-1] + b" "})
    yield build_bundle(files | {name: content + b" "})
    yield build_bundle(files | {name: b""})


def tampered_metadata(scene: Scene) -> Iterator[bytes]:
    _, files = published(scene)
    for role in ("timestamp", "snapshot", "targets"):
        name = file_of(files, role)
        metadata = json.loads(files[name])
        metadata["signed"]["expires"] = "2099-01-01T00:00:00Z"
        yield build_bundle(files | {name: json.dumps(metadata).encode()})


def rolled_back(scene: Scene) -> Iterator[bytes]:
    """Go back in each role.  The attacker has the keys of the roles above, which must list the older version."""
    yield scene.older
    stolen = scene.steal()
    state, files = repository.read_state(stolen.folder.metadata), scene.genuine(stolen)
    versions = state.versions
    older = versions.snapshot - 1
    old_snapshot = (stolen.folder.metadata / f"{older}.snapshot.json").read_bytes()
    stamp = _signed(stolen, Timestamp(versions.timestamp + 1, expires=_later(), snapshot_meta=MetaFile(older)))
    yield build_bundle(files | {TIMESTAMP: stamp, f"metadata/{older}.snapshot.json": old_snapshot})
    old_targets = (stolen.folder.metadata / f"{versions.targets - 1}.targets.json").read_bytes()
    newer = versions.snapshot + 1
    listed = {"targets.json": MetaFile(versions.targets - 1)}
    snapshot = _signed(stolen, Snapshot(newer, expires=_later(), meta=listed))
    stamp = _signed(stolen, Timestamp(versions.timestamp + 1, expires=_later(), snapshot_meta=MetaFile(newer)))
    files |= {f"metadata/{versions.targets - 1}.targets.json": old_targets}
    yield build_bundle(files | {TIMESTAMP: stamp, f"metadata/{newer}.snapshot.json": snapshot})
    old_root = (stolen.folder.metadata / f"{versions.root}.root.json").read_bytes()
    yield build_bundle(scene.genuine() | {f"metadata/{versions.root + 1}.root.json": old_root})


def frozen(scene: Scene) -> Iterator[bytes]:
    stolen = scene.steal()
    stolen.publish(toggles(False), now=NOW - timedelta(days=200), expiry_days=90)
    yield build_bundle(scene.genuine(stolen))


def mixed(scene: Scene) -> Iterator[bytes]:
    stolen, files = published(scene)
    before = repository.read_state(scene.fleet.folder.metadata).versions
    for role, version in (("snapshot", before.snapshot), ("targets", before.targets)):
        old = (stolen.folder.metadata / f"{version}.{role}.json").read_bytes()
        yield build_bundle(files | {file_of(files, role): old})


def below_threshold(scene: Scene) -> Iterator[bytes]:
    stolen = scene.steal()
    stolen.rotate_root(("root1",), replace_key="targets")
    stolen.publish(toggles(False))
    yield build_bundle(scene.genuine(stolen))


def by_revoked_key(scene: Scene) -> Iterator[bytes]:
    _, files = published(scene)
    metadata: Metadata[Any] = Metadata.from_bytes(files[TIMESTAMP])
    metadata.sign(scene.revoked)
    yield build_bundle(files | {TIMESTAMP: metadata.to_bytes()})


def by_another_fleet(scene: Scene) -> Iterator[bytes]:
    scene.copies += 1
    (scene.folder / f"foreign{scene.copies}").mkdir()
    foreign = Fleet(scene.folder / f"foreign{scene.copies}")
    foreign.publish(toggles(False))
    yield foreign.bundle()


def of_another_vehicle(scene: Scene) -> Iterator[bytes]:
    """Both vehicles get a document of their own, and this one gets the bundle of the other."""
    stolen = scene.steal()
    other = replace(scene.vehicle, vehicle=OTHER)
    stolen.enrol(other)
    for name, vehicle in (("mine", scene.vehicle), ("theirs", other)):
        stolen.publish(None, campaign(name), audience=({"vehicle": (vehicle.vehicle,)},))
    yield build_bundle(scene.genuine(stolen, other))


def without_end(scene: Scene) -> Iterator[bytes]:
    files = scene.genuine()
    yield build_bundle(files | {TIMESTAMP: files[TIMESTAMP] + b" " * 600_000})
    yield bytes(BUNDLE_BYTES + 1)


def truncated(scene: Scene) -> Iterator[bytes]:
    _, files = published(scene)
    yield build_bundle(files)[:-1]
    for name in files:
        # A file that the vehicle has already may be missing.
        if files[name] not in scene.genuine().values():
            yield build_bundle({other: content for other, content in files.items() if other != name})


def compressed_bombs(_: Scene) -> Iterator[bytes]:
    """Bundles of some KB that hold 400 MB, ask for a window of 1 GB, or hold more files than a bundle may."""
    yield zstandard.ZstdCompressor(level=3).compress(bytes(400_000_000))
    window = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=1)
    huge = zstandard.ZstdCompressor(compression_params=window).compressobj(size=3_000_000)
    yield huge.compress(bytes(3_000_000)) + huge.flush()
    names = [f"metadata/{number}.targets.json" for number in range(1, FILES + 2)]
    message = push_pb2.Bundle(format=FORMAT, files=dict.fromkeys(names, b""))
    yield zstandard.ZstdCompressor().compress(message.SerializeToString())


def nested_metadata(scene: Scene) -> Iterator[bytes]:
    files = scene.genuine()
    yield build_bundle(files | {TIMESTAMP: b"[" * 400_000})
    yield build_bundle(files | {TIMESTAMP: b'{"signed":' * 40_000})


def _later() -> Any:
    return NOW + timedelta(days=90)


def _signed(fleet: Fleet, signed: Timestamp | Snapshot) -> bytes:
    metadata: Metadata[Any] = Metadata(signed)
    metadata.sign(fleet.signer(signed.type))
    return metadata.to_bytes()


FORGERIES = (
    Forgery(
        "a pushed document is changed",
        "A byte of a target is changed, added or lost.",
        tampered_target,
        (Reason.TAMPERED,),
    ),
    Forgery(
        "pushed metadata is changed",
        "The expiry in timestamp, snapshot or targets is changed.",
        tampered_metadata,
        (Reason.TAMPERED,),
    ),
    Forgery(
        "a push goes back in version",
        "An older bundle is replayed; stolen keys list an older snapshot, older targets and an older root.",
        rolled_back,
        (Reason.ROLLBACK,),
    ),
    Forgery("pushes are frozen", "A bundle has the newest version, and has expired.", frozen, (Reason.EXPIRED,)),
    Forgery(
        "files of two releases are mixed",
        "A newer bundle has the snapshot or the targets of the release before.",
        mixed,
        (Reason.MIX_AND_MATCH,),
    ),
    Forgery(
        "one root key signs alone",
        "One root key of the two that are needed gives targets a new key.",
        below_threshold,
        (Reason.UNDERSIGNED,),
    ),
    Forgery(
        "a revoked key signs a push",
        "The key of the timestamp that the root has replaced signs a newer timestamp.",
        by_revoked_key,
        (Reason.FOREIGN_KEY,),
    ),
    Forgery("another fleet pushes", "Another fleet signs a whole bundle.", by_another_fleet, (Reason.FOREIGN_KEY,)),
    Forgery(
        "a vehicle gets the push of another",
        "Two vehicles get a document each, and the one gets the bundle of the other.",
        of_another_vehicle,
        (Reason.TRUNCATED,),
    ),
    Forgery(
        "a push has no end",
        "The timestamp has 600 KB; the bundle is above its limit.",
        without_end,
        (Reason.OVERSIZED,),
    ),
    Forgery("a push is cut short", "The last byte or one of the files is missing.", truncated, (Reason.TRUNCATED,)),
    Forgery(
        "a push is a compression bomb",
        "KBs that hold 400 MB, ask for a window of 1 GB, or hold too many files.",
        compressed_bombs,
        (Reason.MALFORMED,),
    ),
    Forgery(
        "pushed metadata nests deeply",
        "A timestamp nests 400,000 lists or 40,000 objects.",
        nested_metadata,
        (Reason.TAMPERED,),
    ),
)
