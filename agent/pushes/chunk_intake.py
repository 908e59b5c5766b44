"""Fetch the large documents of a release: say which chunks to ask for next, and take the chunks that arrive.

A bundle that names large documents is verified first.  From then on, the record of the push store lists them
(`Record.wanted`), so the transfer goes on after a restart and after days, wherever it stopped.  The release is unpacked
and validated as a whole once all chunks are here.

Invariant: a chunk from outside changes something only if it is a missing chunk of a wanted document and matches its
signed hash prefix.  Any other chunk costs one parse and one hash, and its refusal has a stable reason.  Receipts of
refused chunks are limited, because a broker can send chunks without end and each receipt takes flash.
"""

import time
from collections.abc import Callable
from typing import Final

from agent.errors import Untrusted
from agent.formats.down.chunks import (
    MESSAGE_BYTES,
    REQUESTED,
    Chunk,
    ChunkName,
    LargeFile,
    build_chunk_request,
    matches_chunk,
    parse_chunk,
)
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.release import Reason, Refused
from agent.pushes.store import Store

RECEIPT_S: Final = 600.0
"""At most one receipt of each reason is sent in this time."""


class ChunkIntake:
    """Takes the chunks of the documents that the store wants.

    The methods block.  Only one task may call `take`.
    """

    def __init__(self, store: Store, vehicle: str, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._vehicle = vehicle
        self._clock_s = clock_s
        self._reported_at_s: dict[Reason, float] = {}
        self.refused = 0
        """The number of refused chunks since the start, with and without a receipt."""

    def missing(self) -> list[ChunkName]:
        """Return the next chunks to ask for, at most REQUESTED.  The list is empty if nothing is missing."""
        found: list[ChunkName] = []
        for file in self._store.record.wanted:
            found += [ChunkName(file.sha256, index) for index in self._store.files.missing(file)]
            if len(found) >= REQUESTED:
                break
        return found[:REQUESTED]

    def progress(self) -> dict[str, int]:
        """Return how many chunks the waiting release needs, how many are missing, and how many were refused."""
        wanted, files = self._store.record.wanted, self._store.files
        return {
            "wanted": sum(len(file.hashes) for file in wanted),
            "missing": sum(len(files.missing(file)) for file in wanted),
            "refused": self.refused,
        }

    def request(self, chunks: list[ChunkName]) -> bytes:
        """Return the payload for `hu/v1/fetch/<vehicle>` that asks for `chunks`."""
        return build_chunk_request(self._vehicle, chunks)

    def take(self, payload: bytes) -> PushOutcome | ChunkName | None:
        """Store the chunk in `payload` and return its name, or refuse it.

        A refusal returns its outcome, or None if a receipt with the same reason is not old enough for another one.

        Raises: Transient if the disk is full.
        """
        try:
            file, chunk = self._examine(payload)
        except Refused as refused:
            self.refused += 1
            now_s = self._clock_s()
            if now_s - self._reported_at_s.get(refused.reason, -RECEIPT_S) < RECEIPT_S:
                return None
            self._reported_at_s[refused.reason] = now_s
            return PushOutcome(Result.REFUSED, 0, refused.reason, refused.detail)
        self._store.files.add(file, chunk.name.index, chunk.content)
        return chunk.name

    def _examine(self, payload: bytes) -> tuple[LargeFile, Chunk]:
        """Return the chunk in `payload` and the document that it belongs to.  Raises: Refused."""
        if len(payload) > MESSAGE_BYTES:
            raise Refused(Reason.OVERSIZED, f"the chunk has {len(payload)} bytes, but {MESSAGE_BYTES} is the limit")
        try:
            chunk = parse_chunk(payload)
        except Untrusted as error:
            raise Refused(Reason.MALFORMED, str(error)) from error
        name = chunk.name
        file = next((each for each in self._store.record.wanted if each.sha256 == name.sha256), None)
        if file is None or name.index >= len(file.hashes):
            raise Refused(
                Reason.UNWANTED, f"chunk {name.index} of {name.sha256} belongs to no document that this vehicle fetches"
            )
        length = file.length_of(name.index)
        if len(chunk.content) < length:
            raise Refused(
                Reason.TRUNCATED, f"chunk {name.index} of {name.sha256} has {len(chunk.content)} of {length} bytes"
            )
        if not matches_chunk(file, name.index, chunk.content):
            raise Refused(
                Reason.TAMPERED, f"chunk {name.index} of {name.sha256} does not match the hash in the signed metadata"
            )
        if name.index not in self._store.files.missing(file):
            raise Refused(Reason.DUPLICATE, f"chunk {name.index} of {name.sha256} is here already")
        return file, chunk
