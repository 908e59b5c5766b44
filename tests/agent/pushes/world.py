"""Provides a fleet that pushes, with real keys and a real repository, and a vehicle that receives."""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile

from agent.formats.down.audience import EVERYONE, Attributes, Audience
from agent.formats.down.bundle import SyncRequest, Versions, build_bundle, parse_bundle
from agent.formats.down.chunks import LARGE_BYTES, large_field
from agent.pushes.pushes import BUILT_AT_S
from agent.pushes.release import Question
from fleet.publishing import repository
from fleet.publishing.publish import Publication, Published, publish
from fleet.publishing.sync import Bundles
from fleet.publishing.targets import target_of
from fleet.state import keys
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord

VEHICLE = Attributes("0f8fad5b-d9cb-469f-a165-70867728950e", "Aria", "One", "DE", 2026)
NOTHING = Versions()
NOW = datetime.now(UTC).replace(microsecond=0)


def toggles(value: bool = True, **more: Any) -> bytes:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on" if value else "off"}
    return json.dumps({"flags": {"new-navigation": flag | more}}).encode()


def campaign(name: str = "drive", period_ms: int = 10_000) -> bytes:
    scheme = {"timeBasedCollectionScheme": {"periodMs": period_ms}}
    return json.dumps({"name": name, "collectionScheme": scheme, "signalsToCollect": [{"name": "*.Speed"}]}).encode()


def noisy_campaign(name: str, packed_bytes: int) -> bytes:
    """Return a campaign that has some `packed_bytes` after compression."""
    noise = "".join(random.Random(name).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=packed_bytes * 3 // 2))
    return json.dumps(json.loads(campaign(name)) | {"description": noise}).encode()


class Fleet:
    """One fleet with its keys and its repository."""

    def __init__(self, path: Path) -> None:
        self.folder = FleetFolder(path)
        self.folder.create()
        for name in (*ROOT_KEYS, "targets", "snapshot", "timestamp"):
            keys.create_ed25519(self.folder.key(name))
        repository.create(self.folder, NOW)
        self.enrol(VEHICLE)
        self._documents = path / "documents"
        self._documents.mkdir()

    @classmethod
    def of(cls, folder: FleetFolder) -> "Fleet":
        """Return the fleet in a folder that exists already, with its keys."""
        fleet = cls.__new__(cls)
        fleet.folder = folder
        fleet._documents = folder.root / "documents"
        fleet._documents.mkdir(exist_ok=True)
        return fleet

    @property
    def root(self) -> bytes:
        return (self.folder.metadata / "1.root.json").read_bytes()

    def signer(self, name: str) -> CryptoSigner:
        return CryptoSigner(keys.read_ed25519(self.folder.key(name)))

    def publish(
        self,
        flags: bytes | None = None,
        *campaigns: bytes,
        audience: Audience = EVERYONE,
        now: datetime = NOW,
        expiry_days: int = 90,
    ) -> Published:
        documents = [("campaign", f"{index}.json", document) for index, document in enumerate(campaigns)]
        if flags is not None:
            documents.append(("toggles", "toggles.json", flags))
        files = []
        for kind, name, document in documents:
            files.append((kind, self._documents / name))
            files[-1][1].write_bytes(document)
        return publish(self.folder, Publication(files=files, audience=audience), now=now, expiry_days=expiry_days)

    def enrol(self, vehicle: Attributes) -> None:
        """Add a vehicle to the registry.  Its certificate is left out, because pushes do not need it."""
        Registry(self.folder.vehicles).add(
            VehicleRecord(**asdict(vehicle), certificate_pem="", partition=0, revoked=False)
        )

    def bundle(self, held: Versions = NOTHING, vehicle: Attributes = VEHICLE) -> bytes:
        return Bundles(self.folder).answer(SyncRequest(vehicle.vehicle, held, software=vehicle.software))

    def files(self, held: Versions = NOTHING) -> dict[str, bytes]:
        return parse_bundle(self.bundle(held))

    def sign_as_is(self, path: str, content: bytes) -> None:
        """Publish a target without validation, as a broken or hostile publisher with the keys could."""
        state = repository.read_state(self.folder.metadata)
        if len(content) > LARGE_BYTES:
            # The fleet's own way of packing takes a minute for the largest documents.
            stored = zstandard.ZstdCompressor(level=1).compress(content)
            custom = {"custom": large_field(content, stored)}
            target = TargetFile(len(stored), {"sha256": hashlib.sha256(stored).hexdigest()}, path, custom)
        else:
            target, stored = target_of(path, content, EVERYONE)
        targets = dict(state.targets.targets) | {path: target}
        bins = state.bins
        repository.write_version(
            self.folder, state.versions, targets, {path: stored}, bins=bins, now=NOW, expiry_days=90
        )

    def rotate_root(self, signed_by: tuple[str, ...], *, replace_key: str = "", add_key: str = "") -> None:
        """Write the next root, signed with the keys `signed_by`.

        `replace_key` names a role that gets a new key, and `add_key` a role that gets a further key.
        """
        version = max(int(path.name.split(".")[0]) for path in self.folder.metadata.glob("*.root.json"))
        metadata: Metadata[Any] = Metadata.from_file(str(self.folder.metadata / f"{version}.root.json"))
        root = metadata.signed
        root.version += 1
        root.expires = NOW + timedelta(days=5000)
        if replace_key:
            root.revoke_key(self.signer(replace_key).public_key.keyid, replace_key)
            keys.create_ed25519(self.folder.key(replace_key))
            root.add_key(self.signer(replace_key).public_key, replace_key)
        if add_key:
            root.add_key(CryptoSigner.generate_ed25519().public_key, add_key)
        metadata.signatures.clear()
        for name in signed_by:
            metadata.sign(self.signer(name), append=True)
        metadata.to_file(str(self.folder.metadata / f"{root.version}.root.json"))


def question(fleet: Fleet, bundle: bytes | Mapping[str, bytes], **changes: Any) -> Question:
    """Return the question about `bundle` of a factory-new vehicle.  `changes` replace fields of the question."""
    basis = Question(
        bundle=bundle if isinstance(bundle, bytes) else build_bundle(bundle),
        trusted_root=fleet.root,
        metadata={},
        contents=(),
        floor=Versions(),
        settled=(),
        now_s=max(int(NOW.timestamp()), BUILT_AT_S),
        vehicle=VEHICLE,
    )
    return msgspec.structs.replace(basis, **changes)


def moved(vehicle: Attributes = VEHICLE, **changes: Any) -> Attributes:
    return replace(vehicle, **changes)
