"""The broker of the demo and of the integration tests accepts only the fleet's certificates, on their own topics."""

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from fleet.state import certificates, keys
from fleet.state.access_list import ACCESS_LIST
from fleet.state.authorities import Authority, write_trust
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker, find_mosquitto, free_port, write_configuration

NOW = datetime.now(UTC)
LISTENER = {
    "listener",
    "cafile",
    "certfile",
    "keyfile",
    "tls_version",
    "require_certificate",
    "use_identity_as_username",
    "use_username_as_clientid",
}
CAR = "0f8fad5b-d9cb-469f-a165-70867728950e"

pytestmark = pytest.mark.integration


def make_tls(fleet: FleetFolder) -> None:
    fleet.create()
    authority_key = keys.create_p256(fleet.key("ca.key"))
    authority = certificates.create_authority(authority_key, name="test", now=NOW, days=2, serial=1)
    keys.write_certificate(fleet.ca_certificate, authority)
    server = keys.create_p256(fleet.broker.key)
    keys.write_certificate(
        fleet.broker.certificate,
        certificates.issue_server(
            authority,
            authority_key,
            server.public_key(),
            names=["localhost", "127.0.0.1"],
            now=NOW,
            days=2,
            serial=2,
        ),
    )
    client = keys.create_p256(fleet.receiver_key)
    receiver = certificates.create_client(client, common_name="receiver", now=NOW, days=2, serial=3)
    keys.write_certificate(fleet.receiver_certificate, receiver)
    write_trust(fleet, Authority(authority, authority_key), receiver, NOW)
    car = keys.create_p256(fleet.key(CAR))
    keys.write_certificate(
        fleet.keys / f"{CAR}.crt.pem",
        certificates.issue_client(
            authority, authority_key, car.public_key(), common_name=CAR, now=NOW, days=2, serial=4
        ),
    )


def vehicle_of(fleet: FleetFolder) -> tuple[Path, Path]:
    """Return the files of certificate and key of the fleet's only vehicle."""
    return fleet.keys / f"{CAR}.crt.pem", fleet.key(CAR)


@pytest.fixture
def fleet(tmp_path: Path) -> FleetFolder:
    folder = FleetFolder(tmp_path / "fleet")
    make_tls(folder)
    return folder


def handshake(broker: Broker, ca: Path, client: tuple[Path, Path] | None, port: int | None = None) -> bytes:
    """Connect with an MQTT 5 CONNECT packet, by default to the port for vehicles, and return the broker's answer."""
    return handshake_with(broker.host, port or broker.port, ca, client)


def handshake_with(host: str, port: int, ca: Path, client: tuple[Path, Path] | None) -> bytes:
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client is not None:
        context.load_cert_chain(*client)
    connect = bytes.fromhex("10 10 0004 4d515454 05 02 003c 00 0003 616263")
    with (
        socket.create_connection((host, port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(connect)
        return tls.recv(64)


def receiver_of(fleet: FleetFolder) -> tuple[Path, Path]:
    return fleet.receiver_certificate, fleet.receiver_key


def test_vehicles_and_receivers_are_let_in_over_strictly_verified_chains(fleet: FleetFolder, tmp_path: Path) -> None:
    with Broker(fleet, tmp_path / "broker") as broker:
        answers = [
            handshake(broker, fleet.ca_certificate, vehicle_of(fleet)),
            handshake(broker, fleet.ca_certificate, receiver_of(fleet), broker.fleet_port),
        ]
    assert [(answer[0], answer[3]) for answer in answers] == [(0x20, 0), (0x20, 0)]


def test_a_stranger_is_refused_at_both_ports(fleet: FleetFolder, tmp_path: Path) -> None:
    stranger = FleetFolder(tmp_path / "stranger")
    make_tls(stranger)
    server = (fleet.broker.certificate, fleet.broker.key)
    with Broker(fleet, tmp_path / "broker") as broker:
        for port in (broker.port, broker.fleet_port):
            for client in (None, vehicle_of(stranger), receiver_of(stranger), server):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    handshake(broker, fleet.ca_certificate, client, port)


def test_no_vehicle_gets_in_at_the_port_where_clients_choose_their_ids(fleet: FleetFolder, tmp_path: Path) -> None:
    with Broker(fleet, tmp_path / "broker") as broker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(broker, fleet.ca_certificate, vehicle_of(fleet), broker.fleet_port)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(broker, fleet.ca_certificate, receiver_of(fleet), broker.port)


def test_it_keeps_its_port_over_a_kill_and_a_start(fleet: FleetFolder, tmp_path: Path) -> None:
    broker = Broker(fleet, tmp_path / "broker")
    broker.start()
    port, first = broker.port, broker.pid
    broker.kill()
    assert broker.pid is None
    broker.start()
    try:
        assert broker.port == port
        assert broker.pid != first
        handshake(broker, fleet.ca_certificate, vehicle_of(fleet))
    finally:
        broker.stop()


def test_a_port_in_use_is_one_clear_error(fleet: FleetFolder, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broker = Broker(fleet, tmp_path / "broker", port=taken.getsockname()[1])
        with pytest.raises(Permanent, match="in use by another"):
            broker.start()


def test_without_mosquitto_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(Permanent, match="apt-get install"):
        find_mosquitto()


def test_the_documented_access_list_is_the_one_that_is_written() -> None:
    documented = Path(__file__).parents[2] / "config" / "mosquitto" / "acl"
    rules = [line for line in documented.read_text().splitlines() if line and not line.startswith("#")]
    assert rules == [line for line in ACCESS_LIST.splitlines() if line and not line.startswith("#")]


def options(text: str) -> list[set[str]]:
    """Return the names of the options of a configuration: those for all listeners, then those of each one."""
    sections: list[set[str]] = [set()]
    for line in text.splitlines():
        name = line.partition(" ")[0]
        if name == "listener":
            sections.append(set())
        if name and not name.startswith("#"):
            sections[-1 if name in LISTENER else 0].add(name)
    return sections


def test_the_documented_configuration_has_the_options_that_are_written(fleet: FleetFolder, tmp_path: Path) -> None:
    documented = (Path(__file__).parents[2] / "config" / "mosquitto" / "mosquitto.conf").read_text()
    written = write_configuration(fleet, tmp_path / "state", 1, 2).read_text()
    # On Debian the main file of mosquitto sets where it keeps messages, and does not accept a second setting.
    own = {"user", "log_dest", "log_type", "connection_messages", "persistence", "persistence_location"}
    assert [section - own for section in options(written)] == options(documented)


def test_a_free_port_can_be_listened_on() -> None:
    socket.create_server(("127.0.0.1", free_port())).close()


def test_keys_are_readable_by_their_owner_only(fleet: FleetFolder) -> None:
    assert fleet.broker.key.stat().st_mode & 0o777 == 0o600
    assert fleet.keys.stat().st_mode & 0o777 == 0o700
    assert isinstance(keys.read_p256(fleet.broker.key), ec.EllipticCurvePrivateKey)
