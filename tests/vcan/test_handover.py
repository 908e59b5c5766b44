"""A ring outlives its reader.  The next reader reads the held frames again, and goes on with the unread ones."""

import asyncio
import re
from contextlib import aclosing
from tempfile import TemporaryFile

import can
from structlog.testing import capture_logs

from agent.sources import BusLoss
from agent.sources.kept_rings import adopt, drop_unused, listen, prepare
from agent.sources.packet_ring import PacketRingSource
from agent.system.descriptors import Descriptors
from agent.system.sd_notify import Notifier
from can_dbc.frames import FrameBlock
from lab import can_interfaces


def send(*ids: int, interface: str = "can0") -> None:
    with can.Bus(interface, "socketcan") as bus:
        for can_id in ids:
            bus.send(can.Message(arbitration_id=can_id, is_extended_id=False))


def source(kept: Descriptors | None, losses: list[BusLoss], **settings: int) -> PacketRingSource:
    return PacketRingSource(
        bus="can0", interface="can0", drain_ms=5, on_loss=losses.append, descriptors=kept, **settings
    )


def listen_early(interface: str, kept: Descriptors) -> None:
    ring = prepare(interface, 8_000_000, kept)
    if ring is not None:
        listen(ring, kept)


async def read(of: PacketRingSource, *ids: int) -> FrameBlock:
    """Open the source `of`, send frames with `ids`, and return the first block."""
    async with asyncio.timeout(60), aclosing(of.blocks()) as blocks:
        first = asyncio.ensure_future(anext(blocks))
        await asyncio.sleep(0.1)
        send(*ids)
        return await first


def test_a_successor_reads_what_was_held_and_what_came_meanwhile() -> None:
    async def scenario() -> None:
        kept, losses = Descriptors(Notifier({}), {}), list[BusLoss]()
        first = source(kept, losses)
        block = await read(first, 1, 2, 3)
        assert (block.first, block.can_id.tolist()) == (0, [1, 2, 3])
        send(4, 5)  # no reader is open
        async with aclosing(source(kept, losses).blocks()) as blocks:
            again = await anext(blocks)
        assert (again.first, again.can_id.tolist()) == (0, [1, 2, 3, 4, 5])
        third = source(kept, losses)
        third.begin(used=4, needed=4)  # four of the five are durable
        async with aclosing(third.blocks()) as blocks:
            assert (await anext(blocks)).first == 0
            third.release(4)
        fourth = source(kept, losses)
        fourth.begin(used=4, needed=4)
        async with aclosing(fourth.blocks()) as blocks:
            rest = await anext(blocks)
        assert (rest.first, rest.can_id.tolist()) == (4, [5])
        assert not losses
        (name,) = kept.names()
        assert re.fullmatch("ring-160x49920-[0-9a-f]{16}-can0", name)

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_a_successor_that_dies_before_it_reads_leaves_the_positions_as_they_are() -> None:
    async def scenario() -> None:
        kept = Descriptors(Notifier({}), {})
        await read(source(kept, []), 1, 2, 3)
        dying = adopt("can0", kept, "can0")
        assert dying is not None
        dying.begin(used=3)
        dying.close()
        last = source(kept, [])
        last.begin(used=3, needed=0)  # one campaign has stored all three frames, another none
        async with aclosing(last.blocks()) as blocks:
            again = await anext(blocks)
        assert (again.first, again.can_id.tolist()) == (0, [1, 2, 3])

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_a_new_ring_counts_on_above_the_positions_of_the_one_before() -> None:
    async def scenario() -> None:
        of = source(None, [])
        of.begin(used=1_000_000, needed=1_000_000)
        block = await read(of, 1)
        assert 1_000_000 <= block.first < 1_000_000 + 49_920

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_a_descriptor_that_is_no_such_ring_is_replaced() -> None:
    async def scenario() -> None:
        with capture_logs() as logs, TemporaryFile() as file:
            kept, wrong = Descriptors(Notifier({}), {}), file.fileno()
            wrong_names = ("ring-160x49920-0123456789abcdef-can0", "ring-96x1000-0123456789abcdef-can0")
            for name in wrong_names:
                kept.keep(name, wrong)
            block = await read(source(kept, []), 7)
            assert block.can_id.tolist() == [7]
            assert [entry["event"] for entry in logs].count("ring_not_adopted") == 2
            (name,) = kept.names()
        assert re.fullmatch("ring-160x49920-[0-9a-f]{16}-can0", name)

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_the_ring_of_an_interface_that_is_no_longer_configured_is_dropped() -> None:
    async def scenario() -> None:
        kept = Descriptors(Notifier({}), {})
        await read(source(kept, []), 1)
        drop_unused(kept, ["can1"])
        assert kept.names() == ()

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_what_is_in_the_ring_when_the_source_closes_is_the_rest() -> None:
    async def scenario() -> None:
        losses: list[BusLoss] = []
        of = source(None, losses, ring_bytes=61_440)  # 384 frames
        async with aclosing(of.blocks()) as blocks:
            waiting = asyncio.ensure_future(anext(blocks))
            await asyncio.sleep(0.1)
            send(1)
            await waiting
            send(*range(500))
        assert [(loss.count, loss.detail) for loss in losses] == [(117, "ring full")]
        assert of.rest is not None
        assert (of.rest.first, of.rest.can_id.tolist()) == (1, list(range(383)))

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_held_frames_press_at_half_of_the_ring() -> None:
    async def scenario() -> None:
        of = source(None, [], ring_bytes=61_440)  # 384 frames
        async with aclosing(of.blocks()) as blocks:
            waiting = asyncio.ensure_future(anext(blocks))
            await asyncio.sleep(0.1)
            send(*range(180))
            await waiting
            while not of.pressed:
                send(1)
                block = await anext(blocks)
            assert 193 <= block.first + len(block) < 384
            of.release(block.first + len(block))
            assert not of.pressed

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_what_came_between_listening_and_the_source_is_its_first_block() -> None:
    async def scenario() -> None:
        kept, losses = Descriptors(Notifier({}), {}), list[BusLoss]()
        listen_early("can0", kept)
        send(1, 2)
        listen_early("can0", kept)  # the ring is kept already, so no second one is made
        assert len(kept.names()) == 1
        of = source(kept, losses)
        of.begin(used=7, needed=7)  # positions of an earlier process, whose ring is lost
        async with aclosing(of.blocks()) as blocks:
            first = await anext(blocks)
        assert first.first >= 7
        assert first.can_id.tolist() == [1, 2]
        assert not losses

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_the_ring_that_listens_early_is_told_from_the_ring_of_the_reader_before() -> None:
    async def scenario() -> None:
        before, after = Descriptors(Notifier({}), {}), Descriptors(Notifier({}), {})
        listen_early("can0", before)
        first = source(before, [])
        held_in = first.held_in
        assert held_in == source(before, []).held_in
        await read(first, 1)
        assert source(before, []).held_in == held_in
        listen_early("can0", after)  # a power cut has closed all rings
        assert source(after, []).held_in not in {held_in, ""}

    with can_interfaces.vcan("can0"):
        asyncio.run(scenario())


def test_what_cannot_be_listened_to_yet_is_left_to_its_source() -> None:
    kept = Descriptors(Notifier({}), {})
    listen_early("can0", kept)  # this interface does not exist yet
    listen_early("lo", kept)  # this is not a CAN interface
    can_interfaces.add("can0", up=False)
    try:
        listen_early("can0", kept)
        assert kept.names() == ()
    finally:
        can_interfaces.remove("can0")
