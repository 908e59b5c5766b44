"""Attacks on large documents: a running agent refuses forged chunks, and puts the genuine ones together."""

import hashlib
import os
import time
from collections.abc import Iterator

import pytest
import zstandard
from tuf.api.metadata import TargetFile

from agent.formats import topics
from agent.formats.down.chunks import DOCUMENT_BYTES, large_field
from agent.pushes.release import Reason
from bench.process_costs import memory_kb
from fleet.publishing import repository
from tests.agent.pushes.world import NOW, campaign, toggles
from tests.attack_report import PUSHES, RecordAttack
from tests.attacks.chunk_attacks import CHUNK_ATTACKS, ChunkAttack, Siege, give_another_vehicle
from tests.attacks.victim import PATIENCE_S, Victim

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ALL = "ATTACK_SECONDS" in os.environ
"""`make attacks` plays all attacks, and `make test` one that is refused and one that does no harm."""
SHORT = ("a chunk is forged", "chunks are interleaved")
MEMORY_KB = 50_000
"""The limit of what a flood adds to the agent's memory."""


def played() -> list[object]:
    return [
        pytest.param(
            each,
            id=each.name,
            marks=pytest.mark.attack(PUSHES, each.name, how=each.how, receipt="push_refused" if each.reasons else ""),
        )
        for each in CHUNK_ATTACKS
        if ALL or each.name in SHORT
    ]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Make a vehicle with a release in force.  Tests run its agent, because an agent limits its receipts of chunks."""
    victim = Victim.make(tmp_path_factory.mktemp("chunks"))
    with victim.broker:
        with victim.receiving(), victim.running():
            victim.fleet.publish(toggles(), campaign("drive"))
            give_another_vehicle(victim)
            victim.accept()
        yield victim


def missing(victim: Victim) -> int:
    found: int = victim.pushes()["chunks"]["missing"]
    return found


@pytest.mark.parametrize("chunks", played())
def test_chunks_that_are_not_genuine_are_refused_with_a_receipt_and_the_genuine_ones_are_put_together(
    victim: Victim, chunks: ChunkAttack, attack: RecordAttack
) -> None:
    siege = Siege.lay(victim, CHUNK_ATTACKS.index(chunks))
    topic, receipts = topics.chunk(victim.vehicle.vehicle), len(victim.receipts())
    # Without a receiver, all chunks come from the attacker.
    with victim.running() as agent:
        victim.offer(victim.genuine())
        victim.until(lambda pushes: pushes["chunks"]["missing"] == len(siege.wanted), "all chunks are missing")
        before, memory = victim.state(), memory_kb(agent.pid, "VmRSS:")
        forged = chunks.forged(siege)
        if len(forged) > 10:
            victim.send(topic, *forged)
        for number, payload in enumerate(forged[:10], 1):
            victim.send(topic, payload)
            victim.until(lambda pushes, least=number: pushes["chunks"]["refused"] >= least, "a chunk is refused")
        assert victim.state() == before
        grown_kb = memory_kb(agent.pid, "VmRSS:") - memory
        assert grown_kb < MEMORY_KB
        deadline_s = time.monotonic() + PATIENCE_S
        while missing(victim):
            # The agent drops what exceeds its queue.  The fleet would send it again.
            assert time.monotonic() < deadline_s, victim.pushes()
            victim.send(topic, *chunks.order(siege))
            time.sleep(0.5)
        victim.accept()
        assert {"large", "other"} <= {each["name"] for each in agent.status()["telemetry"]["campaigns"]}
        with victim.receiving():
            agent.until(
                lambda: {each["reason"] for each in victim.receipts()[receipts:]} >= set(chunks.reasons),
                "the receipts are in the lake",
                PATIENCE_S,
            )
    found = victim.receipts()[receipts:]
    attack(receipt=", ".join(f"push_refused: {each['reason']}" for each in found))
    attack(figure={"chunks": len(forged) or len(chunks.order(siege)), "receipts": len(found)})
    assert {each["version"] for each in found} <= {0}
    # A receipt of each reason is enough, because a broker can send chunks without end.
    assert len(found) == len({each["reason"] for each in found})


def bomb_of(size: int, *, announced: int, path: str) -> tuple[TargetFile, bytes]:
    """Return a target that unpacks to `size` spaces, and of which the signed metadata says `announced` bytes."""
    packed = zstandard.ZstdCompressor().compress(b" " * size)
    custom = large_field(b" " * announced, packed)
    target = TargetFile(len(packed), {"sha256": hashlib.sha256(packed).hexdigest()}, path, {"custom": custom})
    return target, packed


MB = 1_000_000
PACKED_BOMBS = {
    "unpacks to more than is signed": [bomb_of(60 * MB, announced=1_000, path="campaigns/bomb.json")],
    "is larger than its kind allows": [bomb_of(60 * MB, announced=60 * MB, path="campaigns/bomb.json")],
    "is a database of 17 MB": [bomb_of(17 * MB, announced=17 * MB, path="dbc/can0/bomb.dbc")],
    "is one of 70, of 1 MB each": [
        bomb_of(MB, announced=MB, path=f"campaigns/bomb{number}.json") for number in range(DOCUMENT_BYTES // MB + 6)
    ],
}


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=pytest.mark.attack(PUSHES, f"a packed document {how}", how=f"A signed target {how}."))
        for how in PACKED_BOMBS
        if ALL or how == "unpacks to more than is signed"
    ],
)
def test_a_packed_document_that_unpacks_to_too_much_is_refused_and_the_next_release_is_taken(
    victim: Victim, how: str, attack: RecordAttack
) -> None:
    folder, receipts = victim.fleet.folder, len(victim.receipts())
    genuine = repository.read_state(folder.metadata).targets.targets
    with victim.receiving(), victim.running() as agent:
        victim.accept()
        before = victim.state(disk=False)
        bombs = {target.path: (target, packed) for target, packed in PACKED_BOMBS[how]}
        try:
            _sign(victim, genuine | {path: target for path, (target, _) in bombs.items()}, bombs)
            victim.offer(victim.genuine())
            agent.until(lambda: len(victim.receipts()) > receipts, "the receipt is in the lake", PATIENCE_S)
            assert victim.state(disk=False) == before
        finally:
            _sign(victim, genuine, {})
        victim.accept()
    receipt = victim.receipts()[receipts]
    attack(receipt=f"push_refused: {receipt['reason']}", figure={"detail": receipt["detail"][:120]})
    expected = Reason.TAMPERED if how == "unpacks to more than is signed" else Reason.OVERSIZED
    assert receipt["reason"] == expected


def _sign(victim: Victim, targets: dict[str, TargetFile], bombs: dict[str, tuple[TargetFile, bytes]]) -> None:
    folder = victim.fleet.folder
    state = repository.read_state(folder.metadata)
    contents = {path: packed for path, (_, packed) in bombs.items()}
    repository.write_version(folder, state.versions, targets, contents, bins=state.bins, now=NOW, expiry_days=90)
