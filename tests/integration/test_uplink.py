"""The uplink delivers over a real mosquitto with TLS at least once, through kills, lost answers and refusals."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import Transient
from agent.formats import topics
from agent.formats.topics import Lane
from agent.formats.up.acks import Ack, Refusal, Sealed, sign_ack
from agent.formats.up.columns import Clock
from agent.formats.up.losses import Reason
from agent.formats.up.seal import digest_of
from agent.link.mqtt import Connection, Endpoint, connect
from agent.link.session import Backoff
from agent.telemetry.clock import MachineClock
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.batches import Keys
from agent.telemetry.spool.reader import Acknowledged, Reader
from agent.telemetry.uplink.flights import START
from agent.telemetry.uplink.link_gate import LinkGate, Metered
from agent.telemetry.uplink.link_policy import LinkPolicy
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.standing import AckMode, Route, Standing
from agent.telemetry.uplink.uplink import Uplink
from fleet.state.access_list import ACCESS_LIST
from tests.agent.telemetry.spool.store import Draft, Store
from tests.integration.mosquitto import World, world

pytestmark = pytest.mark.integration

VEHICLE = "0b9f6c1e-94a1-4c6e-8f0e-2a7f4f1d3c55"
OTHER = "3f0c3f5a-7c0f-4a53-9b50-0d9f2f6f4a11"
PARTITION = 3
NO_FILE = Path("/nonexistent/metered.json")
KEY = Ed25519PrivateKey.generate()
PACE = Pace(in_flight=8, ack_timeout_s=0.3, patience_cap_s=2.0, refusal=Backoff(0.2, 0.2, 0.4))


class SpoolClock:
    """The clocks by which the spool tells ages.  The test can set them back before the first append."""

    behind_s = 0.0

    def __call__(self) -> Clock:
        now = MachineClock().read()
        return replace(now, boottime_us=now.boottime_us - round(self.behind_s * 1e6))


CLOCK = SpoolClock()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path / "world") as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Store]:
    spool = Store.open(tmp_path / "spool", quota_bytes=10**8, max_age_s=1e9, reserve_bytes=0, clock=CLOCK)
    yield spool
    spool.close()


def fill(spool: Store, count: int, lane: Lane = Lane.LIVE, size: int = 1_000) -> None:
    for _ in range(count):
        spool.append(Draft(lane, 0, "", lambda seq: content(seq, size)))


def content(seq: int, size: int = 1_000) -> bytes:
    return b"%d " % seq + bytes(size)


class WatchedReader(Reader):
    """A reader that shares the state of `reader`, and calls `looked` after each look for pending batches."""

    def __init__(self, reader: Reader, looked: Callable[[], None]) -> None:
        self.__dict__ = reader.__dict__
        self._looked = looked

    def pending(self, limit: int, *, exclude: Keys, lanes: Sequence[Lane], fresh: bool | None = None) -> list[Entry]:
        found = super().pending(limit, exclude=exclude, lanes=lanes, fresh=fresh)
        self._looked()
        return found


def uplink_of(
    spool: Store,
    ack: AckMode = "receiver",
    pace: Pace = PACE,
    *,
    metered: Metered = "auto",
    daily_bytes: int = 0,
    backlog_bytes_s: float = 0,
    looked: Callable[[], None] = lambda: None,
) -> Uplink:
    policy = LinkPolicy(frozenset(Lane), daily_bytes)
    return Uplink(
        Standing(
            WatchedReader(spool.reader, looked),
            Route(VEHICLE, PARTITION, KEY.public_key(), ack),
            replace(pace, backlog_bytes_s=backlog_bytes_s, publish_timeout_s=5.0),
            LinkGate(policy, Path("/nonexistent/metered.json"), MachineClock().read, metered=metered),
        )
    )


async def drive(uplink: Uplink, endpoint: Endpoint) -> None:
    """Connect, subscribe and run the uplink, and again after each lost connection, as the app does."""
    while True:
        try:
            async with connect(endpoint) as connection, asyncio.TaskGroup() as group:
                await connection.subscribe([topics.ack(VEHICLE)])
                group.create_task(uplink.run(connection))
                async for _, payload in connection.messages():
                    await uplink.handle_ack(payload)
        except* Transient:
            await asyncio.sleep(0.05)


class Receiver:
    """Simulates a receiver on a real connection: counts every batch, and sends the answer that `answer` gives."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.seen: Counter[int] = Counter()
        self.contents: dict[int, bytes] = {}
        self.answer: Callable[[int], bytes | None] = self.signed

    def signed(self, *stored: int, refused: dict[int, Refusal] | None = None, vehicle: str = VEHICLE) -> bytes:
        return sign_ack(Ack(vehicle, self.epoch, tuple(map(self.named, stored)), refused or {}), KEY)

    def named(self, seq: int) -> Sealed:
        return Sealed(seq, digest_of(self.contents.get(seq, content(seq))))

    def refusing(self, seq: int, payload: bytes) -> bytes:
        return self.signed(refused={seq: Refusal("cannot be opened", digest_of(payload))})

    async def serve(self, endpoint: Endpoint) -> None:
        while True:
            try:
                async with connect(endpoint) as connection:
                    await self._serve(connection)
            except Transient:
                await asyncio.sleep(0.05)

    async def _serve(self, connection: Connection) -> None:
        await connection.subscribe([f"{topics.ROOT}/up/#"])
        async for _, payload in connection.messages():
            seq = int(payload.split(b" ")[0])
            self.seen[seq] += 1
            self.contents[seq] = payload
            if (answer := self.answer(seq)) is not None:
                await connection.publish(topics.ack(VEHICLE), answer)


@asynccontextmanager
async def tasks(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    running = [asyncio.create_task(item) for item in work]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        for result in await asyncio.gather(*running, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def empty(spool: Store) -> bool:
    return spool.counts().batches == 0


def test_everything_arrives_and_leaves_the_spool(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        fill(spool, 100)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: uplink.counts.acknowledged == 100)
        assert receiver.seen.keys() == set(range(1, 101))
        assert empty(spool)
        assert spool.counts().acknowledged == 100
        assert uplink.counts.published_bytes >= 100 * 1_000

    asyncio.run(work())


def test_events_and_the_newest_live_batches_go_first(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver = Receiver(spool.epoch)
        fill(spool, 2, Lane.BACKLOG)
        fill(spool, 2, Lane.LIVE)
        fill(spool, 2, Lane.EVENTS)
        uplink = uplink_of(spool, pace=replace(PACE, in_flight=1))
        async with tasks(receiver.serve(fleet.endpoint("receiver"))):
            await asyncio.sleep(0.3)
            async with tasks(drive(uplink, fleet.endpoint(VEHICLE))):
                await until(lambda: empty(spool))
        assert list(receiver.seen) == [6, 5, 4, 3, 2, 1]

    asyncio.run(work())


def test_a_new_batch_is_sent_at_once(fleet: World, spool: Store) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        fill(spool, 1)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool))
            started_s = loop.time()
            await asyncio.to_thread(fill, spool, 1)
            await until(lambda: empty(spool), 2.0)
            assert loop.time() - started_s < 0.5

    asyncio.run(work())


def test_an_idle_uplink_sleeps(fleet: World, spool: Store) -> None:
    async def work() -> None:
        looks: list[None] = []
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, looked=lambda: looks.append(None))
        fill(spool, 1)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool))
            await asyncio.sleep(0.1)
            assert looks
            looks.clear()
            await asyncio.sleep(1.0)
            assert not looks

    asyncio.run(work())


def test_what_is_stored_while_the_uplink_looks_is_sent_at_once(fleet: World, spool: Store) -> None:
    async def work() -> None:
        late = iter([1])
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, looked=lambda: fill(spool, sum(islice(late, 1))))
        fill(spool, 1)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: receiver.seen.keys() == {1, 2}, 5.0)

    asyncio.run(work())


def test_a_broker_killed_in_the_middle_costs_nothing(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        fill(spool, 300, size=20_000)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            for share in (50, 150):
                await until(lambda share=share: len(receiver.seen) >= share)
                fleet.broker.kill()
                await asyncio.sleep(0.2)
                fleet.broker.start()
            await until(lambda: empty(spool), 30.0)
        assert receiver.seen.keys() == set(range(1, 301))
        assert spool.counts().lost == {}

    asyncio.run(work())


def test_a_lost_acknowledgement_makes_the_batch_go_again(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        receiver.answer = lambda seq: None if receiver.seen[seq] == 1 else receiver.signed(seq)
        fill(spool, 5)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool))
        assert all(times >= 2 for times in receiver.seen.values())
        assert uplink.counts.resent >= 5

    asyncio.run(work())


def test_a_receiver_that_is_away_costs_a_few_probes_not_the_window_again(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        fill(spool, 20)
        async with tasks(drive(uplink, fleet.endpoint(VEHICLE))):
            await asyncio.sleep(2.0)
            assert uplink.counts.published <= PACE.in_flight + 4
            async with tasks(receiver.serve(fleet.endpoint("receiver"))):
                await until(lambda: empty(spool))
        assert receiver.seen.keys() == set(range(1, 21))

    asyncio.run(work())


def test_a_receiver_that_never_answered_gets_a_small_window_whatever_the_settings_allow(
    fleet: World, spool: Store
) -> None:
    async def work() -> None:
        uplink = uplink_of(spool, pace=replace(PACE, in_flight=1_000, ack_timeout_s=60.0))
        fill(spool, 200)
        async with tasks(drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: uplink.counts.published == START)
            await asyncio.sleep(0.3)
        assert uplink.counts.published == START

    asyncio.run(work())


def test_a_large_window_drains_within_the_brokers_receive_maximum(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, pace=replace(PACE, in_flight=1_000))
        async with connect(fleet.endpoint("receiver")) as connection:
            assert connection.limits.receive_maximum < 100
        fill(spool, 300)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool))
        assert receiver.seen.keys() == set(range(1, 301))

    asyncio.run(work())


def old(spool: Store, count: int) -> None:
    """Store `count` batches as if an hour ago."""
    CLOCK.behind_s = 3_600.0
    fill(spool, count)
    CLOCK.behind_s = 0.0


def test_fresh_data_overtakes_the_backlog_which_keeps_to_its_rate(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, backlog_bytes_s=20_000)
        old(spool, 60)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: uplink.counts.acknowledged >= 25)
            started_s, before = time.monotonic(), uplink.counts.acknowledged
            fill(spool, 10)
            await until(lambda: all(receiver.seen[seq] for seq in range(61, 71)))
            assert spool.counts().batches > 10  # batches of the backlog still wait
            await until(lambda: empty(spool) and uplink.counts.acknowledged == 70)
            elapsed_s = time.monotonic() - started_s
        # On a loaded machine, up to 15 of the remaining batches may be on the way already when `before` is read.
        assert elapsed_s >= (60 - before - 15) * 1_000 / 20_000

    asyncio.run(work())


def test_a_metered_link_without_bytes_left_carries_what_is_fresh_alone(fleet: World, spool: Store) -> None:
    async def work() -> None:
        # On a busy machine a repeated batch would use up the bytes of another one.
        patient = replace(PACE, ack_timeout_s=10.0)
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, pace=patient, metered=True, daily_bytes=3_000)
        old(spool, 20)
        fill(spool, 5, Lane.BACKLOG)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: uplink.counts.acknowledged >= 3)
            fill(spool, 4, Lane.EVENTS)
            fill(spool, 4)
            await until(lambda: all(receiver.seen[seq] for seq in range(26, 34)))
            await asyncio.sleep(0.3)
        assert spool.counts().batches >= 25 - PACE.in_flight
        assert uplink.status()["lanes"] == ["events", "live"]
        assert uplink.status()["metered_bytes_today"] >= 11_000

    asyncio.run(work())


def test_batches_that_nobody_answers_for_hold_up_none_of_the_others(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        receiver.answer = lambda seq: receiver.signed(seq) if seq > 50 else None
        for _ in range(25):
            fill(spool, 1, Lane.EVENTS)
            fill(spool, 1)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await asyncio.sleep(1.0)
            fresh = 0
            while uplink.status()["set_aside"] < 5:
                assert fresh < 150
                fill(spool, 1)
                fresh += 1
                await asyncio.sleep(0.1)
            await until(lambda: uplink.counts.acknowledged == fresh)
        assert spool.counts().batches == 50

    asyncio.run(work())


def test_refused_batches_leave_the_spool_and_are_named(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        receiver.answer = lambda seq: receiver.refusing(seq, content(seq))
        fill(spool, 3)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool) and uplink.counts.refused == 3)
        assert spool.counts().lost[Reason.REFUSED_BY_RECEIVER].batches == 3
        ((_, loss),) = [row for row in spool.unreported_losses(9) if row[1].first_seq == 1]
        assert loss.detail == "cannot be opened"

    asyncio.run(work())


def test_a_hostile_brokers_junk_in_the_vehicles_name_costs_nothing(fleet: World, spool: Store) -> None:
    """A broker sends junk under numbers of waiting batches.  The fleet's refusal of the junk removes no batch."""

    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        first = {1: receiver.refusing(1, b"1 junk"), 2: receiver.signed(refused={2: Refusal("no", b"")})}
        receiver.answer = lambda seq: first[seq] if receiver.seen[seq] == 1 else receiver.signed(seq)
        fill(spool, 2)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool) and uplink.counts.acknowledged == 2)
        assert receiver.seen == {1: 2, 2: 2}
        assert (uplink.counts.acknowledged, uplink.counts.refused) == (2, 0)
        assert spool.counts().lost == {}

    asyncio.run(work())


def test_forged_and_foreign_acknowledgements_change_nothing(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        named = tuple(receiver.named(seq) for seq in (1, 2, 3))
        forged = sign_ack(Ack(VEHICLE, spool.epoch, named), Ed25519PrivateKey.generate())
        answers = {1: forged, 2: receiver.signed(1, 2, 3, vehicle=OTHER), 3: b"\x00garbage"}
        receiver.answer = answers.get
        fill(spool, 3)
        with structlog.testing.capture_logs() as logs:
            async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
                await until(lambda: uplink.counts.untrusted_acks >= 3)
        assert spool.counts().batches == 3
        assert uplink.counts.acknowledged == 0
        assert {entry["event"] for entry in logs} == {"ack_untrusted"}

    asyncio.run(work())


def test_the_brokers_word_is_enough_only_where_the_settings_say_so(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, ack="broker")
        receiver.answer = lambda _: None
        fill(spool, 50)
        async with tasks(drive(uplink, fleet.endpoint(VEHICLE))):
            await asyncio.sleep(1.0)  # without a subscriber the broker discards each batch
            assert spool.counts().batches == 50
            assert uplink.counts.acknowledged == uplink.counts.published == 0
            assert PACE.in_flight <= uplink.counts.publish_unheard <= PACE.in_flight * 6  # a pause lasts 0.2 s or more
            async with tasks(receiver.serve(fleet.endpoint("receiver"))):
                await until(lambda: empty(spool) and uplink.counts.acknowledged == 50)
        assert receiver.seen.keys() == set(range(1, 51))
        assert uplink.counts.acknowledged == uplink.counts.published == 50

    asyncio.run(work())


def test_what_the_broker_took_is_forgotten_by_the_group(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, ack="broker", pace=replace(PACE, in_flight=64))
        receiver.answer = lambda _: None
        groups: list[int] = []
        acknowledge = spool.reader.acknowledge

        def counted(epoch: str, stored: Collection[Sealed], **more: Any) -> Acknowledged:
            groups.append(len(stored))
            return acknowledge(epoch, stored, **more)

        spool.reader.acknowledge = counted  # type: ignore[method-assign]
        fill(spool, 300)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool) and uplink.counts.acknowledged == 300 and len(receiver.seen) == 300)
        assert len(groups) <= 100
        assert receiver.seen == dict.fromkeys(range(1, 301), 1)

    asyncio.run(work())


def test_a_group_that_cannot_be_forgotten_is_forgotten_later_and_not_sent_again(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, ack="broker")
        receiver.answer = lambda _: None
        acknowledge, failed = spool.reader.acknowledge, list[Collection[Sealed]]()

        def failing(epoch: str, stored: Collection[Sealed], **more: Any) -> Acknowledged:
            if not failed:
                failed.append(stored)
                raise Transient("disk full")
            return acknowledge(epoch, stored, **more)

        spool.reader.acknowledge = failing  # type: ignore[method-assign]
        fill(spool, 30)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool))
        assert failed
        assert receiver.seen == dict.fromkeys(range(1, 31), 1)
        assert spool.counts().acknowledged == 30

    asyncio.run(work())


def test_what_the_broker_took_is_forgotten_over_the_next_connection_at_the_latest(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, ack="broker")
        receiver.answer = lambda _: None
        acknowledge = spool.reader.acknowledge

        def failing(epoch: str, stored: Collection[Sealed], **more: Any) -> Acknowledged:
            raise Transient("disk full")

        spool.reader.acknowledge = failing  # type: ignore[method-assign]
        fill(spool, 3)
        async with tasks(receiver.serve(fleet.endpoint("receiver"))):
            async with tasks(drive(uplink, fleet.endpoint(VEHICLE))):
                await until(lambda: receiver.seen.total() == 3)
                await asyncio.sleep(0.3)
            spool.reader.acknowledge = acknowledge  # type: ignore[method-assign]
            async with tasks(drive(uplink, fleet.endpoint(VEHICLE))):
                await until(lambda: empty(spool))
        assert receiver.seen == dict.fromkeys(range(1, 4), 1)

    asyncio.run(work())


@pytest.mark.parametrize("ack", ["receiver", "broker"])
def test_a_broker_that_denies_publishing_gets_few_attempts_and_takes_nothing(
    fleet: World, spool: Store, ack: AckMode
) -> None:
    def deny() -> None:
        """Remove the vehicles' right to publish from the access list, and let the running broker reload the list."""
        acl = fleet.authority.folder.parent / "fleet" / "broker" / "mosquitto.acl"
        acl.write_text(ACCESS_LIST.replace("pattern write hu/v1/up/+/%u/+\n", ""))
        assert fleet.broker.pid is not None
        os.kill(fleet.broker.pid, signal.SIGHUP)

    async def work() -> None:
        uplink = uplink_of(spool, ack=ack)
        fill(spool, 30)
        deny()
        await asyncio.sleep(0.3)
        with structlog.testing.capture_logs() as logs:
            async with tasks(drive(uplink, fleet.endpoint(VEHICLE))):
                await asyncio.sleep(1.5)
        assert spool.counts().batches == 30
        assert uplink.counts.published == 0
        assert PACE.in_flight <= uplink.counts.publish_refused <= PACE.in_flight * 8  # a pause lasts 0.2 s or more
        assert "Not authorized (0x87); check the broker's ACL" in logs[0]["reason"]

    asyncio.run(work())


def test_a_batch_larger_than_the_broker_takes_does_not_hold_up_the_others(fleet: World, spool: Store) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        fill(spool, 1, size=2 * 1024 * 1024)
        fill(spool, 20)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: spool.counts().batches == 1)
        assert receiver.seen.keys() == set(range(2, 22))
        assert uplink.counts.publish_refused >= 1

    asyncio.run(work())


def test_a_damaged_batch_is_not_sent_and_the_rest_is(fleet: World, spool: Store, tmp_path: Path) -> None:
    async def work() -> None:
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        fill(spool, 3)
        next((tmp_path / "spool").glob("batches/*/000000000002.*")).write_bytes(b"2 damaged")
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool))
        assert receiver.seen.keys() == {1, 3}
        assert spool.counts().lost[Reason.CORRUPT].batches == 1

    asyncio.run(work())


def wants(digest: bytes, receiver: Receiver, carrier: int) -> Callable[[int], bytes | None]:
    """Return the answers of a receiver that wants the catalogue `digest` until it has the batch `carrier`."""
    return lambda seq: (
        receiver.signed(seq)
        if receiver.seen[carrier]
        else sign_ack(Ack(VEHICLE, receiver.epoch, (), {}, {digest: (receiver.named(seq),)}), KEY)
    )


def test_a_catalogue_that_the_receiver_lost_is_sent_again_and_then_what_refers_to_it(
    fleet: World, spool: Store
) -> None:
    async def work() -> None:
        digest = bytes(range(16))
        spool.append(Draft(Lane.EVENTS, 0, "", lambda seq: b"%d catalogue" % seq, carries=digest))
        spool.acknowledge(spool.epoch, [1])
        for _ in range(20):
            spool.append(Draft(Lane.LIVE, 0, "", lambda seq: b"%d refers" % seq, refers=digest))
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool, pace=replace(PACE, ack_timeout_s=60.0))
        receiver.answer = wants(digest, receiver, 1)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool) and uplink.counts.acknowledged == 20)
        assert receiver.seen[1] == uplink.counts.supplied == 1
        assert spool.counts().lost == {}

    asyncio.run(work())


def test_batches_whose_catalogue_nobody_has_are_given_up_by_name_and_hold_up_nothing(
    fleet: World, spool: Store
) -> None:
    async def work() -> None:
        digest = bytes(range(16))
        for _ in range(10):
            spool.append(Draft(Lane.LIVE, 0, "", lambda seq: b"%d refers" % seq, samples=3, refers=digest))
        fill(spool, 5, Lane.BACKLOG)
        receiver, uplink = Receiver(spool.epoch), uplink_of(spool)
        wanted = wants(digest, receiver, 99)
        receiver.answer = lambda seq: wanted(seq) if seq <= 10 else receiver.signed(seq)
        async with tasks(receiver.serve(fleet.endpoint("receiver")), drive(uplink, fleet.endpoint(VEHICLE))):
            await until(lambda: empty(spool))
        lost = spool.counts().lost[Reason.CORRUPT]
        assert (lost.batches, lost.samples, uplink.counts.acknowledged) == (10, 30, 5)

    asyncio.run(work())
