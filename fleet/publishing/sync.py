"""Answers vehicles that ask for updates, with files of the published repository.  This needs no signing key.

Invariant: an answer holds the newest timestamp and the files that the vehicle lacks.  If the vehicle lacks no file, the
answer holds only the timestamp, which tells the vehicle that it is up to date.  A request says which files the vehicle
has, and the answer leaves these files out.  A false request therefore harms only the vehicle that sent it.

A vehicle gets no document that is for other vehicles, and no answer names another vehicle.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import structlog

from agent.errors import Permanent, Untrusted
from agent.formats import topics
from agent.formats.down.audience import Attributes, matches
from agent.formats.down.bundle import HAVE_BYTES, TIMESTAMP, SyncRequest, build_bundle, parse_request
from agent.link.mqtt import Connection
from fleet.publishing.repository import State, read_state, stored_name
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

KEPT: Final = 64
"""The limit of kept bundles.  A bundle has at most 256 kB, and most have a few kB."""

log = structlog.get_logger()


class Bundles:
    """Builds the answers to vehicles from the repository of one fleet, and keeps them for vehicles that need the same.

    After a nudge, thousands of vehicles ask at once, and most of them lack the same files.  Compressing a bundle takes
    far longer than sending it.
    """

    def __init__(self, folder: FleetFolder) -> None:
        self._folder = folder
        self._registry = Registry(folder.vehicles)
        self._stamp: object = None
        self._state: State | None = None
        self._built: OrderedDict[tuple[str, ...], bytes] = OrderedDict()

    def answer(self, request: SyncRequest) -> bytes:
        """Return the bundle of the files that the vehicle of `request` lacks.

        Raises: Untrusted if the vehicle is not enrolled, or revoked; Permanent if the repository is missing or damaged,
        or if the bundle is too large to send.
        """
        record = self._registry.read(request.vehicle)
        if record is None or record.revoked:
            found = "not enrolled" if record is None else "revoked"
            raise Untrusted(f"The vehicle {request.vehicle} is {found}, so it gets no documents.")
        # Documents may be for certain software, and only the vehicle knows which software it runs now.
        if request.software not in ("", record.software):
            self._registry.note_software(request.vehicle, request.software)
        software = request.software or record.software
        state = self._current_state()
        names = tuple(_missing(state, request, replace(record.attributes, software=software)))
        if names not in self._built:
            self._built[names] = build_bundle({TIMESTAMP: state.timestamp_bytes, **self._read(names)})
            if len(self._built) > KEPT:
                self._built.popitem(last=False)
        self._built.move_to_end(names)
        return self._built[names]

    def _current_state(self) -> State:
        """Return the state of the repository.  If it has changed, read it again and forget the kept bundles."""
        try:
            seen = [path.stat() for path in (self._folder.metadata, self._folder.metadata / "timestamp.json")]
            stamp: object = [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in seen]
        except OSError:
            # read_state says what is missing.
            stamp = None
        if self._state is None or stamp is None or stamp != self._stamp:
            self._built.clear()
            self._state = read_state(self._folder.metadata)
            self._stamp = stamp
        return self._state

    def _read(self, names: Iterable[str]) -> dict[str, bytes]:
        folders = {"metadata": self._folder.metadata, "targets": self._folder.targets}
        files = {}
        try:
            for name in names:
                folder, _, rest = name.partition("/")
                files[name] = (folders[folder] / rest).read_bytes()
        except OSError as error:
            raise Permanent(
                f"The repository's file {error.filename} cannot be read ({error.strerror}). "
                "Please restore the repository from the backup."
            ) from error
        return files


def _missing(state: State, request: SyncRequest, vehicle: Attributes) -> Iterator[str]:
    """Yield the name of each file in the bundle that answers `request`, except the timestamp."""
    current, held = state.versions, request.held
    # Roots must be followed one by one (TUF specification, 5.3), but only the newest snapshot and targets count.
    for version in range(max(held.root, 1) + 1, current.root + 1):
        yield f"metadata/{version}.root.json"
    if held.snapshot != current.snapshot:
        yield f"metadata/{current.snapshot}.snapshot.json"
    if held.targets != current.targets:
        yield f"metadata/{current.targets}.targets.json"
    # A vehicle that has applied or refused this version needs none of its documents again.
    if current.targets not in (request.applied, request.refused):
        for target in state.targets.targets.values():
            sha256 = target.hashes["sha256"]
            if matches(target.custom, sha256, vehicle) and bytes.fromhex(sha256)[:HAVE_BYTES] not in request.have:
                yield f"targets/{stored_name(target)}"


async def answer(connection: Connection, topic: str, payload: bytes, bundles: Bundles) -> None:
    """Answer one request, which came on the topic `hu/v1/sync/<vehicle>`, with a bundle on the vehicle's push topic.

    The broker lets only that vehicle use the topic, so the topic proves which vehicle asks.  A request that cannot be
    parsed, that carries another vehicle's name, or whose vehicle is not enrolled, is logged and gets no answer.

    Raises: Permanent if the repository is damaged; the errors of `Connection.publish` if the answer cannot be sent.
    """
    try:
        vehicle = topics.parse_sync(topic)
        request = parse_request(payload)
        # The broker ties the topic to the client's certificate, but nothing ties the payload to the certificate.
        if request.vehicle != vehicle:
            raise Untrusted(f"A request in the name of vehicle {request.vehicle} came on the topic {topic}.")
        bundle = await asyncio.to_thread(bundles.answer, request)
    except Untrusted as error:
        log.warning("sync_refused", topic=topic[:120], error=str(error))
        return
    await connection.publish(topics.push(vehicle), bundle)
    log.info("sync_answered", vehicle=vehicle, applied=request.applied, bytes=len(bundle))
