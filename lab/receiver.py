"""Runs the receiver of a world: the command `fleet receive` as a child process."""

from collections.abc import Sequence
from pathlib import Path

from fleet.state.folder import FleetFolder
from lab.machine import Machine, ThisMachine
from lab.process import PATIENCE_S, Process


class Receiver(Process):
    """Runs a receiver that connects to localhost:`broker_port`, the broker's port for the fleet's own programs.

    `partitions` is the value of `fleet receive --partitions`, for example `0-3/16`.  None means all partitions.
    `arguments` are further arguments of `fleet receive`.
    """

    def __init__(
        self,
        fleet: FleetFolder,
        broker_port: int,
        log: Path,
        *,
        partitions: str | None = None,
        arguments: Sequence[str] = (),
        machine: Machine | None = None,
    ) -> None:
        machine = machine or ThisMachine()
        command = [*machine.python("fleet"), "receive", "--fleet", str(fleet.root), "--json"]
        command += ["--broker", f"localhost:{broker_port}"]
        if partitions is not None:
            command += ["--partitions", partitions]
        command += arguments
        super().__init__("receiver", command, log, machine=machine)

    def until_connected(self, times: int = 1, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the receiver has connected `times` times, over all its starts.

        Raises: Permanent if the receiver ends first, or if `timeout_s` seconds pass first.
        """
        self.until(lambda: self.output().count('"broker_connected"') >= times, "connected", timeout_s)
