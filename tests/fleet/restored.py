"""Plays a vehicle whose disk may be copied and put back: a real spool, real seals, and no network."""

import asyncio
import itertools
import secrets
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

from agent.formats import topics
from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.encode import encode_window
from agent.formats.up.seal import read_header
from agent.telemetry.losses import to_event
from agent.telemetry.outbox.packer import Body
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.batch import BatchId, Entry, Fragment
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.spool import Spool
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.standing import Route, Standing
from agent.telemetry.uplink.uplink import Uplink
from fleet.lake.query import ask_sql
from fleet.receiving.message import Message
from fleet.receiving.store import Store
from tests.fleet.vehicles import T0_US, Vehicle, make_window

LIMITS = Limits.of(1_000_000_000, 1e12, 0)
_tokens = itertools.count(1)


class HeadUnit:
    """One head unit: the identity of `vehicle`, and a spool of its own in `folder`."""

    def __init__(self, vehicle: Vehicle, folder: Path) -> None:
        self.vehicle = vehicle
        self.folder = folder
        self._sealer = Sealer(vehicle.name, vehicle.key, vehicle.recipient, lambda: T0_US)
        self.start()

    def start(self) -> None:
        """Start the agent, as after a power cut."""
        self.spool = Spool(self.folder, LIMITS, clock=lambda: Clock(ClockQuality.NETWORK, "boot", T0_US, 5_000_000))
        route = Route(self.vehicle.name, 0, self.vehicle.acks_key)
        self._open: dict[int, str] = {}  # the ids of the open windows that have checkpoints
        # An acknowledgement needs neither a link nor a pace.
        self.uplink = Uplink(Standing(self.spool.reader, route, Pace(64, 20.0), cast("LinkGate", None)))

    def kill(self) -> None:
        self.spool.close()

    def copy(self, image: Path) -> None:
        """Copy the disk, as after a power cut."""
        self.kill()
        shutil.copytree(self.folder, image, dirs_exist_ok=False)
        self.start()

    def put_back(self, image: Path) -> None:
        """Replace the disk by an image."""
        self.kill()
        shutil.rmtree(self.folder)
        shutil.copytree(image, self.folder)
        self.start()

    def collect(self, *windows: int) -> None:
        """Store windows.  The first raw value of window n is 1000 n."""
        for number in windows:
            t_us = T0_US + number * 1_000_000
            self._append(Body(Lane.LIVE, 1, encode_window(make_window(number, samples=2)), "drive", 4, t_us, t_us))

    def checkpoint(self, number: int) -> None:
        """Open window `number`, and store a checkpoint with its first sample."""
        self._open[number] = secrets.token_hex(16)
        t_us = T0_US + number * 1_000_000
        first = BatchId(self._open[number], 1)
        window = make_window(number, samples=1)
        self._append(Body(Lane.LIVE, 1, encode_window(window), "drive", 2, t_us, t_us, checkpoint=first))

    def close_windows(self) -> list[int]:
        """Store the open windows in place of their checkpoints, and return their numbers."""
        closed, self._open = self._open, {}
        for number, id_ in closed.items():
            t_us = T0_US + number * 1_000_000
            content = encode_window(replace(make_window(number, samples=2), id=id_))
            self._append(Body(Lane.LIVE, 1, content, "drive", 4, t_us, t_us, fragment=Fragment(id_, 1, 1)))
        return list(closed)

    def lose(self, entry: Entry) -> None:
        """Lose a batch, because its file was damaged."""
        path = self.folder / entry.name.folder / entry.name.file
        path.write_bytes(b"damaged")
        assert self.spool.reader.read(entry) is None

    def report(self) -> None:
        """Store a batch of events that reports all losses."""
        losses = self.spool.writer.unreported_losses(1_000)
        if not losses:
            return
        events = tuple(to_event(id_, loss, T0_US) for id_, loss in losses)
        window = replace(make_window(0), campaign="", groups=(), events=events)
        ids = tuple(id_ for id_, _ in losses)
        self._append(Body(Lane.EVENTS, 0, encode_window(window), "", 0, T0_US, T0_US, reports=ids))

    def _append(self, body: Body) -> None:
        id_ = body.checkpoint or BatchId(*self.spool.writer.next_ids(1)[0])
        self.spool.writer.append([self._sealer.seal_body(id_, body)], token=str(next(_tokens)))

    def pending(self) -> list[Entry]:
        return self.spool.reader.pending(10_000, exclude=(), lanes=tuple(Lane))

    def waiting(self) -> list[bytes]:
        """Return the batches that the agent would send now."""
        found = [self.spool.reader.read(entry) for entry in self.pending()]
        return [content for content in found if content is not None]

    def hear(self, *acks: bytes) -> None:
        """Handle acknowledgements."""
        for ack in acks:
            asyncio.run(self.uplink.handle_ack(ack))


def deliver(store: Store, unit: HeadUnit, batches: list[bytes] | None = None) -> list[bytes]:
    """Bring batches to the receiver, and return its acknowledgements."""
    messages = [Message(topic_of(batch), batch) for batch in (unit.waiting() if batches is None else batches)]
    taken = store.take_in(messages)
    assert taken == len(messages)
    return [message.payload for message in store.land()]


def topic_of(batch: bytes) -> str:
    """Return the topic on which a vehicle sends a batch."""
    header = read_header(batch)
    return topics.up(topics.partition_of(header.vehicle), header.vehicle, header.lane)


def windows_in(lake: Path) -> dict[int, int]:
    """Return how many samples of each window the lake has."""
    found: Counter[int] = Counter()
    for (number, _), copies in samples_in(lake).items():
        found[number] += copies
    return dict(found)


def samples_in(lake: Path) -> dict[tuple[int, int], int]:
    """Return how often the lake has each sample of the speed, named by its window and its place in the window."""
    rows = ask_sql(str(lake), "SELECT raw, count(*) FROM samples WHERE signal = 'Speed.VehicleSpeed' GROUP BY raw")
    return {divmod(int(str(raw)), 1_000): int(str(copies)) for raw, copies in rows.rows}
