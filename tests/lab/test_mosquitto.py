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
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker, find_mosquitto, free_port

NOW = datetime.now(UTC)

pytestmark = pytest.mark.integration


def make_tls(fleet: FleetFolder) -> None:
    fleet.create()
    authority_key = keys.create_p256(fleet.key("ca.key"))
    authority = certificates.create_authority(authority_key, name="test", now=NOW, days=2, serial=1)
    keys.write_certificate(fleet.ca_certificate, authority)
    server = keys.create_p256(fleet.broker_key)
    keys.write_certificate(
        fleet.broker_certificate,
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
    keys.write_certificate(
        fleet.receiver_certificate,
        certificates.issue_client(
            authority, authority_key, client.public_key(), common_name="receiver", now=NOW, days=2, serial=3
        ),
    )


@pytest.fixture
def fleet(tmp_path: Path) -> FleetFolder:
    folder = FleetFolder(tmp_path / "fleet")
    make_tls(folder)
    return folder


def handshake(broker: Broker, ca: Path, client: tuple[Path, Path] | None) -> bytes:
    """Connect with an MQTT 5 CONNECT packet, and return the broker's answer."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client is not None:
        context.load_cert_chain(*client)
    connect = bytes.fromhex("10 10 0004 4d515454 05 02 003c 00 0003 616263")
    with (
        socket.create_connection((broker.host, broker.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(connect)
        return tls.recv(64)


def test_the_fleets_certificate_is_let_in_over_a_strictly_verified_chain(fleet: FleetFolder, tmp_path: Path) -> None:
    with Broker(fleet, tmp_path / "broker") as broker:
        answer = handshake(broker, fleet.ca_certificate, (fleet.receiver_certificate, fleet.receiver_key))
    assert answer[0] == 0x20
    assert answer[3] == 0


def test_a_client_without_certificate_is_refused(fleet: FleetFolder, tmp_path: Path) -> None:
    with Broker(fleet, tmp_path / "broker") as broker, pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(broker, fleet.ca_certificate, None)


def test_a_certificate_of_another_authority_is_refused(fleet: FleetFolder, tmp_path: Path) -> None:
    stranger = FleetFolder(tmp_path / "stranger")
    make_tls(stranger)
    with Broker(fleet, tmp_path / "broker") as broker, pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(broker, fleet.ca_certificate, (stranger.receiver_certificate, stranger.receiver_key))


def test_a_servers_certificate_cannot_be_used_as_a_client(fleet: FleetFolder, tmp_path: Path) -> None:
    with Broker(fleet, tmp_path / "broker") as broker, pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(broker, fleet.ca_certificate, (fleet.broker_certificate, fleet.broker_key))


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
        handshake(broker, fleet.ca_certificate, (fleet.receiver_certificate, fleet.receiver_key))
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


def test_a_free_port_can_be_listened_on() -> None:
    socket.create_server(("127.0.0.1", free_port())).close()


def test_keys_are_readable_by_their_owner_only(fleet: FleetFolder) -> None:
    assert fleet.broker_key.stat().st_mode & 0o777 == 0o600
    assert fleet.keys.stat().st_mode & 0o777 == 0o700
    assert isinstance(keys.read_p256(fleet.broker_key), ec.EllipticCurvePrivateKey)
