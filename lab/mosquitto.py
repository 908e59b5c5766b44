"""A mosquitto of our own: its configuration and access-control list, and the process that runs it.

The demo and the integration tests run this broker on loopback; `config/mosquitto/` documents the same
settings for a deployment.  The invariant: a client is who its certificate says (CN becomes the user name),
and the list lets a vehicle use its own topics only, so one stolen vehicle key neither reads nor writes for
another vehicle.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.errors import Permanent, Transient
from agent.system.durable import write_file
from fleet.state.access_list import ACCESS_LIST
from fleet.state.folder import FleetFolder

_CONFIGURATION = """\
# Written by lab/mosquitto.py; the reasons stand in config/mosquitto/mosquitto.conf.
user {user}
listener {port} 127.0.0.1
cafile {ca}
certfile {certificate}
keyfile {key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {acl}
max_packet_size {packet_bytes}
max_queued_messages 1000
max_keepalive 300
set_tcp_nodelay true
persistence true
persistence_location {state}/
autosave_interval 60
log_dest file {log}
log_type error
log_type warning
log_type notice
connection_messages true
"""

PACKET_BYTES = 128 * 1024
"""Largest MQTT packet, that of AWS IoT Core: batches stay under 60 KB, bundles under 100 KB."""

START_S = 10.0
STOP_S = 10.0
_POLL_S = 0.02


def find_mosquitto() -> Path:
    """The mosquitto program; Permanent with the remedy when it is not installed."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Permanent("mosquitto is not installed: sudo apt-get install --no-install-recommends mosquitto")
    return Path(found)


def free_port() -> int:
    """A TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_configuration(fleet: FleetFolder, state: Path, port: int, packet_bytes: int = PACKET_BYTES) -> Path:
    """Write access-control list and configuration of a loopback broker that keeps its state in `state`.

    `user` is whoever runs this: mosquitto, started by root, would otherwise become a user who may not read
    the server key.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(fleet.broker_acl, ACCESS_LIST.encode())
    configuration = state / "mosquitto.conf"
    text = _CONFIGURATION.format(
        user="root" if os.geteuid() == 0 else "mosquitto",
        port=port,
        ca=fleet.ca_certificate.resolve(),
        certificate=fleet.broker_certificate.resolve(),
        key=fleet.broker_key.resolve(),
        acl=fleet.broker_acl.resolve(),
        packet_bytes=packet_bytes,
        state=state.resolve(),
        log=(state / "mosquitto.log").resolve(),
    )
    write_file(configuration, text.encode())
    return configuration


class Broker:
    """mosquitto as a child process on 127.0.0.1:`port`, the same port over every restart.

    A context manager that starts it and stops it.  The methods block for at most START_S or STOP_S seconds.
    """

    def __init__(self, fleet: FleetFolder, state: Path, *, port: int | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = free_port() if port is None else port
        self._fleet = fleet
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What mosquitto logged, over all its starts."""
        return self._state / "mosquitto.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self, *, packet_bytes: int = PACKET_BYTES) -> None:
        """Start and return once it listens.  Permanent when mosquitto refuses, Transient when it takes too
        long.  `packet_bytes`: the largest MQTT packet that it takes."""
        if self._process is not None:
            raise Permanent(f"the broker on port {self.port} runs already (process {self._process.pid})")
        if self._listens():
            raise Permanent(f"port {self.port} of {self.host} is in use by another program; choose another")
        program = find_mosquitto()
        configuration = write_configuration(self._fleet, self._state, self.port, packet_bytes)
        output = self._state / "mosquitto.out"
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                [str(program), "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        deadline = time.monotonic() + START_S
        while not self._listens():
            if self._process.poll() is not None:
                self._process = None
                raise Permanent(f"mosquitto did not start: {self._last_words(output)}")
            if time.monotonic() > deadline:
                self.kill()
                raise Transient(f"mosquitto does not listen on port {self.port} after {START_S:.0f} s")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it in good order (SIGTERM: it writes its state), or with SIGKILL after STOP_S; then it is
        gone."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.host, self.port)) == 0

    def _last_words(self, output: Path) -> str:
        lines: list[str] = []
        for path in (self.log, output):
            if path.exists():
                lines += path.read_text(errors="replace").splitlines()[-5:]
        return " | ".join(lines) or "it said nothing"
