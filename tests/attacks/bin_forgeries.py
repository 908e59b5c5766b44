"""Makes bundles with forged hash bins and lists, which hold the documents of single vehicles.

The attacker has what `forgeries.Scene` says.  The vehicle has a bin of version 2, with a list of its own.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, TargetFile, Targets

from agent.formats.down.bundle import build_bundle
from agent.formats.down.own_list import LIST_BYTES, LIST_DOCUMENTS, list_path
from agent.pushes.release import Reason
from fleet.publishing import repository
from fleet.publishing.bins import bin_of, write_lists
from fleet.publishing.repository import Bins
from tests.agent.pushes.test_own_documents import give
from tests.agent.pushes.world import NOW, Fleet, campaign
from tests.attacks.forgeries import OTHER, Forgery, Scene


def bin_in(files: dict[str, bytes]) -> str:
    """Return the name of the bin in a bundle."""
    return next(name for name in files if ".bin-" in name)


def list_in(files: dict[str, bytes]) -> str:
    """Return the name of the list in a bundle."""
    return next(name for name in files if name.startswith("targets/vehicles/"))


def published(scene: Scene) -> tuple[Fleet, dict[str, bytes]]:
    """Give the vehicle another document in a stolen copy, and return the copy and its files."""
    stolen = scene.steal()
    give(stolen, scene.vehicle.vehicle, campaign("third"))
    return stolen, scene.genuine(stolen)


def of_another_vehicle(scene: Scene) -> Iterator[bytes]:
    """Give another vehicle a bin of the same version, which the same key signs."""
    stolen, files = published(scene)
    other = replace(scene.vehicle, vehicle=OTHER)
    stolen.enrol(other)
    for name in ("one", "two", "three"):
        give(stolen, OTHER, campaign(name))
    files, theirs = scene.genuine(stolen), scene.genuine(stolen, other)
    yield build_bundle(files | {bin_in(files): theirs[bin_in(theirs)]})


def list_of_another_vehicle(scene: Scene) -> Iterator[bytes]:
    stolen, files = published(scene)
    other = replace(scene.vehicle, vehicle=OTHER)
    stolen.enrol(other)
    give(stolen, OTHER, campaign("theirs"))
    theirs = scene.genuine(stolen, other)
    files = scene.genuine(stolen)
    yield build_bundle(files | {list_in(files): theirs[list_in(theirs)]})


def rolled_back(scene: Scene) -> Iterator[bytes]:
    """Deliver an older bin under the new name, and sign a snapshot with an older bin and one without bins."""
    stolen, files = published(scene)
    name = bin_in(files).removeprefix("metadata/").partition(".")[2]
    older = (stolen.folder.metadata / f"2.{name}").read_bytes()
    yield build_bundle(files | {bin_in(files): older})
    state = repository.read_state(stolen.folder.metadata)
    assert state.bins is not None
    first = Bins(state.bins.delegations, {**state.bins.versions, name: MetaFile(1)})
    for bins in (first, None):
        versions = repository.read_state(stolen.folder.metadata).versions
        repository.write_version(stolen.folder, versions, state.targets.targets, {}, bins=bins, now=NOW, expiry_days=90)
        files = scene.genuine(stolen)
        if bins is first:
            files[f"metadata/1.{name}"] = (stolen.folder.metadata / f"1.{name}").read_bytes()
        yield build_bundle(files)


def changed(scene: Scene) -> Iterator[bytes]:
    """Empty the bin without a new signature, sign it with a stranger's key, and leave bin or list out."""
    _, files = published(scene)
    name = bin_in(files)
    bare: Metadata[Targets] = Metadata.from_bytes(files[name])
    bare.signed.targets = {}
    yield build_bundle(files | {name: bare.to_bytes()})
    bare.sign(CryptoSigner.generate_ed25519())
    yield build_bundle(files | {name: bare.to_bytes()})
    for missing in (name, list_in(files)):
        yield build_bundle({each: content for each, content in files.items() if each != missing})


def signed_list(scene: Scene, content: bytes) -> bytes:
    """Return the bundle with `content` as the vehicle's list, which all keys have signed."""
    stolen, vehicle = scene.steal(), scene.vehicle.vehicle
    folder, state = stolen.folder, repository.read_state(stolen.folder.metadata)
    assert state.bins is not None
    target = TargetFile(len(content), {"sha256": hashlib.sha256(content).hexdigest()}, list_path(vehicle))
    bins = write_lists(folder, state.bins, {vehicle: target}, now=NOW)
    repository.write_version(folder, state.versions, state.targets.targets, {}, bins=bins, now=NOW, expiry_days=90)
    state = repository.read_state(folder.metadata)
    found = bin_of(state, vehicle)
    assert found is not None
    # The fleet's own code would not send such a list.
    names = [f"{state.snapshot.version}.snapshot.json", f"{state.targets.version}.targets.json"]
    names += ["timestamp.json", f"{found[1]}.{found[0]}.json"]
    files = scene.genuine() | {f"metadata/{name}": (folder.metadata / name).read_bytes() for name in names}
    return build_bundle(files | {f"targets/{repository.stored_name(target)}": content})


def too_large(scene: Scene) -> Iterator[bytes]:
    yield signed_list(scene, json.dumps({"targets": {}}).encode() + b" " * LIST_BYTES)


def malformed(scene: Scene) -> Iterator[bytes]:
    entry = {"length": 1, "hashes": {"sha256": "ab" * 32}}
    yield signed_list(scene, b'{"targets": ' + b'{"a": ' * 3_000)
    for targets in (
        5,
        {"campaigns/x.json": {"length": -1, "hashes": entry["hashes"]}},
        {"campaigns/x.json": {"length": 1, "hashes": {}}},
        {f"campaigns/x{number}.json": entry for number in range(LIST_DOCUMENTS + 1)},
    ):
        yield signed_list(scene, json.dumps({"targets": targets}).encode())


BIN_FORGERIES = (
    Forgery(
        "a bin of another vehicle",
        "Another vehicle's bin of the same version and key comes in place of the vehicle's own.",
        of_another_vehicle,
        (Reason.MIX_AND_MATCH,),
    ),
    Forgery(
        "a list of another vehicle",
        "The genuine list of another vehicle comes under the name of the vehicle's own.",
        list_of_another_vehicle,
        (Reason.TAMPERED,),
    ),
    Forgery(
        "a bin goes back in version",
        "An older bin comes; stolen keys sign a snapshot with an older bin, and one without bins.",
        rolled_back,
        (Reason.MIX_AND_MATCH, Reason.ROLLBACK),
    ),
    Forgery(
        "a bin is changed",
        "The bin is emptied, signed by a stranger, or missing; the list is missing.",
        changed,
        (Reason.TAMPERED, Reason.FOREIGN_KEY, Reason.TRUNCATED),
    ),
    Forgery("a signed list is too large", "A list has more than 20 KB.", too_large, (Reason.OVERSIZED,)),
    Forgery(
        "a signed list is malformed",
        "A list nests deeply, is no list, has impossible lengths or hashes, or 65 documents.",
        malformed,
        (Reason.MALFORMED,),
    ),
)
