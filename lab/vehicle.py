"""Makes the vehicle of a world: its folder with agent.toml, identity, campaigns and state, and its agent process."""

import http.client
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent
from agent.serve.addresses import SOCKET
from agent.serve.local_client import LocalConnection
from lab.machine import Machine, ThisMachine
from lab.mosquitto import free_port
from lab.process import PATIENCE_S, Process

IMPATIENT: Final = "ack_timeout_s = 2.0\nbackoff_max_s = 1.0"
"""Lines for the table [uplink].  On loopback an answer comes at once or never, so tests need no long timeouts."""

ANSWER_S: Final = 5.0


def delivered(status: Mapping[str, Any]) -> bool:
    """Return whether all sources have finished, and everything that they gave has been acknowledged or is lost."""
    return all(source["state"] == "finished" for source in status["sources"]) and nothing_waits(status)


def nothing_waits(status: Mapping[str, Any]) -> bool:
    """Return whether everything that has come in so far has been acknowledged or is lost."""
    telemetry = status["telemetry"]
    return not (telemetry["collecting"] or telemetry["in_memory_bytes"] or status["spool"]["waiting"])


class Agent(Process):
    """Runs the agent as a process, and asks its local HTTP interface as an app does."""

    def __init__(
        self,
        command: list[str],
        log: Path,
        port: int,
        *,
        machine: Machine | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("agent", command, log, machine=machine, environment=environment)
        self._port = port

    def status(self) -> dict[str, Any]:
        """Return the agent's status.  Raises: OSError or http.client.HTTPException while the agent does not answer."""
        found: dict[str, Any] = json.loads(ask(self._port, "GET", "/status", timeout_s=ANSWER_S))
        return found

    def status_or_none(self) -> dict[str, Any] | None:
        """Return the agent's status, or None while the agent does not answer."""
        try:
            return self.status()
        except (OSError, http.client.HTTPException):
            return None

    def toggle(self, key: str) -> Any:
        """Return the value of the toggle `key`, asked over OFREP as an app does."""
        return ask_toggle(self._port, key)

    def until_ready(self) -> None:
        """Wait until the agent has logged that it is ready.  Raises: Permanent, as `until` does."""
        self.until(lambda: self.said("agent_ready"), "ready")

    def until_status(
        self, test: Callable[[dict[str, Any]], object], what: str, timeout_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Wait until the agent's status passes `test`, and return that status.  `what` names the condition in errors.

        Raises: Permanent, with the last status, if no status passes within `timeout_s` or the agent ends.
        """
        last: dict[str, Any] | None = None

        def holds() -> object:
            nonlocal last
            last = self.status_or_none()
            return last is not None and test(last)

        try:
            self.until(holds, what, timeout_s)
        except Permanent as error:
            raise Permanent(f"{error}\nThe agent's last status: {json.dumps(last)}") from error
        assert last is not None
        return last


class Vehicle:
    """Holds one vehicle in `folder`.  Its ports stay the same over restarts of broker and agent.

    `sources` is the text of the [[sources]] tables of agent.toml, and `buses` the text of the [bus.*] tables.
    `sections` maps the names of other tables to the text of their lines.  `limits` replaces limits of the agent that
    agent.toml cannot set (`lab.tight_agent`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        broker_port: int | None = None,
        serve_port: int | None = None,
        sources: str = "",
        buses: str = "",
        machine: Machine | None = None,
        limits: Mapping[str, float] | None = None,
        **sections: str,
    ) -> None:
        self.folder = folder
        self.config = folder / "agent.toml"
        self.identity = folder / "identity"
        self.campaigns = folder / "campaigns"
        self.state = folder / "state"
        self.sources = sources
        self.buses = buses
        self.broker_port = free_port() if broker_port is None else broker_port
        self.serve_port = free_port() if serve_port is None else serve_port
        # Relative folders lie beside agent.toml.  The defaults for the folders of identity and campaigns fit already.
        self.sections = {"state": 'folder = "state"\nruntime_folder = "run"', "uplink": IMPATIENT, **sections}
        self._machine = machine or ThisMachine()
        self.limits = limits or {}

    def write(self, *, sources: str | None = None, serve_port: int | None = None, **sections: str) -> Path:
        """Write agent.toml and return its path.  An argument that is left out keeps its earlier value."""
        self.sources = self.sources if sources is None else sources
        self.serve_port = self.serve_port if serve_port is None else serve_port
        self.sections |= sections
        ours = {
            "uplink": f'broker = "localhost:{self.broker_port}"',
            "serve": f"port = {self.serve_port}",
            "log": 'format = "json"',
        }
        tables = [self.sources, self.buses]
        for name in dict.fromkeys((*self.sections, *ours)):
            # TOML refuses a table that occurs twice, so the lines written here and the caller's lines share one table.
            tables.append(f"[{name}]\n{ours.get(name, '')}\n{self.sections.get(name, '')}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text("\n".join(tables) + "\n")
        return self.config

    @property
    def socket(self) -> Path:
        """Return the Unix socket at which the agent answers."""
        return self.folder / "run" / SOCKET

    def write_campaigns(self, *documents: Mapping[str, Any]) -> None:
        """Write each campaign to the file NAME.json in the folder of campaigns."""
        self.campaigns.mkdir(parents=True, exist_ok=True)
        for document in documents:
            (self.campaigns / f"{document['name']}.json").write_text(json.dumps(document, indent=2))

    def agent(self, log: Path, verb: str = "run", *more: str, environment: Mapping[str, str] | None = None) -> Agent:
        """Return the process `headunit-agent VERB --config ...` of this vehicle, without starting it."""
        tight = [word for name, limit in self.limits.items() for word in ("--limit", f"{name}={limit}")]
        program = self._machine.python("lab.tight_agent" if tight else "agent")
        command = [*program, verb, "--config", str(self.config), *more, *tight]
        return Agent(command, log, self.serve_port, machine=self._machine, environment=environment)


def ask(
    address: int | Path, method: str, path: str, body: str | None = None, *, timeout_s: float = PATIENCE_S
) -> bytes:
    """Send one request to a port of 127.0.0.1, or to a Unix socket, and return the body of the answer.

    Raises: OSError or http.client.HTTPException if no program answers.
    """
    if isinstance(address, Path):
        connection: http.client.HTTPConnection = LocalConnection(address, timeout_s)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", address, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        return connection.getresponse().read()
    finally:
        connection.close()


def ask_toggle(address: int | Path, key: str) -> Any:
    """Return the value of the toggle `key` that the program at `address` tells over OFREP.  Raises: see `ask`."""
    return json.loads(ask(address, "POST", f"/ofrep/v1/evaluate/flags/{key}", '{"context": {}}'))["value"]


def collect_everything(period_ms: int, signals: str = "*", name: str = "everything") -> dict[str, Any]:
    """Return a campaign that keeps every sample of the signals that match `signals`, in windows of `period_ms`."""
    scheme = {"timeBasedCollectionScheme": {"periodMs": period_ms}}
    return {"name": name, "collectionScheme": scheme, "signalsToCollect": [{"name": signals}]}
