"""Features on demand, change notification and counts of a running agent, with real broker, receiver and lake."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Permanent
from lab.fleet import fleet_command
from lab.vehicle import Agent
from tests.agent.car import Car, command
from tests.integration.lake import receiving

pytestmark = pytest.mark.integration


def toggles(**terms: Any) -> str:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
    seats = flag | {"metadata": {"feature.outside": "off", **terms}}
    return json.dumps({"flags": {"heated-seats": seats, "plain": flag}})


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def put_in_force(car: Car, **terms: Any) -> None:
    car.put_in_force({"toggles.json": toggles(**terms).encode()}, signed_s=int(time.time()))


def in_file(car: Car, key: str = "heated-seats") -> Any:
    flags = json.loads((car.folder / "run" / "flags.flagd.json").read_bytes())["flags"]
    return flags[key]["defaultVariant"] if key in flags else None


@contextmanager
def listening(port: int) -> Iterator[list[str]]:
    """Listen to the event stream of the agent, and return the tags that it tells."""
    tags: list[str] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/ofrep/v1/sse")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"

    def listen() -> None:
        while line := answer.fp.readline():
            if line.startswith(b"data: "):
                tags.append(json.loads(line.removeprefix(b"data: "))["etag"])

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield tags
    finally:
        if connection.sock is not None:
            connection.sock.close()


def until(agent: Agent, car: Car, value: bool, what: str) -> None:
    agent.until(lambda: agent.toggle("heated-seats") is value, what)
    agent.until(lambda: in_file(car) == ("on" if value else "off"), f"{what} in the file")


def test_a_feature_begins_and_ends_by_itself_and_apps_are_told(tmp_path: Path) -> None:
    car = Car.make(tmp_path, sources="")
    put_in_force(car, **{"feature.start": in_s(8), "feature.end": in_s(30)})
    with car.running() as agent:
        agent.until(lambda: in_file(car) == "off", "in force")
        with listening(car.serve_port) as tags:
            agent.until(lambda: len(tags) == 1, "told what is in force")
            until(agent, car, True, "begun")
            agent.until(lambda: len(tags) == 2, "told of the start")
            until(agent, car, False, "ended")
            agent.until(lambda: len(tags) == 3, "told of the end")
        assert len(set(tags)) == 3
        assert agent.stop() == 0


def test_a_feature_ends_without_a_connection_and_no_restart_brings_it_back(tmp_path: Path) -> None:
    car = Car.make(tmp_path, sources="")
    end_s = time.time() + 20
    put_in_force(car, **{"feature.end": in_s(20), "feature.offlineGraceDays": 5 / 86_400})
    with car.running() as agent:  # without a broker
        until(agent, car, True, "on")
        until(agent, car, False, "ended")
        assert time.time() >= end_s + 5, "the grace time was too short"
        agent.kill()
    with car.running() as agent:
        until(agent, car, False, "still ended")
        assert agent.stop() == 0


def test_publish_refuses_terms_that_no_vehicle_could_keep(tmp_path: Path) -> None:
    car = Car.make(tmp_path, sources="")
    file = tmp_path / "toggles.json"
    file.write_text(toggles(**{"feature.ends": "2026-12-31T00:00:00Z"}))
    with pytest.raises(Permanent, match=r"flag 'heated-seats': metadata 'feature.ends' .* did you mean 'feature.end'"):
        fleet_command(car.fleet, "publish", "--toggles", str(file))


def test_evaluations_reach_the_lake_with_the_stop_of_the_agent(tmp_path: Path) -> None:
    car = Car.make(tmp_path, sources="")
    put_in_force(car, **{"feature.end": in_s(3_600)})
    with receiving(car):
        with car.running() as agent:
            for _ in range(5):
                assert agent.toggle("heated-seats") is True
            assert agent.toggle("plain") is True
            assert agent.stop() == 0
        with car.running() as agent:
            agent.until(lambda: len(counts(car)) == 2, "counted in the lake")
            assert agent.stop() == 0
    rows = {row["toggle"]: row for row in counts(car)}
    assert {key: (row["variant"], row["evaluations"], row["vehicles"]) for key, row in rows.items()} == {
        "heated-seats": ("on", 5, 1),
        "plain": ("on", 1, 1),
    }
    assert rows["plain"]["day"] == datetime.now(UTC).date().isoformat()


def counts(car: Car) -> list[dict[str, Any]]:
    answer = command("fleet", "query", "toggles", "--fleet", car.fleet.root, "--json")
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout)
    return rows
