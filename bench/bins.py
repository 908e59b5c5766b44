"""Measure the metadata that a vehicle downloads in a large fleet in which some vehicles have documents of their own.

    python -m bench.bins [--fleet 34000000] [--percent 1] [--bins 8] [--json]      writes build/bins.json

The pseudonyms of all vehicles with own documents are drawn at random, and hashed into the bins as TUF does.  The
fullest bin and some others are then built by the fleet's own code, with a list for each of their vehicles.  The
snapshot names all bins, with random versions.  The vehicle's own code verifies what the fleet's own code answers.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import MetaFile, SuccinctRoles

from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import SyncRequest, Versions, parse_bundle
from agent.formats.down.own_list import BIN_BITS, BIN_PREFIX, list_path
from agent.pushes.release import Question
from agent.pushes.trust import Trusted, verify
from agent.system.arguments import whole
from fleet.publishing import repository
from fleet.publishing.own_documents import Change, publish_own
from fleet.publishing.sync import Bundles
from fleet.state import keys
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord

LIMIT_BYTES: Final = 60_000
"""What a vehicle may download, by issue 12."""
VERSIONS: Final = 1_000
"""Bins have versions up to this number: some years of publications for single vehicles."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bins", description=__doc__.split("\n")[0])
    parser.add_argument("--fleet", type=whole(1, 10**9), default=34_000_000, help="vehicles (%(default)s)")
    parser.add_argument("--percent", type=float, default=1.0, help="share with own documents (%(default)s)")
    parser.add_argument("--bins", type=whole(1, 1_000), default=8, help="how many bins are built (%(default)s)")
    parser.add_argument("--seed", type=whole(0, 2**32), default=1)
    options = parser.parse_args()
    result = measure(round(options.fleet * options.percent / 100), options.bins, random.Random(options.seed))
    result = {"fleet": options.fleet, "percent": options.percent, **result}
    Path("build").mkdir(exist_ok=True)
    Path("build/bins.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["first_download_bytes"]["largest"] <= LIMIT_BYTES else 1


def measure(individual: int, built: int, chance: random.Random) -> dict[str, Any]:
    """Return the figures of a fleet in which `individual` vehicles have own documents."""
    roles = SuccinctRoles([], 1, BIN_BITS, BIN_PREFIX)
    vehicles: dict[str, list[str]] = {}
    for _ in range(individual):
        vehicle = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        vehicles.setdefault(roles.get_role_for_target(list_path(vehicle)), []).append(vehicle)
    sizes = Counter({name: len(each) for name, each in vehicles.items()})
    fullest = sizes.most_common(1)[0][0]
    sample = [fullest, *chance.sample(sorted(set(vehicles) - {fullest}), min(built, len(vehicles)) - 1)]
    with tempfile.TemporaryDirectory(prefix="bins-") as folder:
        fleet = make_fleet(Path(folder) / "fleet")
        for name in sample:
            give_documents(fleet, vehicles[name])
        name_all_bins(fleet, roles, chance)
        downloads = [download(fleet, chance.choice(vehicles[name])) for name in sample]
    return {
        "individual": individual,
        "bins": roles.number_of_bins,
        "lists_in_a_bin": {"mean": round(statistics.fmean(sizes.values()), 1), "largest": max(sizes.values())},
        "bins_built": len(sample),
        "first_download_bytes": spread([each["first_bytes"] for each in downloads]),
        "update_bytes": spread([each["update_bytes"] for each in downloads]),
        "uncompressed_bytes": {
            role: spread([each["plain"][role] for each in downloads]) for role in ("snapshot", "targets", "bin", "list")
        },
        "verify_cpu_s": spread([each["cpu_s"] for each in downloads]),
        "limit_bytes": LIMIT_BYTES,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the largest value."""
    return {"median": round(statistics.median(values), 3), "largest": round(max(values), 3)}


def make_fleet(path: Path) -> FleetFolder:
    """Create a fleet with keys and an empty repository."""
    folder = FleetFolder(path)
    folder.create()
    for name in (*ROOT_KEYS, "targets", "snapshot", "timestamp"):
        keys.create_ed25519(folder.key(name))
    repository.create(folder, datetime.now(UTC))
    return folder


def give_documents(fleet: FleetFolder, vehicles: list[str]) -> None:
    """Enrol `vehicles`, and publish a campaign of its own for each."""
    changes = {}
    for vehicle in vehicles:
        attributes = Attributes(vehicle, "Aria", "One", "DE", 2026)
        Registry(fleet.vehicles).add(
            VehicleRecord(**asdict(attributes), certificate_pem="", partition=0, revoked=False)
        )
        file = fleet.root / "campaigns" / f"{vehicle}.json"
        file.parent.mkdir(exist_ok=True)
        scheme = {"timeBasedCollectionScheme": {"periodMs": 10_000}}
        signals = [{"name": f"*.Signal{vehicle[:8]}"}]
        file.write_text(
            json.dumps({"name": f"own-{vehicle[:8]}", "collectionScheme": scheme, "signalsToCollect": signals})
        )
        changes[vehicle] = Change([("campaign", file)])
    publish_own(fleet, changes, now=datetime.now(UTC))


def name_all_bins(fleet: FleetFolder, roles: SuccinctRoles, chance: random.Random) -> None:
    """Publish a snapshot that also names the bins that were not built, with random versions."""
    state = repository.read_state(fleet.metadata)
    assert state.bins is not None
    names = [f"{name}.json" for name in roles.get_roles()]
    versions = {name: MetaFile(chance.randint(1, VERSIONS)) for name in names} | dict(state.bins.versions)
    bins = repository.Bins(state.bins.delegations, versions)
    repository.write_version(
        fleet, state.versions, state.targets.targets, {}, bins=bins, now=datetime.now(UTC), expiry_days=90
    )


def download(fleet: FleetFolder, vehicle: str) -> dict[str, Any]:
    """Return what `vehicle` downloads, first with nothing but its root and then after a change of another bin."""
    first = Bundles(fleet).answer(SyncRequest(vehicle, Versions()))
    started_s = time.process_time()
    trusted = check(fleet, vehicle, first)
    cpu_s = time.process_time() - started_s
    plain: dict[str, int] = {}
    for name, content in parse_bundle(first).items():
        role = "list" if name.startswith("targets/") else name.removesuffix(".json").rsplit(".", 1)[-1].split("-")[0]
        plain[role] = len(content)
    # An update in which only another vehicle's documents changed: timestamp, snapshot and targets.
    held = Versions(1, 0, 0, 0, trusted.versions.bin)
    update = Bundles(fleet).answer(SyncRequest(vehicle, held))
    return {"first_bytes": len(first), "update_bytes": len(update), "plain": plain, "cpu_s": cpu_s}


def check(fleet: FleetFolder, vehicle: str, bundle: bytes) -> Trusted:
    """Verify a bundle as the vehicle does; its own document is still missing, because it comes in a chunk."""
    trusted = verify(
        Question(
            bundle=bundle,
            trusted_root=(fleet.metadata / "1.root.json").read_bytes(),
            metadata={},
            contents=(),
            floor=Versions(),
            settled=(),
            now_s=int(time.time()),
            vehicle=Attributes(vehicle, "Aria", "One", "DE", 2026),
        )
    )
    assert len(trusted.wanted) == 1
    return trusted


if __name__ == "__main__":
    sys.exit(main())
