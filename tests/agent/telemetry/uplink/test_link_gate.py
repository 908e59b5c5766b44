"""Test the gate for metered links with a real file and a simulated machine."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, ClockQuality
from agent.telemetry.uplink.link_gate import LinkGate, Metered
from agent.telemetry.uplink.link_policy import LinkPolicy

POLICY = LinkPolicy(frozenset(Lane), 10_000)
FRESH = (Lane.EVENTS, Lane.LIVE)


class Machine:
    """Simulates a machine: its clock, and what its system reports about the link."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "metered.json"
        self.now = Clock(ClockQuality.UNSYNCHRONISED, "boot-1", 10**12, 10**9)
        self.link: bool | None = True
        self.asked: list[str] = []

    def later(self, seconds: float, *, wall_jump_s: float = 0) -> None:
        self.now = replace(
            self.now,
            wall_us=self.now.wall_us + round((seconds + wall_jump_s) * 1e6),
            boottime_us=self.now.boottime_us + round(seconds * 1e6),
        )

    def reboot(self) -> None:
        self.now = replace(self.now, boot_id=self.now.boot_id + "1", boottime_us=5_000_000)

    def gate(self, metered: Metered = "auto", look_s: float = 60.0) -> LinkGate:
        return LinkGate(POLICY, self.file, lambda: self.now, metered=metered, ask=self._ask, look_s=look_s)

    async def _ask(self, address: str) -> bool | None:
        self.asked.append(address)
        return self.link


def looked(gate: LinkGate) -> LinkGate:
    asyncio.run(gate.look("192.0.2.1"))
    return gate


def test_the_system_is_asked_about_the_connections_own_address(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert looked(machine.gate()).metered is True
    assert machine.asked == ["192.0.2.1"]


def test_the_settings_word_is_final(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert looked(machine.gate(metered=False)).metered is False
    assert looked(machine.gate(metered=True)).metered is True
    assert machine.asked == []


def test_bytes_of_metered_links_alone_are_counted_and_end_the_backlog_for_the_day(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    gate = looked(machine.gate())
    gate.sent(9_999)
    assert gate.lanes() == tuple(Lane)
    gate.sent(1)
    assert gate.lanes() == FRESH
    machine.link = False
    looked(gate).sent(5_000)
    assert gate.lanes() == tuple(Lane)
    machine.link = True
    assert looked(gate).status() == {
        "metered": True,
        "lanes": ["events", "live"],
        "metered_bytes_today": 10_000,
        "metered_daily_bytes": 10_000,
    }
    machine.later(86_401.0)
    assert gate.lanes() == tuple(Lane)


def test_the_count_survives_restarts_reboots_and_jumps_of_the_clock(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    gate = looked(machine.gate())
    gate.sent(10_000)
    gate.save()
    events: list[Callable[[], None]] = [
        lambda: machine.later(10.0),
        lambda: machine.later(10.0, wall_jump_s=10 * 86_400.0),
        lambda: machine.later(10.0, wall_jump_s=-40 * 86_400.0),
        machine.reboot,
    ]
    for happens in events:
        happens()
        gate = looked(machine.gate())
        assert gate.lanes() == FRESH
        gate.save()
    machine.later(86_400.0)
    assert looked(machine.gate()).lanes() == tuple(Lane)


def test_watching_saves_and_tells_of_each_look(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    async def watch(gate: LinkGate) -> None:
        looks = asyncio.Event()
        task = asyncio.create_task(gate.watch("192.0.2.1", looks.set))
        async with asyncio.timeout(5):
            await looks.wait()
        task.cancel()
        await asyncio.wait({task})

    gate = looked(machine.gate(look_s=0.01))
    gate.sent(300)
    asyncio.run(watch(gate))
    assert looked(machine.gate()).today().used_bytes == 300


def test_a_damaged_file_is_named_and_the_count_begins_anew(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.file.write_bytes(b'{"today": {"used_')
    with structlog.testing.capture_logs() as logs:
        assert machine.gate().today().used_bytes == 0
    assert [line["event"] for line in logs] == ["metered_use_unreadable"]


def test_a_disk_that_refuses_costs_nothing_but_the_memory_of_a_crash(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "missing")
    gate = looked(machine.gate())
    gate.sent(10_000)
    with structlog.testing.capture_logs() as logs:
        gate.save()
        gate.save()
    assert [line["event"] for line in logs] == ["metered_use_not_saved"]
    assert gate.lanes() == FRESH


def test_other_rules_keep_the_count_of_the_day(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    gate = looked(machine.gate())
    gate.sent(6_000)
    gate.set_rules(LinkPolicy(frozenset(Lane), 5_000), "auto")
    assert (gate.metered, gate.lanes(), gate.today().used_bytes) == (True, FRESH, 6_000)
    gate.set_rules(LinkPolicy(frozenset(Lane), 5_000), metered=False)
    assert (gate.metered, gate.lanes()) == (False, tuple(Lane))
    gate.set_rules(LinkPolicy(frozenset(Lane), 5_000), "auto")
    assert looked(gate).metered is True
