"""Answer vehicles that ask what is new, from the published repository and without any key.

Invariant: an answer has what the vehicle is missing, and always the newest timestamp, so a vehicle that is up to date
learns just that.  What a vehicle claims to hold decides only what is left out, so a false claim harms only that
vehicle.
"""

import asyncio

import structlog

from agent.errors import Permanent, Untrusted
from agent.formats import topics
from agent.formats.down.bundle import HAVE_BYTES, TIMESTAMP, SyncRequest, build_bundle, parse_request
from agent.link.mqtt import Connection
from fleet.publishing.repository import read_state, stored_name
from fleet.state.folder import FleetFolder

log = structlog.get_logger()


def build_answer(folder: FleetFolder, request: SyncRequest) -> bytes:
    """Return the bundle for `request`.

    Raises: Permanent where the repository is missing, damaged, or too large to send.
    """
    state = read_state(folder.metadata)
    current, held = state.versions, request.held
    names = [f"{version}.root.json" for version in range(max(held.root, 1) + 1, current.root + 1)]
    # Only the newest snapshot and targets count; roots must be followed one by one (5.3).
    names += [] if held.snapshot == current.snapshot else [f"{current.snapshot}.snapshot.json"]
    names += [] if held.targets == current.targets else [f"{current.targets}.targets.json"]
    missing = []
    # A vehicle that has applied or refused this version needs none of its documents again.
    if current.targets not in (request.applied, request.refused):
        for target in state.targets.targets.values():
            if bytes.fromhex(target.hashes["sha256"])[:HAVE_BYTES] not in request.have:
                missing.append(stored_name(target))
    try:
        files = {TIMESTAMP: state.timestamp_bytes}
        files |= {f"metadata/{name}": (folder.metadata / name).read_bytes() for name in names}
        files |= {f"targets/{name}": (folder.targets / name).read_bytes() for name in missing}
    except OSError as error:
        raise Permanent(f"cannot read {error.filename}: {error.strerror}; restore the repository") from error
    return build_bundle(files)


async def answer(connection: Connection, topic: str, payload: bytes, folder: FleetFolder) -> None:
    """Answer one message of `hu/v1/sync/<vehicle>` with a bundle on the vehicle's push topic.

    A request that cannot be read is refused with a log line.  A request in another vehicle's name is refused as well:
    the topic, which the broker's access list guards, says which vehicle asks.

    Raises: Permanent for a damaged repository, and what `Connection.publish` raises.
    """
    try:
        vehicle = topics.parse_sync(topic)
        request = parse_request(payload)
        # The broker ties the topic to the certificate of the client, and nothing ties the payload to it.
        if request.vehicle != vehicle:
            raise Untrusted(f"{topic} carries a request of {request.vehicle}")
    except Untrusted as error:
        log.warning("sync_refused", topic=topic[:120], error=str(error))
        return
    bundle = await asyncio.to_thread(build_answer, folder, request)
    await connection.publish(topics.push(vehicle), bundle)
    log.info("sync_answered", vehicle=vehicle, applied=request.applied, bytes=len(bundle))
