"""What one vehicle puts into the lake harms no operator, and a question of an operator writes nothing."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.formats import topics
from agent.formats.up.encode import encode_window
from agent.formats.up.seal import seal
from agent.link.mqtt import connect
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker
from lab.receiver import Receiver
from tests.agent.car import command
from tests.attack_report import RecordAttack
from tests.attacks.honest import endpoint_of
from tests.fleet.receiving import hostile
from tests.fleet.vehicles import Vehicle, make_fleet, make_vehicle, make_window

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ANSWER_S = 120.0  # how long a batch may stay without an answer, on a slow machine
TOO_LATE = 90  # numbers of the batches that must be refused
TOO_HIGH = 2**63 - 1
HONEST = 1_000
AFTER_2200_US = 7_500_000_000_000_000


@dataclass(frozen=True)
class Attacked:
    """A fleet after a vehicle has sent it odd batches, with the numbers that the receiver stored and refused."""

    fleet: FleetFolder
    odd: tuple[int, ...]
    stored: frozenset[int]
    refused: frozenset[int]
    alive: bool

    def query(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return command("fleet", "query", *arguments, "--fleet", self.fleet.root, seconds=ANSWER_S)


def odd_batches(vehicle: Vehicle) -> dict[int, bytes]:
    texts = hostile.STORED["line separators and control characters in texts"]()
    texts.events.add(t_us=texts.start_us, kind="\x1b]0;title\x07").fields.add(name="\x1b[2J", text="\x9b31m")
    bodies = [hostile.body(make()) for make in hostile.STORED.values()] + [hostile.body(texts)]
    return {seq: vehicle.sealed(seq, body) for seq, body in enumerate(bodies, 1)}


def refusable(vehicle: Vehicle) -> dict[int, bytes]:
    window = replace(make_window(1), start_us=AFTER_2200_US, end_us=AFTER_2200_US + 1)
    header = replace(vehicle.header(1), seq=TOO_HIGH)
    return {
        TOO_LATE: vehicle.batch(TOO_LATE, window),
        TOO_HIGH: seal(header, encode_window(make_window(1)), vehicle.key, vehicle.recipient),
    }


async def exchange(vehicle: Vehicle, port: int, batches: dict[int, bytes]) -> tuple[set[int], set[int]]:
    """Send batches, and return those that were stored and those that were refused when all are answered."""
    stored: set[int] = set()
    refused: set[int] = set()
    async with connect(endpoint_of(vehicle, port)) as connection, asyncio.timeout(ANSWER_S):
        await connection.subscribe([topics.ack(vehicle.name)])
        for batch in batches.values():
            await connection.publish(vehicle.topic, batch)
        async for _, payload in connection.messages():
            ack = vehicle.verify(payload)
            stored |= {seq for seq, _ in ack.stored}
            refused |= ack.refused.keys()
            if stored | refused >= batches.keys():
                break
    return stored, refused


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    fleet = make_fleet(folder / "fleet")
    vehicle = make_vehicle(fleet, folder / "vehicle")
    odd = odd_batches(vehicle)
    batches = odd | refusable(vehicle) | {HONEST: vehicle.batch(HONEST)}
    with (
        Broker(fleet, folder / "broker") as broker,
        Receiver(fleet, broker.fleet_port, folder / "receiver.log").running_now() as receiver,
    ):
        receiver.until_connected()
        stored, refused = asyncio.run(exchange(vehicle, broker.port, batches))
        alive = receiver.stop() == 0
    yield Attacked(fleet, tuple(odd), frozenset(stored), frozenset(refused), alive)


@pytest.mark.attack(
    "2",
    "a vehicle sends the largest sequence number and line separators in texts",
    how="A vehicle sends seq 2^63-1 and batches with U+2028 and as many rows and events as may be, then an honest one.",
    before="the receiver ended, again at every start; fleet compact and each query failed",
    receipt="refused",
)
def test_odd_batches_end_neither_receiver_nor_compaction_nor_queries(attacked: Attacked) -> None:
    assert attacked.alive
    assert attacked.stored == {*attacked.odd, HONEST}
    assert TOO_HIGH in attacked.refused
    done = command("fleet", "compact", "--fleet", attacked.fleet.root, seconds=ANSWER_S)
    assert done.returncode == 0, done.stderr
    done = attacked.query("sql", "SELECT count(*) FROM samples")
    assert done.returncode == 0, done.stderr


@pytest.mark.attack(
    "20",
    "a vehicle sends a batch with times beyond 2200",
    how="A vehicle sends a batch of the year 2207 to a real receiver, and waits for the answer.",
    before="sent again for ever",
    receipt="refused",
)
def test_a_batch_beyond_2200_is_refused_so_that_it_is_not_sent_again(attacked: Attacked) -> None:
    assert TOO_LATE in attacked.refused
    assert TOO_LATE not in attacked.stored


@pytest.mark.attack(
    "17",
    "a vehicle sends escapes for the operator's terminal",
    how="Signals and events have control sequences in names and texts; four questions are asked with `fleet query`.",
    before="printed raw",
)
def test_no_answer_of_fleet_query_controls_a_terminal(attacked: Attacked, attack: RecordAttack) -> None:
    raw = 0
    questions = [["signals"], ["latest"], ["events"], ["sql", "SELECT * FROM samples LIMIT 1000"]]
    for question in questions:
        done = attacked.query(*question)
        assert done.returncode == 0, done.stderr
        raw += sum(not character.isprintable() for character in done.stdout.replace("\n", ""))
    attack(figure={"control_characters": raw, "questions": len(questions)})
    assert raw == 0
    assert "title" in attacked.query("sql", "SELECT kind FROM events WHERE kind LIKE '%title%'").stdout


@pytest.mark.attack(
    "18",
    "a question in SQL writes a file",
    how="`fleet query sql` is asked to copy samples to a file.",
    before="the file was written",
    receipt="exit 1",
)
def test_fleet_query_sql_writes_no_file(attacked: Attacked, tmp_path: Path) -> None:
    done = attacked.query("sql", f"COPY samples TO '{tmp_path}/out.csv'")
    assert done.returncode == 1
    assert "could not run the query" in done.stderr
    assert list(tmp_path.iterdir()) == []
