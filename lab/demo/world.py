"""The processes of the demonstration: broker, receiver and agent as an operator would start them, on loopback.

Each is a child process with its own log file, ended by its process id.  `World` starts nothing by itself; it owns what
was started and ends all of it.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.errors import Permanent
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker, free_port
from lab.process import Process, last_lines

STATUS_TIMEOUT_S = 5.0


class World:
    """A fleet of one vehicle in `folder`: fleet folder, vehicle folder, and the three programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = FleetFolder(folder / "fleet")
        self.vehicle_folder = folder / "vehicle" / "identity"
        self.broker = Broker(self.fleet, folder / "broker")
        self.status_port = free_port()
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.receiver = self._process(
            "receiver",
            ["-m", "fleet", "receive", "--fleet", str(self.fleet.root), "--broker", f"localhost:{self.broker.port}"],
        )
        self.agent_config = folder / "vehicle" / "agent.toml"
        self.agent = self._process("agent", ["-m", "agent", "run", "--config", str(self.agent_config)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.agent.stop()
        self.receiver.stop()
        self.broker.stop()

    def _process(self, name: str, arguments: Sequence[str]) -> Process:
        return Process(name, [sys.executable, *arguments], self.folder / f"{name}.log", self._environment)

    async def fleet_command(self, *arguments: str, fleet: FleetFolder | None = None) -> Any:
        """Run `fleet ... --json` as an operator would; its parsed answer.  Raises Permanent where it fails."""
        folder = (fleet or self.fleet).root
        command = [sys.executable, "-m", "fleet", arguments[0], "--fleet", str(folder), *arguments[1:], "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment
        )
        output, errors = await process.communicate()
        if process.returncode:
            raise Permanent(f"fleet {' '.join(arguments)}: {errors.decode().strip() or output.decode().strip()}")
        return json.loads(output)

    async def status(self) -> dict[str, Any] | None:
        """The agent's status; None while it does not answer."""
        return await asyncio.to_thread(self._status)

    def _status(self) -> dict[str, Any] | None:
        url = f"http://127.0.0.1:{self.status_port}/status"
        try:
            with urllib.request.urlopen(url, timeout=STATUS_TIMEOUT_S) as answer:
                found: dict[str, Any] = json.load(answer)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None
        return found

    async def toggle(self, key: str) -> Any:
        """A toggle's value as an app of the head unit gets it, over OFREP; None while it is not served."""
        return await asyncio.to_thread(self._toggle, key)

    def _toggle(self, key: str) -> Any:
        url = f"http://127.0.0.1:{self.status_port}/ofrep/v1/evaluate/flags/{key}"
        request = urllib.request.Request(
            url, data=b'{"context": {}}', headers={"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=STATUS_TIMEOUT_S) as answer:  # noqa: S310
                return json.load(answer)["value"]
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    async def until(self, condition: str, test: Any, timeout_s: float) -> dict[str, Any]:
        """Wait until `test(status)` holds; the status.  Raises Permanent with the logs where it never does."""
        deadline = time.monotonic() + timeout_s
        status: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            self.agent.check_alive()
            self.receiver.check_alive()
            status = await self.status()
            if status is not None and test(status):
                return status
            await asyncio.sleep(0.2)
        raise Permanent(
            f"not within {timeout_s:.0f} s: {condition}\nstatus: {json.dumps(status)}\n"
            f"agent:\n{last_lines(self.agent.log)}\nreceiver:\n{last_lines(self.receiver.log)}"
        )
