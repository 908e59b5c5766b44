"""Runs the broker of a world: mosquitto on loopback, with its configuration and access-control list.

`config/mosquitto/` documents the same settings for a deployment.

Invariant: a vehicle can use only its own topics and its own client id.  mosquitto takes the common name of a client's
certificate as the client's user name, and the access-control list ties topics to user names.  A stolen vehicle key
therefore gives no access to another vehicle's topics.

A broker ends the connection of an earlier client that has the same client id.  On the port of the vehicles, mosquitto
therefore replaces the id that a client sends with its user name.  Receivers and `fleet publish` share one certificate
but must not share one id, so they have a port of their own, which accepts this certificate and no vehicle's.
"""

import os
import shutil
import signal
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.errors import Permanent, Transient
from agent.system.durable import write_file
from fleet.state.access_list import ACCESS_LIST
from fleet.state.folder import FleetFolder
from lab.machine import Machine
from lab.process import Process, last_lines

_CONFIGURATION = """\
# Written by lab/mosquitto.py; the reasons stand in config/mosquitto/mosquitto.conf.
user {user}
allow_anonymous false
acl_file {acl}
# vehicles
listener {port} 127.0.0.1
cafile {ca}
certfile {certificate}
keyfile {key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
crlfile {crl}
# the fleet's own programs
listener {fleet_port} 127.0.0.1
cafile {fleet_ca}
certfile {certificate}
keyfile {key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
# all
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

PACKET_BYTES: Final = 128 * 1024
"""The largest MQTT packet, as in AWS IoT Core.  Batches stay below 60 KB and bundles below 100 KB."""

START_S: Final = 10.0
_POLL_S: Final = 0.02


def find_mosquitto() -> Path:
    """Return the path of the program mosquitto.  Raises: Permanent if it is not installed."""
    # Debian installs mosquitto in /usr/sbin, which is not in the PATH of every user.
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Permanent(
            "The broker mosquitto is not installed. "
            "Install it with: sudo apt-get install --no-install-recommends mosquitto"
        )
    return Path(found)


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now.  Another program may still take it later."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_configuration(
    fleet: FleetFolder, state: Path, port: int, fleet_port: int, packet_bytes: int = PACKET_BYTES
) -> Path:
    """Write the access-control list and the configuration of a broker on loopback.

    Vehicles connect to `port`, and the fleet's own programs to `fleet_port`.  The broker keeps its state in
    the folder `state`.  Return the path of the configuration.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(fleet.broker.access_list, ACCESS_LIST.encode())
    configuration = state / "mosquitto.conf"
    text = _CONFIGURATION.format(
        # By default, a mosquitto that root starts switches to a user that may not read the server key.
        user="root" if os.geteuid() == 0 else "mosquitto",
        port=port,
        fleet_port=fleet_port,
        fleet_ca=fleet.broker.accepted_receivers.resolve(),
        ca=fleet.broker.authorities.resolve(),
        crl=fleet.broker.revocation_list.resolve(),
        certificate=fleet.broker.certificate.resolve(),
        key=fleet.broker.key.resolve(),
        acl=fleet.broker.access_list.resolve(),
        packet_bytes=packet_bytes,
        state=state.resolve(),
        log=(state / "mosquitto.log").resolve(),
    )
    write_file(configuration, text.encode())
    return configuration


class Broker:
    """Runs mosquitto on 127.0.0.1.  Vehicles connect to `port`, and the fleet's own programs to `fleet_port`.

    The ports stay the same over restarts.

    As a context manager, a broker starts mosquitto on entry and stops mosquitto on exit.
    """

    def __init__(
        self, fleet: FleetFolder, state: Path, *, port: int | None = None, machine: Machine | None = None
    ) -> None:
        self.host = "127.0.0.1"
        self.port = free_port() if port is None else port
        self.fleet_port = free_port()
        self._fleet = fleet
        self._state = state
        self._machine = machine
        self._process: Process | None = None

    @property
    def log(self) -> Path:
        """Return the path of mosquitto's log.  Every start appends to it."""
        return self._state / "mosquitto.log"

    @property
    def pid(self) -> int | None:
        """Return the process id, or None while mosquitto does not run."""
        return None if self._process is None else self._process.pid

    def start(self, *, packet_bytes: int = PACKET_BYTES) -> None:
        """Start mosquitto, and return as soon as it listens.  `packet_bytes` is the largest MQTT packet that it takes.

        Raises: Permanent if mosquitto ends at once or the port is taken; Transient if mosquitto does not listen within
        START_S seconds.
        """
        if self._process is not None:
            raise Permanent(
                f"The broker on port {self.port} is running already (process {self._process.pid}). Stop it first."
            )
        # If the port is taken, mosquitto only logs this, and a test would talk to the wrong broker.
        for port in (self.port, self.fleet_port):
            if self._listens(port):
                raise Permanent(f"Port {port} of {self.host} is in use by another program. Choose another port.")
        configuration = write_configuration(self._fleet, self._state, self.port, self.fleet_port, packet_bytes)
        command = [str(find_mosquitto()), "-c", str(configuration)]
        process = Process("broker", command, self._state / "mosquitto.out", machine=self._machine)
        process.start()
        deadline_s = time.monotonic() + START_S
        while not (self._listens(self.port) and self._listens(self.fleet_port)):
            if not process.running:
                raise Permanent(
                    f"The broker mosquitto did not start. The end of its logs:\n{self._last_words(process)}"
                )
            if time.monotonic() > deadline_s:
                process.kill()
                raise Transient(
                    f"The broker mosquitto does not listen on port {self.port} after {START_S:.0f} s. Try again."
                )
            time.sleep(_POLL_S)
        self._process = process

    def stop(self) -> None:
        """Stop mosquitto with SIGTERM, so that it writes its state.  Do nothing if it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """Kill mosquitto with SIGKILL, which ends it as suddenly as a power cut.  Do nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def write_access_list(self, text: str) -> None:
        """Replace the access-control list by `text`, and make a running mosquitto read it.

        The next `start` overwrites `text` with the usual list.
        """
        self._fleet.broker.access_list.write_text(text)
        # On SIGHUP, mosquitto reads the list again and keeps its connections.
        if self._process is not None:
            self._process.signal(signal.SIGHUP)

    def forget(self) -> None:
        """Delete the sessions and messages that mosquitto has stored.  Call this only while mosquitto does not run."""
        (self._state / "mosquitto.db").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listens(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.host, port)) == 0

    def _last_words(self, process: Process) -> str:
        said = [last_lines(path, 5) for path in (self.log, process.log) if path.exists()]
        return "\n".join(filter(None, said)) or "The logs are empty."
