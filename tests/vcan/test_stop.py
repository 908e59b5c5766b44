"""A stop stores every frame that has arrived, once, however busy the buses are."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest

from lab import can_interfaces
from tests.vcan import PATIENCE_S
from tests.vcan.supervisor import Supervisor, settled
from tests.vcan.test_kill import BUSES, configure, counted
from tests.vcan.test_power_cut import names, open_windows

BURST = 300


def wait_for_sources(tmp_path: Path, buses: int) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while (tmp_path / "service.log").read_text().count("source_running") < buses:
        assert time.monotonic() < end_s
        time.sleep(0.1)


def send_burst(buses: list[can.BusABC]) -> None:
    for count in range(BURST):
        for bus in buses:
            bus.send(can.Message(arbitration_id=0x123, is_extended_id=False, data=count.to_bytes(8, "little")))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Supervisor]:
    config = tmp_path / "car" / "agent.toml"
    supervisor = Supervisor([sys.executable, "-m", "agent", "run", "--config", str(config)], tmp_path)
    yield supervisor
    supervisor.end()


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_stop_stores_every_frame_that_has_arrived_even_if_nothing_keeps_the_ring(tmp_path: Path) -> None:
    vehicle = configure(tmp_path)
    agent = vehicle.agent(tmp_path / "agent.log")
    with can_interfaces.vcan(*BUSES), agent.running_now():
        agent.until(lambda: bool(agent.lines("agent_ready")), "ready", PATIENCE_S)
        time.sleep(1)
        buses = [can.Bus(bus, "socketcan") for bus in BUSES]
        send_burst(buses)
        assert agent.stop() == 0, agent.output()
        for bus in buses:
            bus.shutdown()
    found = {key: counts.tolist() for key, counts in counted(tmp_path, vehicle).items()}
    assert found == {(name, bus): list(range(BURST)) for name in ("short", "long") for bus in BUSES}


@pytest.mark.timeout(4 * PATIENCE_S)
def test_a_stop_and_a_start_under_load_store_each_frame_once_if_the_ring_is_kept(
    tmp_path: Path, service: Supervisor
) -> None:
    vehicle = configure(tmp_path)
    with can_interfaces.vcan(*BUSES):
        service.start()
        service.wait_ready(PATIENCE_S)
        time.sleep(1)
        load = [can_interfaces.cangen(bus, "-g", "2", "-I", "123", "-L", "8", "-D", "i") for bus in BUSES]
        for _ in range(2):
            time.sleep(1)
            assert service.stop(PATIENCE_S) == 0, service.log
            time.sleep(0.5)
            service.start()
            service.wait_ready(PATIENCE_S)
        for process in load:
            process.terminate()
            process.wait()
        sent = {bus: settled(bus) for bus in BUSES}
        assert service.stop(PATIENCE_S) == 0, service.log
    found = {key: counts.tolist() for key, counts in counted(tmp_path, vehicle).items()}
    assert found == {(name, bus): list(range(sent[bus])) for name in ("short", "long") for bus in BUSES}


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_flooding_bus_does_not_prolong_a_stop(
    tmp_path: Path, service: Supervisor, record_property: Callable[[str, object], None]
) -> None:
    """A stop that read until the bus falls silent would not end.  The time of the stop depends on the machine."""
    configure(tmp_path)
    with can_interfaces.vcan(*BUSES):
        service.start()
        service.wait_ready(PATIENCE_S)
        load = [can_interfaces.cangen(bus, "-g", "0", "-m", "-I", "123", "-L", "8", "-D", "i") for bus in BUSES]
        wait_for_sources(tmp_path, len(BUSES))
        time.sleep(3)
        began_s = time.monotonic()
        assert service.stop(PATIENCE_S) == 0, service.log
        took_s = time.monotonic() - began_s
        for process in load:
            process.send_signal(signal.SIGTERM)
            process.wait()
    record_property("stop", f"{took_s:.2f} s")


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_cut_during_the_start_after_a_clean_stop_is_named(tmp_path: Path, service: Supervisor) -> None:
    vehicle = configure(tmp_path)
    with can_interfaces.vcan(*BUSES):
        service.start()
        service.wait_ready(PATIENCE_S)
        assert service.stop(PATIENCE_S) == 0, service.log
        service.forget()
        service.start()
        service.wait_held(len(BUSES), PATIENCE_S)
        buses = [can.Bus(bus, "socketcan") for bus in BUSES]
        send_burst(buses)
        sent_s = time.time()
        service.cut_power()
        for bus in buses:
            bus.shutdown()
        service.start()
        service.wait_ready(PATIENCE_S)
        assert service.stop(PATIENCE_S) == 0, service.log
    assert not counted(tmp_path, vehicle)
    losses = open_windows(vehicle.state / "spool")
    assert all(any(names(loss, "short", bus, sent_s) for loss in losses) for bus in BUSES), losses
    assert all(loss.last_t_us is None or loss.last_t_us < time.time() * 1e6 for loss in losses)


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_reload_under_load_stores_each_frame_once_and_names_no_loss(tmp_path: Path) -> None:
    vehicle = configure(tmp_path)
    agent = vehicle.agent(tmp_path / "agent.log")
    with can_interfaces.vcan(*BUSES), agent.running_now():
        agent.until(lambda: bool(agent.lines("agent_ready")), "ready", PATIENCE_S)
        time.sleep(1)
        load = [can_interfaces.cangen(bus, "-g", "2", "-I", "123", "-L", "8", "-D", "i") for bus in BUSES]
        time.sleep(2)
        vehicle.write(telemetry="increment_s = 0.4")
        agent.signal(signal.SIGHUP)
        agent.until(lambda: len(agent.lines("agent_ready")) == 2, "ready again", PATIENCE_S)
        time.sleep(1)
        for process in load:
            process.terminate()
            process.wait()
        sent = {bus: settled(bus) for bus in BUSES}
        assert agent.stop() == 0, agent.output()
    found = {key: counts.tolist() for key, counts in counted(tmp_path, vehicle).items()}
    assert found == {(name, bus): list(range(sent[bus])) for name in ("short", "long") for bus in BUSES}
    assert open_windows(vehicle.state / "spool") == []
