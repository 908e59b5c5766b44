"""Each loss waits in the ledger until a batch that reports it has arrived, and the ledger stays bounded."""

import hashlib

import pytest

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.losses import Loss
from agent.telemetry.spool.ledger import MAX_UNREPORTED
from tests.agent.telemetry.spool.rig import draft, drop_table, entries
from tests.agent.telemetry.spool.store import Store


def test_losses_wait_until_the_batch_that_reports_them_arrived(spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    ids = [id_ for id_, _ in spool.unreported_losses(10)]
    spool.append(draft(lane=Lane.EVENTS), reports=ids)
    assert spool.unreported_losses(10) == []
    spool.acknowledge(spool.epoch, [1])
    assert spool.counts().unreported == 0
    assert spool.counts().lost[Reason.BUS_OVERFLOW].frames == 5


def test_losses_wait_again_when_the_batch_that_reports_them_is_lost(spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    spool.append(draft(lane=Lane.EVENTS), reports=[id_ for id_, _ in spool.unreported_losses(10)])
    (entry,) = spool.pending(9, exclude=(), lanes=list(Lane))
    refusals = {seq: Refusal("does not decompress", entry.sealed.digest) for seq in (1, 9)}
    assert spool.refuse(spool.epoch, refusals) == [1]
    reasons = {loss.reason: loss for _, loss in spool.unreported_losses(10)}
    assert reasons[Reason.BUS_OVERFLOW].frames == 5
    assert reasons[Reason.REFUSED_BY_RECEIVER].detail == "does not decompress"
    assert spool.counts().lost[Reason.BUS_OVERFLOW].frames == 5  # counted once


@pytest.mark.parametrize("digest", [b"", bytes(32), hashlib.sha256(b"junk in our name").digest()])
def test_a_refusal_of_other_bytes_under_our_number_costs_nothing(spool: Store, digest: bytes) -> None:
    spool.append(draft())
    assert spool.refuse(spool.epoch, {1: Refusal("does not decompress", digest)}) == []
    (entry,) = spool.pending(9, exclude=(), lanes=list(Lane))
    assert spool.read(entry) is not None
    assert spool.counts().lost == {}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_loss_that_waits_again_is_told_as_it_was_under_its_id(disk: Disk, restarted: bool) -> None:
    spool = disk.open()
    loss = Loss(Reason.MEMORY_FULL, samples=5)
    spool.record_losses([loss])
    told = spool.unreported_losses(10)
    spool.append(draft(lane=Lane.EVENTS), reports=[id_ for id_, _ in told])
    spool.record_losses([loss])  # another loss of the same kind
    (entry,) = entries(spool)
    spool.refuse(spool.epoch, {1: Refusal("no", entry.sealed.digest)})  # the receiver refuses the report
    if restarted:
        spool.close()
        spool = disk.open()
    spool.record_losses([loss])
    again = [(id_, found) for id_, found in spool.unreported_losses(10) if found.reason is Reason.MEMORY_FULL]
    assert again[0] == told[0]
    assert sum(found.samples for _, found in again) == 15
    spool.close()


def test_nothing_is_merged_into_a_loss_that_a_batch_under_way_tells(spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    ids = [id_ for id_, _ in spool.unreported_losses(10)]
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=7)])
    spool.append(draft(lane=Lane.EVENTS), reports=ids)
    assert [loss.frames for _, loss in spool.unreported_losses(10)] == [7]


def test_ids_of_losses_mean_nothing_else_after_the_index_was_made_anew(disk: Disk, spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    ids = [id_ for id_, _ in spool.unreported_losses(10)]
    drop_table(disk, "totals")
    with pytest.raises(Transient, match="has been rebuilt"):
        spool.acknowledge(spool.epoch, [1])
    spool.append(draft(lane=Lane.EVENTS), reports=ids)
    assert [loss.reason for _, loss in spool.unreported_losses(10)] == [Reason.INDEX_DAMAGED]


def test_the_ledger_stays_bounded_and_keeps_every_count(spool: Store) -> None:
    spool.record_losses(Loss(Reason.BUS_OVERFLOW, bus=f"can{n}", frames=1) for n in range(MAX_UNREPORTED + 500))
    assert spool.counts().unreported == MAX_UNREPORTED
    assert sum(loss.frames for _, loss in spool.unreported_losses(10_000)) == MAX_UNREPORTED + 500
