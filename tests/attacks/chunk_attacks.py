"""Makes chunks of large documents that a vehicle must refuse, and genuine chunks in every order.

A new fault of chunks adds its attack to CHUNK_ATTACKS, and tests/attacks/test_chunks.py plays them all.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.formats.down.chunks import (
    CHUNK_BYTES,
    MESSAGE_BYTES,
    Chunk,
    ChunkName,
    ChunkRequest,
    build_chunk,
    large_file,
    parse_chunk,
)
from agent.pushes.release import Reason
from fleet.publishing import repository
from fleet.publishing.own_documents import read_own_targets
from fleet.publishing.sync import Bundles
from tests.agent.pushes.test_own_documents import give
from tests.agent.pushes.world import campaign, noisy_campaign
from tests.attacks.forgeries import OTHER
from tests.attacks.victim import Victim

FLOOD = 300
"""The number of chunks in a flood, some 30 MB."""


def large_campaign(name: str, content: str) -> bytes:
    """Return a campaign of two chunks.  Another `content` gives other chunks."""
    return json.dumps(json.loads(noisy_campaign(content, 120_000)) | {"name": name}).encode()


@dataclass(frozen=True)
class Siege:
    """What an attacker has while a vehicle waits for chunks: genuine payloads of chunks.

    `wanted` are those that the vehicle waits for, of two documents.  `older` are those of a release that was replaced,
    and `of_other` are those of another vehicle's own document.
    """

    wanted: list[bytes]
    older: list[bytes]
    of_other: list[bytes]

    @classmethod
    def lay(cls, victim: Victim, number: int) -> "Siege":
        """Publish two large documents, and have the chunks of others at hand.  `number` makes the contents new."""
        fleet, vehicle = victim.fleet, victim.vehicle.vehicle
        fleet.publish(None, large_campaign("large", f"older {number}"))
        older = _chunks(victim, vehicle)
        fleet.publish(None, *(large_campaign(name, f"{name} {number}") for name in ("large", "other")))
        return cls(_chunks(victim, vehicle), older[:2], _chunks(victim, OTHER, own=True))

    @property
    def first(self) -> Chunk:
        return parse_chunk(self.wanted[0])


def give_another_vehicle(victim: Victim) -> None:
    """Enrol another vehicle, and give it a document of its own."""
    victim.fleet.enrol(replace(victim.vehicle, vehicle=OTHER))
    give(victim.fleet, OTHER, campaign("theirs"))


def _chunks(victim: Victim, vehicle: str, *, own: bool = False) -> list[bytes]:
    """Return the payloads of all chunks of the large documents for `vehicle`, or of its own documents."""
    folder = victim.fleet.folder
    state = repository.read_state(folder.metadata)
    targets = read_own_targets(folder, state, vehicle)[1] if own else state.targets.targets
    names = []
    for _, target in sorted(targets.items()):
        file = large_file(target.custom, target.hashes["sha256"], target.length)
        if file is not None:
            names += [ChunkName(file.sha256, index) for index in range(len(file.hashes))]
    return Bundles(folder).chunks(ChunkRequest(vehicle, tuple(names)))


def truncated(siege: Siege) -> list[bytes]:
    name, content = siege.first.name, siege.first.content
    return [build_chunk(name, content[:-1]), build_chunk(name, b""), siege.wanted[0][:-1]]


def forged(siege: Siege) -> list[bytes]:
    """Forge the content under a genuine name, and a name that begins as a genuine one does."""
    name, content = siege.first.name, siege.first.content
    other = next(chunk for payload in siege.wanted if (chunk := parse_chunk(payload)).name.sha256 != name.sha256)
    return [
        build_chunk(name, content[:-1] + bytes([content[-1] ^ 1])),
        build_chunk(name, bytes(len(content))),
        build_chunk(name, other.content),
        build_chunk(ChunkName(name.sha256[:16] + other.name.sha256[16:], 0), content),
    ]


def malformed(siege: Siege) -> list[bytes]:
    return [
        b"",
        b"\xff" * 100,
        b"[" * 50_000,
        siege.wanted[0].replace(bytes.fromhex(siege.first.name.sha256), bytes(32), 1)[3:],
    ]


def without_end(siege: Siege) -> list[bytes]:
    """Send more than a message may have, a number beyond the document's end, and chunks without end."""
    name, content = siege.first.name, siege.first.content
    beyond = build_chunk(ChunkName(name.sha256, 2**32 - 1), content)
    stray = [build_chunk(ChunkName(f"{number:064x}", number), bytes(CHUNK_BYTES)) for number in range(FLOOD)]
    return [siege.wanted[0].ljust(MESSAGE_BYTES + 1, b"\0"), beyond, *stray]


def nothing(_: Siege) -> list[bytes]:
    return []


def in_order(siege: Siege) -> list[bytes]:
    return siege.wanted


def shuffled(siege: Siege) -> list[bytes]:
    backwards = siege.wanted[::-1]
    return [*backwards[1:], backwards[0]]


def twice(siege: Siege) -> list[bytes]:
    return [payload for payload in siege.wanted for _ in range(2)]


def interleaved(siege: Siege) -> list[bytes]:
    """Mix the chunks of both documents with those of an older release and of another vehicle."""
    payloads = [*siege.wanted, *siege.older, *siege.of_other]
    random.Random(12).shuffle(payloads)
    return payloads


@dataclass(frozen=True)
class ChunkAttack:
    """One attack.

    The vehicle must refuse each chunk of `forged`, which changes nothing.  Afterwards the chunks of `order` come, and
    the documents must be in force.  `reasons` are those of the receipts.
    """

    name: str
    how: str
    reasons: tuple[Reason, ...] = ()
    forged: Callable[[Siege], list[bytes]] = nothing
    order: Callable[[Siege], list[bytes]] = in_order


CHUNK_ATTACKS = (
    ChunkAttack(
        "a chunk is cut short",
        "The last byte of a chunk, all its bytes, or the end of its message is missing.",
        (Reason.TRUNCATED, Reason.MALFORMED),
        truncated,
    ),
    ChunkAttack(
        "a chunk is forged",
        "A bit is changed, zeros or another document's chunk come under its name, or its name begins as a genuine one.",
        (Reason.TAMPERED, Reason.UNWANTED),
        forged,
    ),
    ChunkAttack(
        "a chunk is malformed",
        "Empty and random messages, nested brackets, and a chunk without the beginning of its message.",
        (Reason.MALFORMED,),
        malformed,
    ),
    ChunkAttack(
        "chunks come without end",
        f"A chunk with a byte too many, one with the number 2^32 - 1, and {FLOOD} chunks of no document.",
        (Reason.OVERSIZED, Reason.UNWANTED),
        without_end,
    ),
    ChunkAttack(
        "chunks of another vehicle",
        "Genuine chunks of another vehicle's own document.",
        (Reason.UNWANTED,),
        lambda siege: siege.of_other,
    ),
    ChunkAttack(
        "chunks of an older release",
        "Genuine chunks of a document that was replaced.",
        (Reason.UNWANTED,),
        lambda siege: siege.older,
    ),
    ChunkAttack("chunks are reordered", "The chunks of two documents come backwards (no harm).", order=shuffled),
    ChunkAttack("chunks are duplicated", "Each chunk comes twice (no harm).", (Reason.DUPLICATE,), order=twice),
    ChunkAttack(
        "chunks are interleaved",
        "Chunks of two documents, of an older release and of another vehicle come mixed (no harm).",
        (Reason.UNWANTED,),
        order=interleaved,
    ),
)
