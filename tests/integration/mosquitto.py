"""Starts a mosquitto with TLS and client certificates, as a fleet runs it, for the tests of link and uplink."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.link.mqtt import Endpoint
from fleet.state import authorities as state
from fleet.state import certificates
from fleet.state.authorities import write_trust
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@dataclass(frozen=True)
class Authority:
    """A certificate authority that writes its certificates into one folder."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, folder: Path, name: str = "test authority") -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = certificates.create_authority(
            key, name=name, now=datetime.now(UTC), days=30, serial=secrets.randbits(100)
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_certificate(folder / "ca.crt.pem", certificate)
        return cls(folder, key, certificate)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt.pem"

    def client(self, name: str, *, days_ago: int = 0, days: int = 10) -> tuple[Path, Path]:
        """Issue a client certificate with CN `name`, and return its file and key file.

        The certificate is valid for `days` from `days_ago`.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = certificates.issue_client(
            self.certificate,
            self.key,
            key.public_key(),
            common_name=name,
            now=datetime.now(UTC) - timedelta(days=days_ago),
            days=days,
            serial=secrets.randbits(100),
        )
        write_key(self.folder / f"{name}.key.pem", key)
        write_certificate(self.folder / f"{name}.crt.pem", certificate)
        return self.folder / f"{name}.crt.pem", self.folder / f"{name}.key.pem"

    def server(self, certificate_file: Path, key_file: Path, names: list[str], *, days_ago: int = 0) -> None:
        """Issue a broker's certificate, valid for ten days from `days_ago`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = certificates.issue_server(
            self.certificate,
            self.key,
            key.public_key(),
            names=names,
            now=datetime.now(UTC) - timedelta(days=days_ago),
            days=10,
            serial=secrets.randbits(100),
        )
        write_key(key_file, key)
        write_certificate(certificate_file, certificate)


@dataclass(frozen=True)
class World:
    """Holds a broker and the certificate authority that both sides trust."""

    authority: Authority
    fleet: FleetFolder
    broker: Broker

    def endpoint(self, name: str, **changes: object) -> Endpoint:
        port, cert_file, key_file = self.broker.port, *self.authority.client(name)
        if name == "receiver":
            port, cert_file, key_file = self.broker.fleet_port, self.fleet.receiver_certificate, self.fleet.receiver_key
        values: dict[str, object] = {
            "host": self.broker.host,
            "port": port,
            "ca_file": self.authority.ca_file,
            "cert_file": cert_file,
            "key_file": key_file,
            "client_id": name,
            "timeout_s": 5.0,
        }
        return Endpoint(**(values | changes))  # type: ignore[arg-type]


@contextmanager
def world(
    folder: Path, *, names: list[str] | None = None, server_days_ago: int = 0, authority: Authority | None = None
) -> Iterator[World]:
    """Run a broker.  `authority` issues the server's certificate if it is not the authority of the clients."""
    own = Authority.create(folder / "authority")
    fleet = FleetFolder(folder / "fleet")
    fleet.broker.folder.mkdir(parents=True)
    fleet.receiver.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    receiver = certificates.create_client(key, common_name="receiver", now=datetime.now(UTC), days=10, serial=1)
    write_key(fleet.receiver_key, key)
    write_certificate(fleet.receiver_certificate, receiver)
    write_certificate(fleet.ca_certificate, own.certificate)
    write_trust(fleet, state.Authority(own.certificate, own.key), receiver, datetime.now(UTC))
    (authority or own).server(
        fleet.broker.certificate, fleet.broker.key, names or ["localhost", "127.0.0.1"], days_ago=server_days_ago
    )
    with Broker(fleet, folder / "broker-state") as broker:
        yield World(own, fleet, broker)
