"""The state of the fleet is put back, copied, deleted or opened with a wrong key, and no acknowledgement becomes a lie.

What the receiver has acknowledged is in the lake exactly once, or the receiver says at its start that it is missing.
"""

import asyncio
import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.formats import topics
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import read_header
from agent.link.mqtt import connect
from fleet.lake.query import ask_sql
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker
from lab.receiver import Receiver
from tests.attack_report import RecordAttack
from tests.attacks.honest import endpoint_of
from tests.fleet.vehicles import Vehicle, make_vehicle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ANSWER_S = 60.0  # how long a batch may stay without an answer, on a slow machine
SILENCE_S = 3.0  # how long the test waits for an answer that must not come


@pytest.fixture
def broker(fleet: FleetFolder, tmp_path: Path) -> Iterator[Broker]:
    with Broker(fleet, tmp_path / "broker") as running:
        yield running


@pytest.fixture
def vehicle(fleet: FleetFolder, tmp_path: Path) -> Vehicle:
    return make_vehicle(fleet, tmp_path / "vehicle")


def run(fleet: FleetFolder, broker: Broker, log: Path, *arguments: str) -> contextlib.AbstractContextManager[Receiver]:
    return Receiver(fleet, broker.fleet_port, log, arguments=arguments).running_now()


def send(vehicle: Vehicle, broker: Broker, *seqs: int, wait_s: float = ANSWER_S) -> set[int]:
    """Send batches, and return those that were acknowledged as stored within `wait_s` seconds."""

    async def exchange() -> set[int]:
        stored: set[int] = set()
        async with connect(endpoint_of(vehicle, broker.port)) as connection:
            await connection.subscribe([topics.ack(vehicle.name)])
            for seq in seqs:
                await connection.publish(vehicle.topic, vehicle.batch(seq))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    async for _, payload in connection.messages():
                        stored |= {seq for seq, _ in vehicle.verify(payload).stored}
                        if stored >= set(seqs):
                            break
        return stored

    return asyncio.run(exchange())


def drive(fleet: FleetFolder, broker: Broker, vehicle: Vehicle, log: Path, *seqs: int) -> str:
    """Start a receiver, send it batches that it must store, stop it, and return its log."""
    with run(fleet, broker, log) as receiver:
        receiver.until_connected()
        assert send(vehicle, broker, *seqs) == set(seqs)
        assert receiver.stop() == 0, receiver.output()[-2_000:]
        return receiver.output()


def in_lake(fleet: FleetFolder) -> dict[int, int]:
    """Return how often the lake has each batch, judged by its samples."""
    rows = ask_sql(str(fleet.lake), "SELECT seq, count(*) FROM samples GROUP BY seq").rows
    counts = Counter({int(str(seq)): int(str(count)) for seq, count in rows})
    assert not [count for count in counts.values() if count % 20]
    return {seq: count // 20 for seq, count in counts.items()}


def events_in_lake(fleet: FleetFolder) -> dict[int, int]:
    """Return how often the lake has each batch, judged by its one event."""
    rows = ask_sql(str(fleet.lake), "SELECT seq, count(*) FROM events GROUP BY seq").rows
    return {int(str(seq)): int(str(count)) for seq, count in rows}


def said(output: str, event: str) -> dict[str, Any]:
    """Return the line of the log that has this event."""
    lines = [json.loads(line) for line in output.splitlines() if f'"{event}"' in line]
    assert len(lines) == 1, output[-3_000:]
    return dict(lines[0])


@pytest.mark.attack(
    "8",
    "the lake is put back to an older backup",
    how="The lake is put back to a backup that lacks acknowledged batches; the inbox is not.",
)
def test_a_lake_that_is_older_than_its_inbox_is_said_and_what_it_lost_is_taken_again(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, tmp_path: Path, attack: RecordAttack
) -> None:
    drive(fleet, broker, vehicle, tmp_path / "1.log", 1, 2)
    shutil.copytree(fleet.lake, tmp_path / "backup")
    drive(fleet, broker, vehicle, tmp_path / "2.log", 3, 4)
    shutil.rmtree(fleet.lake)
    shutil.copytree(tmp_path / "backup", fleet.lake)
    line = said(drive(fleet, broker, vehicle, tmp_path / "3.log", 1, 2, 3, 4, 5), "lake_is_older")
    assert (line["missing"], line["vehicles"]) == (2, {vehicle.name: 2})
    assert in_lake(fleet) == dict.fromkeys(range(1, 6), 1)
    attack(receipt="lake_is_older", figure={"missing_and_said": line["missing"]})


@pytest.mark.parametrize("deleted", ["", "samples", "events", "batches"])
@pytest.mark.attack(
    "8",
    "the lake or one of its tables is deleted",
    how="The lake, or one of its tables, is deleted; the inbox is not.",
    before="answered as stored, if only samples or events were deleted",
)
def test_a_lake_that_was_deleted_is_refused_until_the_operator_accepts_it(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, tmp_path: Path, attack: RecordAttack, deleted: str
) -> None:
    drive(fleet, broker, vehicle, tmp_path / "1.log", 1, 2)
    shutil.rmtree(fleet.lake / deleted)
    with run(fleet, broker, tmp_path / "2.log") as receiver:
        assert receiver.wait(ANSWER_S) == 1
        assert "--accept-lake" in receiver.output()
        assert '"broker_connected"' not in receiver.output()
    assert not (fleet.lake / deleted).exists()  # a wrong --lake leaves no empty lake behind
    with run(fleet, broker, tmp_path / "3.log", "--accept-lake") as receiver:
        receiver.until_connected()
        assert said(receiver.output(), "lake_is_older")["missing"] == 2
        assert send(vehicle, broker, 1, 2, 3) == {1, 2, 3}
        assert receiver.stop() == 0
    drive(fleet, broker, vehicle, tmp_path / "4.log", 4)
    assert in_lake(fleet) == events_in_lake(fleet) == dict.fromkeys(range(1, 5), 1)
    attack(receipt="exit 1, --accept-lake", figure={"missing_and_said": 2})


@pytest.mark.parametrize("table", ["samples", "events"])
@pytest.mark.attack(
    "8",
    "one table of the lake is put back to an older backup",
    how="A table is put back to a backup that lacks acknowledged batches; inbox and other tables are not.",
    before="answered as stored",
)
def test_a_table_that_is_older_than_the_others_is_said_and_what_it_lost_is_taken_again(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, tmp_path: Path, attack: RecordAttack, table: str
) -> None:
    drive(fleet, broker, vehicle, tmp_path / "1.log", 1, 2)
    shutil.copytree(fleet.lake / table, tmp_path / "backup")
    drive(fleet, broker, vehicle, tmp_path / "2.log", 3, 4)
    shutil.rmtree(fleet.lake / table)
    shutil.copytree(tmp_path / "backup", fleet.lake / table)
    line = said(drive(fleet, broker, vehicle, tmp_path / "3.log", 1, 2, 3, 4, 5), "lake_is_older")
    assert (line["tables"], line["missing"], line["vehicles"]) == ([table], 2, {vehicle.name: 2})
    assert in_lake(fleet) == events_in_lake(fleet) == dict.fromkeys(range(1, 6), 1)
    attack(receipt="lake_is_older", figure={"missing_and_said": line["missing"]})


@pytest.mark.attack(
    "8",
    "two copies of a fleet folder write to one lake",
    how="A copy of the fleet folder runs beside the original, with the same lake and broker.",
    before="2 of 4 acknowledged batches missing",
)
def test_two_copies_of_a_fleet_folder_on_one_lake_never_acknowledge_what_is_not_there(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, tmp_path: Path, attack: RecordAttack
) -> None:
    drive(fleet, broker, vehicle, tmp_path / "1.log", 1)
    copy = FleetFolder(tmp_path / "copy")
    shutil.copytree(fleet.root, copy.root, ignore=shutil.ignore_patterns("lake"))
    acknowledged = set()
    with run(fleet, broker, tmp_path / "2.log") as original:
        original.until_connected()
        acknowledged |= send(vehicle, broker, 2)
        with run(copy, broker, tmp_path / "3.log", "--lake", str(fleet.lake)) as copied:
            copied.until_connected()
            acknowledged |= send(vehicle, broker, 2, 3)
            assert original.wait(ANSWER_S) == 1
            assert "has claimed" in original.output()
            acknowledged |= send(vehicle, broker, 4, 5)
            assert copied.stop() == 0, copied.output()[-2_000:]
    assert acknowledged == {2, 3, 4, 5}
    assert in_lake(fleet) == dict.fromkeys(range(1, 6), 1)
    drive(fleet, broker, vehicle, tmp_path / "4.log", 2, 3, 4, 5, 6)  # the original learns what the copy has stored
    assert in_lake(fleet) == dict.fromkeys(range(1, 7), 1)
    attack(receipt="has claimed", figure={"missing": len(acknowledged - in_lake(fleet).keys())})


@pytest.mark.attack(
    "8",
    "the inbox is put back to an older backup",
    how="The inbox is put back to a backup that lacks acknowledged batches; the lake is not.",
)
def test_an_inbox_that_is_older_than_its_lake_learns_from_it(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, tmp_path: Path, attack: RecordAttack
) -> None:
    drive(fleet, broker, vehicle, tmp_path / "1.log", 1)
    shutil.copytree(fleet.receiver, tmp_path / "backup")
    drive(fleet, broker, vehicle, tmp_path / "2.log", 2, 3)
    shutil.rmtree(fleet.receiver)
    shutil.copytree(tmp_path / "backup", fleet.receiver)
    said(drive(fleet, broker, vehicle, tmp_path / "3.log", 2, 3, 4), "inbox_is_older")
    assert in_lake(fleet) == dict.fromkeys(range(1, 5), 1)
    attack(receipt="inbox_is_older")


@pytest.mark.attack(
    "8",
    "the receiver recovers once with a wrong sealing key",
    how="The receiver is killed while batches are in its inbox, and started once with another HPKE key.",
    before="quarantined batches acknowledged as stored",
)
def test_a_batch_that_a_wrong_key_could_not_open_at_recovery_is_never_known_as_stored(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, tmp_path: Path, attack: RecordAttack
) -> None:
    drive(fleet, broker, vehicle, tmp_path / "1.log", 1)
    with run(fleet, broker, tmp_path / "2.log") as receiver:
        receiver.until_connected()
        (fleet.lake / "samples").rename(tmp_path / "samples")  # the lake refuses, so batches stay in the inbox
        (fleet.lake / "samples").write_text("")
        assert send(vehicle, broker, 2, 3, wait_s=SILENCE_S) == set()
        receiver.until(lambda: receiver.said("store_unavailable"), "met the lake", ANSWER_S)
        receiver.kill()
    (fleet.lake / "samples").unlink()
    (tmp_path / "samples").rename(fleet.lake / "samples")
    right = fleet.hpke_private.read_bytes()
    suite = read_header(vehicle.batch(1)).suite
    fleet.hpke_private.write_bytes(RecipientPrivateKey.generate(suite).to_json())
    with run(fleet, broker, tmp_path / "3.log") as receiver:
        receiver.until_connected()
        assert send(vehicle, broker, 2, 3, wait_s=SILENCE_S) == set()
        assert receiver.stop() == 0
    fleet.hpke_private.write_bytes(right)
    output = drive(fleet, broker, vehicle, tmp_path / "4.log", 1, 2, 3)
    assert '"epoch_forked"' not in output
    assert in_lake(fleet) == {1: 1, 2: 1, 3: 1}
    attack(receipt="quarantine", figure={"missing": len({1, 2, 3} - in_lake(fleet).keys())})
