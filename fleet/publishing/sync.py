"""Answers vehicles that ask for updates, with files of the published repository.  This needs no signing key.

Invariant: an answer holds the newest timestamp and the files that the vehicle lacks.  If the vehicle lacks no file, the
answer holds only the timestamp, which tells the vehicle that it is up to date.  A request says which files the vehicle
has, and the answer leaves these files out.  A false request therefore harms only the vehicle that sent it.
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
    """Return a bundle of the newest timestamp and the files that the vehicle lacks according to `request`.

    Raises: Permanent if the repository is missing or damaged, or if the bundle is too large to send.
    """
    state = read_state(folder.metadata)
    current, held = state.versions, request.held
    names = [f"{version}.root.json" for version in range(max(held.root, 1) + 1, current.root + 1)]
    # Roots must be followed one by one (TUF specification, 5.3), but only the newest snapshot and targets count.
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
        raise Permanent(
            f"The repository's file {error.filename} cannot be read ({error.strerror}). "
            "Please restore the repository from the backup."
        ) from error
    return build_bundle(files)


async def answer(connection: Connection, topic: str, payload: bytes, folder: FleetFolder) -> None:
    """Answer one request, which came on the topic `hu/v1/sync/<vehicle>`, with a bundle on the vehicle's push topic.

    The broker lets only that vehicle use the topic, so the topic proves which vehicle asks.  A request that cannot be
    parsed, or that carries another vehicle's name, is logged and gets no answer.

    Raises: Permanent if the repository is damaged; the errors of `Connection.publish` if the answer cannot be sent.
    """
    try:
        vehicle = topics.parse_sync(topic)
        request = parse_request(payload)
        # The broker ties the topic to the client's certificate, but nothing ties the payload to the certificate.
        if request.vehicle != vehicle:
            raise Untrusted(f"A request in the name of vehicle {request.vehicle} came on the topic {topic}.")
    except Untrusted as error:
        log.warning("sync_refused", topic=topic[:120], error=str(error))
        return
    bundle = await asyncio.to_thread(build_answer, folder, request)
    await connection.publish(topics.push(vehicle), bundle)
    log.info("sync_answered", vehicle=vehicle, applied=request.applied, bytes=len(bundle))
