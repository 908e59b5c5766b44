"""Runs inside User Mode Linux: one boot of a vehicle, until the power is cut or everything is delivered.

Every frame is written to the file `sent` before it is sent.  This file lies outside the machine, so it survives a cut.
A line is "BUS COUNT WALL TRUE": what the frame's counter is, what the wall clock shows, and the true time, both in
nanoseconds since 1970.  The first line is "boot 0 WALL TRUE".  Before the clock is set, a line "set 0 WALL TRUE" is
written.
"""

import json
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lab import can_interfaces
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.vehicle import Agent, Vehicle, nothing_waits
from tests.cuts.plan import Boot
from tests.cuts.world import BUSES, CutWorld

TICK_S: Final = 0.02
FRAMES_A_TICK: Final = 2
FRAME: Final = struct.Struct("=IB3x8s")
LOOK_S: Final = 0.2
LAST_DRIVE_S: Final = 3.0
PATIENCE_S: Final = 240.0
QUIET: Final = 8  # looks in a row, half a second apart; losses are reported every two seconds
SYNCHRONISED: Final = Path("/run/systemd/timesync/synchronized")


class Clocks:
    """Knows the true time, which is what the kernel's clock shows at boot, before this program sets it."""

    def __init__(self) -> None:
        self._boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    @property
    def true_ns(self) -> int:
        return self._boot_ns + time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def set_wrong(self, clock_s: float) -> None:
        time.clock_settime(time.CLOCK_REALTIME, clock_s)

    def set_right(self) -> None:
        time.clock_settime_ns(time.CLOCK_REALTIME, self.true_ns)
        # systemd-timesyncd makes this file when it has set the clock.
        SYNCHRONISED.parent.mkdir(parents=True, exist_ok=True)
        SYNCHRONISED.touch()


class Traffic:
    """Sends counted frames on all buses."""

    def __init__(self, boot: int, clocks: Clocks, sent: Path) -> None:
        self._count = boot << 32
        self._clocks = clocks
        self._log = sent.open("ab", buffering=0)
        self._sockets = {bus: socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) for bus in BUSES}
        for bus, each in self._sockets.items():
            each.bind((bus,))
        self._note("boot")

    def _tick(self) -> None:
        counts = range(self._count, self._count + FRAMES_A_TICK)
        self._count = counts.stop
        at = f"{time.time_ns()} {self._clocks.true_ns}"
        self._log.write("".join(f"{bus} {count} {at}\n" for bus in BUSES for count in counts).encode())
        for bus in BUSES:
            for count in counts:
                self._sockets[bus].send(FRAME.pack(0x123, 8, count.to_bytes(8, "little")))
        time.sleep(TICK_S)

    def send_for(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._tick()

    def send_until(self, reached: Callable[[], bool], agent: Agent) -> None:
        while not reached():
            agent.check_alive()
            self.send_for(LOOK_S)

    def set_clock(self) -> None:
        self._note("set")
        self._clocks.set_right()

    def _note(self, event: str) -> None:
        self._log.write(f"{event} 0 {time.time_ns()} {self._clocks.true_ns}\n".encode())


def main() -> None:
    world, boot = CutWorld(Path(sys.argv[1])), Boot(**json.loads(sys.argv[2]))
    folder = world.boot_folder(boot.number)
    clocks = Clocks()
    if boot.clock_s is None:
        clocks.set_right()
    else:
        clocks.set_wrong(boot.clock_s)
    for bus in BUSES:
        can_interfaces.add(bus)
    vehicle = world.vehicle()
    agent = vehicle.agent(folder / "agent.log")
    traffic = Traffic(boot.number, clocks, folder / "sent")
    with agent.running_now():
        drive(agent, boot, folder, traffic)
        deliver(world, vehicle, agent)


def drive(agent: Agent, boot: Boot, folder: Path, traffic: Traffic) -> None:
    """Send frames until the power is cut, or for LAST_DRIVE_S if no cut is planned.

    Tell the outside when the kernel keeps frames, and when the agent captures them.
    """
    agent.until(lambda: rings() == len(BUSES), "listening", PATIENCE_S)
    (folder / "listening").touch()
    traffic.send_until(lambda: agent.said("source_running") == len(BUSES), agent)
    (folder / "capturing").touch()
    if boot.set_after_s is not None:
        traffic.send_for(boot.set_after_s)
        traffic.set_clock()
    traffic.send_for(LAST_DRIVE_S if boot.cut_after_s is None else PATIENCE_S)


def rings() -> int:
    """Return how many packet sockets are bound to an interface of this machine."""
    lines = Path("/proc/net/packet").read_text().splitlines()[1:]
    return sum(line.split()[4] != "0" for line in lines)


def deliver(world: CutWorld, vehicle: Vehicle, agent: Agent) -> None:
    """Stop the agent, which stores its open windows, and start it again with a broker and a receiver.

    Wait until everything is in the lake.
    """
    broker = Broker(world.fleet, world.folder / "broker", port=vehicle.broker_port)
    receiver = Receiver(world.fleet, broker.fleet_port, world.folder / "receiver.log")
    assert agent.stop() == 0, agent.output()
    with broker, receiver.running_now():
        agent.start()
        quiet = 0
        end_s = time.monotonic() + PATIENCE_S
        while quiet < QUIET:
            time.sleep(0.5)
            receiver.check_alive()
            agent.check_alive()
            status = agent.status_or_none()
            quiet = quiet + 1 if status and delivered(status) else 0
            assert time.monotonic() < end_s, json.dumps(status)
        assert agent.stop() == 0, agent.output()
        assert receiver.stop() == 0, receiver.output()


def delivered(status: dict[str, Any]) -> bool:
    return status["link"]["state"] == "online" and nothing_waits(status)


if __name__ == "__main__":
    main()
