"""One enrolled vehicle does its worst, and twenty honest vehicles get their acknowledgements all the same."""

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent.formats import telemetry_pb2 as pb
from agent.formats import topics
from agent.formats.down.bundle import SyncRequest, Versions, build_request
from agent.formats.up.limits import MAX_VALUES
from fleet.lake.ledger import ledger
from fleet.lake.query import QUESTIONS, ask, ask_sql
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker
from lab.receiver import Receiver
from tests.attack_report import RecordAttack
from tests.attacks.honest import Honest, driving, flooding, p99_s
from tests.fleet.receiving import hostile
from tests.fleet.vehicles import Vehicle, make_vehicle

pytestmark = pytest.mark.integration

MEASURING = "ATTACK_SECONDS" in os.environ  # `make test` runs beside other tests, so it asks for no time and no memory
SECONDS = float(os.environ.get("ATTACK_SECONDS", "6"))
HONEST = 20
P99_S = 5.0
RSS_MB = 600
DAY_US = 86_400 * 1_000_000


def rows(vehicle: Vehicle) -> Iterator[bytes]:
    """Yield batches of half a million rows in some 500 bytes each."""
    body = hostile.body(hostile.one_signal(MAX_VALUES // 2))
    return (vehicle.sealed(seq, body) for seq in itertools.count(1))


def bombs(vehicle: Vehicle) -> Iterator[bytes]:
    """Yield batches that exceed the limits of a batch, each in another way."""
    bodies = itertools.cycle([hostile.body(make()) for make in hostile.REFUSED.values()])
    return (vehicle.sealed(seq, body) for seq, body in zip(itertools.count(1), bodies, strict=False))


def catalogues(vehicle: Vehicle) -> Iterator[bytes]:
    """Yield batches with catalogues of some 40 kB that hold 30 MB of signal names."""
    for seq in itertools.count(1):
        table = pb.SignalTable(strings=["", str(seq)], units=[1], kinds=b"\1", bits=b"\x08", text_counts=[0])
        table.scales = table.offsets = bytes(8)
        table.names = "\n".join(["m" * 480 + ".s", *[".s"] * 60_000])
        for column in (table.buses, table.types, table.texts):
            column.extend([0] * 60_001)
        message = hostile.one_signal(1)
        message.ClearField("signals")
        message.ClearField("columns")
        message.carried = pb.Catalogue(campaign="c", revision="r", signals=table).SerializeToString()
        yield vehicle.sealed(seq, hostile.body(message))


def dates(vehicle: Vehicle) -> Iterator[bytes]:
    """Yield batches of one row, each on another day between 1970 and 2199."""
    chance = random.Random(7)
    for seq in itertools.count(1):
        message = hostile.one_signal(1)
        message.start_us = chance.randrange(80_000) * DAY_US
        message.end_us = message.start_us + 1
        yield vehicle.sealed(seq, hostile.body(message))


def rubbish(vehicle: Vehicle) -> Iterator[bytes]:
    """Yield random bytes, and batches that another key signed."""
    chance = random.Random(8)
    other_key = ec.generate_private_key(ec.SECP256R1())
    for seq in itertools.count(1):
        yield chance.randbytes(300) if seq % 2 else vehicle.sealed(seq, chance.randbytes(300), key=other_key)


def forks(vehicle: Vehicle) -> Iterator[bytes]:
    """Yield different batches under one number, so that the receiver must ask the lake about each of them."""
    for count in itertools.count(1):
        message = hostile.one_signal(1)
        message.end_us += count
        yield vehicle.sealed(1, hostile.body(message))


def requests(vehicle: Vehicle) -> Iterator[bytes]:
    """Yield requests for updates."""
    return itertools.repeat(build_request(SyncRequest(vehicle.name, Versions(), 0, 0, ())))


ATTACKS: dict[str, Callable[[Vehicle], Iterator[bytes]]] = {
    "rows": rows,
    "bombs": bombs,
    "catalogues": catalogues,
    "dates": dates,
    "rubbish": rubbish,
    "forks": forks,
    "requests": requests,
}


NAMES: dict[str, tuple[str, str, str]] = {
    "rows": ("3", "a vehicle sends batches of half a million rows in 500 bytes", "502 bytes gave 8.3 million rows"),
    "bombs": ("2", "a vehicle sends batches that exceed every limit", "519 bytes cost 62 s of CPU, 511 bytes 26 GB"),
    "catalogues": ("3", "a vehicle sends catalogues of 40 kB that hold 30 MB", "20 messages of 294 bytes took 818 MB"),
    "dates": ("3", "a vehicle names ever new dates", "6,000 files in the lake"),
    "rubbish": ("15", "a vehicle floods the receiver with rubbish", "300 messages/s starved acknowledgements"),
    "forks": ("1", "a vehicle sends different batches under one number", "the second batch was lost silently"),
    "requests": ("4", "a vehicle asks for updates without end", "60 requests/s starved every acknowledgement"),
}
"""The line of the issue, the name and what it did before, of each attack."""


def marked_as(name: str) -> pytest.MarkDecorator:
    line, words, before = NAMES[name]
    return pytest.mark.attack(line, words, how=(ATTACKS[name].__doc__ or "").strip(), before=before)


async def paced(payloads: Iterator[bytes], pause_s: float) -> AsyncIterator[bytes]:
    for payload in payloads:
        yield payload
        await asyncio.sleep(pause_s)


def rss_mb(pid: int) -> float:
    """Return the largest resident memory that the process ever had."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@pytest.mark.timeout(SECONDS + 400)
@pytest.mark.parametrize("name", [pytest.param(name, marks=marked_as(name)) for name in ATTACKS])
def test_a_hostile_vehicle_delays_no_honest_one(
    fleet: FleetFolder, tmp_path: Path, attack: RecordAttack, name: str
) -> None:
    bad = make_vehicle(fleet, tmp_path / "bad")
    honest = [Honest(make_vehicle(fleet, tmp_path / f"car{i}")) for i in range(HONEST)]
    topic = topics.sync(bad.name) if name == "requests" else bad.topic

    async def drive(port: int, receiver: Receiver) -> int:
        await asyncio.to_thread(receiver.until_connected)
        async with driving(honest, port):
            await asyncio.sleep(2)
            # At most some 300 messages a second; the broker and this process need the processor, too.
            async with flooding(bad, port, topic, paced(ATTACKS[name](bad), 0.003)) as sent:
                await asyncio.sleep(SECONDS)
            await asyncio.sleep(2)
        return sent[0]

    with (
        Broker(fleet, tmp_path / "broker") as broker,
        Receiver(fleet, broker.fleet_port, tmp_path / "receiver.log").running_now() as receiver,
    ):
        sent = asyncio.run(drive(broker.port, receiver))
        memory_mb = rss_mb(receiver.pid)
        receiver.check_alive()
        assert receiver.stop() == 0, receiver.output()[-2_000:]
    latency_s = p99_s(honest)
    figure = {"messages": sent, "p99_s": round(latency_s, 2), "rss_mb": round(memory_mb)}
    attack(figure=figure, receipt="vehicle_over_its_share" if receiver.said("vehicle_over_its_share") else "none")
    assert not [each.waiting for each in honest if each.waiting]
    assert not [each.refused for each in honest if each.refused]
    counts = dict(ask_sql(str(fleet.lake), "SELECT vehicle, count(*) FROM batches GROUP BY vehicle").rows)
    assert [counts[each.vehicle.name] for each in honest] == [each.sent for each in honest]
    started_s = time.monotonic()
    for question in QUESTIONS:
        ask(str(fleet.lake), question)
    ledger(str(fleet.lake), limit=100, stored=True)
    attack(figure=figure | {"query_s": round(time.monotonic() - started_s, 1)})
    if MEASURING:
        assert latency_s < P99_S
        assert memory_mb < RSS_MB
