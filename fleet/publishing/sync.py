"""Answers vehicles that ask for updates, with files of the published repository.  This needs no signing key.

Invariant: an answer holds the newest timestamp and the files that the vehicle lacks.  If the vehicle lacks no file, the
answer holds only the timestamp, which tells the vehicle that it is up to date.  Chunks of large documents are sent to
vehicles that ask for them; no state of a transfer is kept.  A request says which files the vehicle
has, and the answer leaves these files out.  A false request therefore harms only the vehicle that sent it.

A vehicle gets no document that is for other vehicles, and no answer names another vehicle.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import structlog
from tuf.api.metadata import TargetFile

from agent.errors import Permanent, Untrusted
from agent.formats import topics
from agent.formats.down.audience import Attributes, matches
from agent.formats.down.bundle import HAVE_BYTES, OWN_LEVEL, TIMESTAMP, SyncRequest, build_bundle, parse_request
from agent.formats.down.chunks import ChunkRequest, build_chunk, parse_chunk_request
from agent.link.mqtt import Connection
from fleet.publishing.bins import bin_of
from fleet.publishing.large import is_large_target, read_chunk
from fleet.publishing.own_documents import read_own_targets
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
        self._large: dict[str, list[TargetFile]] = {}

    def answer(self, request: SyncRequest) -> bytes:
        """Return the bundle of the files that the vehicle of `request` lacks.

        Raises: Untrusted if the vehicle is not enrolled, or revoked; Permanent if the repository is missing or damaged,
        or if the bundle is too large to send.
        """
        vehicle = self._attributes(request.vehicle, request.software)
        state = self._current_state()
        names = tuple(_missing(state, request, vehicle))
        own = tuple(self._missing_own(state, request))
        if own:
            # Such a bundle is for one vehicle only, so it is not kept.
            return build_bundle({TIMESTAMP: state.timestamp_bytes, **self._read((*names, *own))}, level=OWN_LEVEL)
        if names not in self._built:
            self._built[names] = build_bundle({TIMESTAMP: state.timestamp_bytes, **self._read(names)})
            if len(self._built) > KEPT:
                self._built.popitem(last=False)
        self._built.move_to_end(names)
        return self._built[names]

    def _missing_own(self, state: State, request: SyncRequest) -> Iterator[str]:
        """Yield the names of the vehicle's bin and of its list, if the vehicle lacks them."""
        found = bin_of(state, request.vehicle)
        if found is not None and found[1] != request.held.bin:
            name, version = found
            yield f"metadata/{version}.{name}.json"
            target, _ = read_own_targets(self._folder, state, request.vehicle)
            if target is not None:
                yield f"targets/{stored_name(target)}"

    def chunks(self, request: ChunkRequest) -> list[bytes]:
        """Return the payloads of the chunks that the vehicle of `request` asks for.

        A chunk that does not exist, or that is not for this vehicle, is left out: the vehicle asks for a document that
        is not published any more, and will learn so from the next bundle.  Raises: as `answer`.
        """
        vehicle = self._attributes(request.vehicle)
        state = self._current_state()
        large = self._large_targets(state)
        own: list[TargetFile] | None = None
        payloads = []
        for name in request.chunks:
            target = _first_for(vehicle, name.sha256, large.get(name.sha256, ()))
            if target is None:
                if own is None:
                    own = list(read_own_targets(self._folder, state, request.vehicle)[1].values())
                target = _first_for(vehicle, name.sha256, own)
            if target is not None:
                content = read_chunk(self._folder.targets / stored_name(target), name.index)
                if content:
                    payloads.append(build_chunk(name, content))
        return payloads

    def _attributes(self, vehicle: str, software: str = "") -> Attributes:
        """Return the attributes of `vehicle`, which reports that it runs `software`."""
        record = self._registry.read(vehicle)
        if record is None or record.revoked:
            found = "not enrolled" if record is None else "revoked"
            raise Untrusted(f"The vehicle {vehicle} is {found}, so it gets no documents.")
        # Documents may be for certain software, and only the vehicle knows which software it runs now.
        if software not in ("", record.software):
            self._registry.note_software(vehicle, software)
        return replace(record.attributes, software=software or record.software)

    def _large_targets(self, state: State) -> dict[str, list[TargetFile]]:
        """Return the targets of all large documents by their SHA-256.  They are collected once for each `state`.

        Documents for different vehicles may have the same content, and then have the same SHA-256.
        """
        if not self._large:
            for target in state.targets.targets.values():
                if is_large_target(target):
                    self._large.setdefault(target.hashes["sha256"], []).append(target)
        return self._large

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
            self._large = {}
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


def _first_for(vehicle: Attributes, sha256: str, targets: Iterable[TargetFile]) -> TargetFile | None:
    """Return the first of `targets` that has this hash and is for the vehicle, or None."""
    return next(
        (each for each in targets if each.hashes["sha256"] == sha256 and matches(each.custom, sha256, vehicle)), None
    )


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
            # A vehicle asks for the chunks of large documents itself, after it has verified the bundle.
            if is_large_target(target):
                continue
            if matches(target.custom, sha256, vehicle) and bytes.fromhex(sha256)[:HAVE_BYTES] not in request.have:
                yield f"targets/{stored_name(target)}"


async def answer(connection: Connection, topic: str, payload: bytes, bundles: Bundles) -> int:
    """Answer one request, and return the number of bytes that were sent.

    A request on `hu/v1/sync/<vehicle>` gets a bundle on the vehicle's push topic, and a request on
    `hu/v1/fetch/<vehicle>` gets chunks on its chunk topic.  The broker lets only that vehicle use these topics, so the
    topic proves which vehicle asks.  A request that cannot be parsed, that carries another vehicle's name, or whose
    vehicle is not enrolled, is logged and gets no answer.

    Raises: Permanent if the repository is damaged; the errors of `Connection.publish` if the answer cannot be sent.
    """
    try:
        if topic.startswith(f"{topics.ROOT}/fetch/"):
            return await _send_chunks(connection, topic, payload, bundles)
        return await _send_bundle(connection, topic, payload, bundles)
    except Untrusted as error:
        log.warning("sync_refused", topic=topic[:120], error=str(error))
        return 0


async def _send_bundle(connection: Connection, topic: str, payload: bytes, bundles: Bundles) -> int:
    vehicle = topics.parse_sync(topic)
    request = parse_request(payload)
    _refuse_another(request.vehicle, vehicle, topic)
    bundle = await asyncio.to_thread(bundles.answer, request)
    await connection.publish(topics.push(vehicle), bundle)
    log.info("sync_answered", vehicle=vehicle, applied=request.applied, bytes=len(bundle))
    return len(bundle)


async def _send_chunks(connection: Connection, topic: str, payload: bytes, bundles: Bundles) -> int:
    vehicle = topics.parse_fetch(topic)
    request = parse_chunk_request(payload)
    _refuse_another(request.vehicle, vehicle, topic)
    chunks = await asyncio.to_thread(bundles.chunks, request)
    for chunk in chunks:
        await connection.publish(topics.chunk(vehicle), chunk)
    log.debug("chunks_sent", vehicle=vehicle, chunks=len(chunks))
    return sum(map(len, chunks))


def _refuse_another(named: str, vehicle: str, topic: str) -> None:
    # The broker ties the topic to the client's certificate, but nothing ties the payload to the certificate.
    if named != vehicle:
        raise Untrusted(f"A request in the name of vehicle {named} came on the topic {topic}.")
