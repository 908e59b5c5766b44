"""Vehicle and lake agree on every sequence number: delivered, waiting, or lost with reason, lane and times."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agent.formats.topics import Lane
from agent.formats.up.recipient import RecipientPublicKey
from agent.formats.up.seal import Header, seal
from fleet.state.keys import read_p256
from lab.vehicle import Agent
from tests.agent.car import Car, command, vehicle
from tests.agent.telemetry.spool.store import Draft, Store
from tests.integration.lake import receiving

pytestmark = pytest.mark.integration
TIGHT = {"batch_max_bytes": 20_000}
QUOTA = "quota_mb = 0.2\nreserve_mb = 0"
IN_LAKE = {"delivered": "stored", "lost": "lost", "waiting": "open"}


@pytest.fixture
def car(tmp_path: Path) -> Car:
    car = Car.make(tmp_path, spool=QUOTA, limits=TIGHT)
    car.write(telemetry="increment_s = 0.2", sources=vehicle(speed=5))
    return car


def open_spool(car: Car) -> Store:
    return Store.open(car.state / "spool", quota_bytes=200_000, max_age_s=1e9, reserve_bytes=0)


def add_what_nobody_can_read(car: Car) -> int:
    """Store a batch that the vehicle has signed and the receiver refuses for good, and return its number."""
    recipient = RecipientPublicKey.from_json((car.identity / "hpke.pub.json").read_bytes(), "hpke.pub.json")
    key = read_p256(car.identity / "device.key.pem")
    name = json.loads(command("agent", "check", "--config", car.config, "--json").stdout)["vehicle"]
    spool = open_spool(car)
    try:
        epoch = spool.epoch

        def sealed(seq: int) -> bytes:
            header = Header(name, epoch, seq, Lane.LIVE, recipient.key_id, recipient.suite, time.time_ns() // 1000)
            return seal(header, b"no body of ours", key, recipient)

        return spool.append(Draft(Lane.LIVE, 0, "everything", sealed, 7, 1_000_000, 2_000_000))
    finally:
        spool.close()


def damage_one(car: Car) -> int:
    """Damage the newest stored batch of samples, which the quota evicts last, and return its number."""
    path = sorted((car.state / "spool" / "batches").rglob("*.live.*.batch"))[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return int(path.name.split(".")[0])


def by_number(lines: list[dict[str, Any]]) -> dict[tuple[str, int], tuple[str, ...]]:
    """Return the state of each (epoch, number), and for lost batches also reason, lane and times."""
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for line in lines:
        if line["first_seq"] is None:
            continue
        why = (line["reason"], line["lane"], *(moment(line[name]) for name in ("first", "last")))
        for seq in range(line["first_seq"], line["last_seq"] + 1):
            assert (line["epoch"], seq) not in found
            found[line["epoch"], seq] = (line["state"], *(why if line["state"] == "lost" else ()))
    return found


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def both(car: Car) -> tuple[dict[tuple[str, int], tuple[str, ...]], dict[tuple[str, int], tuple[str, ...]]]:
    own = command("agent", "status", "--ledger", "--json", "--config", car.config)
    lake = command("fleet", "query", "ledger", "--fleet", car.fleet.root, "--limit", "100000", "--json")
    assert (own.returncode, lake.returncode) == (0, 0), own.stderr + lake.stderr
    return by_number(json.loads(own.stdout)), by_number(json.loads(lake.stdout))


def settled(status: dict[str, Any]) -> bool:
    return bool(
        status["spool"]["waiting"] == 0
        and {"corrupt", "refused_by_receiver", "evicted_quota"} <= status["spool"]["lost"].keys()
    )


def evicted(agent: Agent) -> None:
    agent.until_status(
        lambda s: s["spool"]["lost"].get("evicted_quota", {"batches": 0})["batches"] >= 8, "evicting for the quota"
    )


def test_every_number_is_the_same_in_the_vehicle_and_in_the_lake(car: Car) -> None:
    with car.running() as agent:  # there is no broker, so the spool overflows
        evicted(agent)
        assert agent.stop() == 0
    damaged, refused = damage_one(car), add_what_nobody_can_read(car)
    car.write(sources=vehicle(duration_s=0.5))
    with receiving(car), car.running() as agent:
        agent.until_status(settled, "everything sent")
        time.sleep(3.0)  # the losses travel in a later batch
        agent.until_status(settled, "the losses told")
        assert agent.stop() == 0  # the stop stores one more batch, which waits
        own, lake = both(car)

    assert {state for state, *_ in own.values()} >= {"delivered", "lost", "waiting"}
    numbers = sorted(seq for _, seq in own)
    assert numbers == list(range(1, numbers[-1] + 1))
    for key, (state, *why) in own.items():
        there, *because = lake.get(key, ("open",))
        assert there == IN_LAKE[state], key
        assert because == why, key
    assert lake.keys() <= own.keys()
    reasons = {key[1]: why[0] for key, (state, *why) in own.items() if state == "lost"}
    assert reasons[refused] == "refused_by_receiver"
    assert reasons[damaged] == "corrupt"
    assert list(reasons.values()).count("evicted_quota") >= 8
    assert not [key for key, (state, *_) in lake.items() if state == "open" and own[key][0] != "waiting"]
