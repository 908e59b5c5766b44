"""Provides the cloud side of a simulation: a new fleet with its own broker and receivers, or an existing fleet."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from agent.errors import Transient
from agent.formats.topics import PARTITIONS
from fleet.state.folder import FleetFolder
from lab.fleet import make_fleet
from lab.mosquitto import Broker
from lab.process import last_lines
from lab.receiver import Receiver
from lab.simulate.processes import Usage, total_usage

BROKER_S: Final = 10.0
"""Seconds that a broker may take to accept a connection."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """Holds the fleet of a simulation, and the address of its broker.

    If the fleet existed before, `broker` is None and `receivers` is empty, because the simulation does not run them.
    """

    fleet: FleetFolder
    host: str
    port: int
    broker: Broker | None = None
    receivers: tuple[Receiver, ...] = ()

    def usage(self) -> dict[str, Usage]:
        """Return the usage so far of the broker ("broker") and of all receivers together ("receiver").

        The dict is empty if the simulation does not run broker and receivers itself.
        """
        if self.broker is None:
            return {}
        assert self.broker.pid is not None
        return {
            "broker": total_usage([self.broker.pid]),
            "receiver": total_usage([receiver.pid for receiver in self.receivers]),
        }

    def stop_receivers(self) -> list[dict[str, Any]]:
        """Stop the receivers, and return for each receiver the totals in the last line of its log."""
        for receiver in self.receivers:
            receiver.stop()
        return [json.loads(last_lines(receiver.log, 1)) for receiver in self.receivers]

    def receivers_say(self) -> str:
        """Return the ends of the receivers' logs as text for a message."""
        return "".join(f"\n{receiver.name}:\n{last_lines(receiver.log)}" for receiver in self.receivers)


def given_cloud(fleet: FleetFolder, host: str, port: int) -> Cloud:
    """Return the cloud of an existing fleet.  Raises: AgentError if there is none, or its broker does not answer."""
    fleet.require()
    # The broker is tried before vehicles are enrolled.  If it failed later, the vehicles would stay in the registry.
    # The port for vehicles accepts no certificate of the fleet's own programs, so this connection ends before TLS.
    try:
        socket.create_connection((host, port), timeout=BROKER_S).close()
    except OSError as error:
        raise Transient(
            f"The broker {host}:{port} does not answer ({error.strerror or error}). Check that it is running, and name "
            "its port for vehicles."
        ) from error
    return Cloud(fleet, host, port)


@contextlib.contextmanager
def own_cloud(folder: Path, receivers: int) -> Iterator[Cloud]:
    """Make a fleet in `folder`, and run its broker and receivers on loopback for a `with` block."""
    fleet = make_fleet(folder / "fleet")
    with Broker(fleet, folder / "broker") as broker, contextlib.ExitStack() as stack:
        started: list[Receiver] = []
        for number, share in enumerate(shares(receivers)):
            receiver = Receiver(fleet, broker.fleet_port, folder / f"receiver-{number}.log", partitions=share)
            receiver.start()
            stack.callback(receiver.stop)
            started.append(receiver)
        # All receivers start before the first is waited for, because each needs a second for its imports.
        for receiver in started:
            receiver.until_connected()
        yield Cloud(fleet, "localhost", broker.port, broker, tuple(started))


def shares(receivers: int) -> list[str]:
    """Divide the partitions evenly among `receivers`, and return the shares, for example ["0-7/16", "8-15/16"]."""
    edges = [PARTITIONS * number // receivers for number in range(receivers + 1)]
    return [f"{first}-{last - 1}/{PARTITIONS}" for first, last in pairwise(edges)]
