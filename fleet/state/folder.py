"""The paths of the fleet folder.  No other module knows the names of its files.

Invariant: private keys and telemetry lie in folders of mode 0700, so other users of the machine neither list nor read
them.  This module reads no file.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.errors import Permanent

ROOT_KEYS = ("root1", "root2", "root3")


@dataclass(frozen=True, slots=True)
class FleetFolder:
    """The paths of the fleet folder `root`."""

    root: Path

    @property
    def keys(self) -> Path:
        """Return the folder of private keys: TUF roles, acknowledgements, HPKE recipient, certificate authority."""
        return self.root / "keys"

    def key(self, name: str) -> Path:
        """Return the PEM file of a private key: root1..3, targets, snapshot, timestamp, acks, ca.key."""
        return self.keys / f"{name}.pem"

    @property
    def hpke_private(self) -> Path:
        """Return the file of the HPKE private key (JSON), the one key that opens telemetry."""
        return self.keys / "hpke.json"

    @property
    def ca_certificate(self) -> Path:
        """Return the certificate of the fleet's authority, which is public."""
        return self.root / "ca.crt.pem"

    @property
    def metadata(self) -> Path:
        """Return the folder of the repository's TUF metadata."""
        return self.root / "repository" / "metadata"

    @property
    def targets(self) -> Path:
        """Return the folder of the repository's TUF targets (consistent snapshots)."""
        return self.root / "repository" / "targets"

    @property
    def vehicles(self) -> Path:
        """Return the folder of the registry, which has one JSON file for each vehicle."""
        return self.root / "vehicles"

    @property
    def broker(self) -> Path:
        """Return the folder of the broker's key, certificate and access list."""
        return self.root / "broker"

    @property
    def broker_key(self) -> Path:
        """Return the TLS server key of the broker."""
        return self.broker / "server.key.pem"

    @property
    def broker_certificate(self) -> Path:
        """Return the TLS server certificate of the broker."""
        return self.broker / "server.crt.pem"

    @property
    def broker_acl(self) -> Path:
        """Return the access list, which says who may use which topic (mosquitto)."""
        return self.broker / "mosquitto.acl"

    @property
    def receiver(self) -> Path:
        """Return the folder of the receiver's client key and certificate, its inbox and its quarantine."""
        return self.root / "receiver"

    @property
    def receiver_key(self) -> Path:
        """Return the TLS client key of the receiver."""
        return self.receiver / "client.key.pem"

    @property
    def receiver_certificate(self) -> Path:
        """Return the TLS client certificate of the receiver, CN=receiver."""
        return self.receiver / "client.crt.pem"

    @property
    def inbox(self) -> Path:
        """Return the SQLite file of the inbox (`fleet.receiving.inbox`)."""
        return self.receiver / "receiver.db"

    @property
    def quarantine(self) -> Path:
        """Return the folder of refused batches, still sealed, each with its reason."""
        return self.receiver / "quarantine"

    @property
    def lake(self) -> Path:
        """Return the folder of the Delta tables."""
        return self.root / "lake"

    def create(self) -> None:
        """Create the folders.  Raises: Permanent where a fleet is here already, whose keys are never overwritten."""
        if self.root.exists() and not self.root.is_dir():
            raise Permanent(f"{self.root} is a file; choose another --fleet")
        # The certificate is written last, so keys without it are what an interrupted `fleet init` left.
        if self.keys.exists() and not self.ca_certificate.exists():
            raise Permanent(f"{self.root} is what an interrupted `fleet init` left; remove it and try again")
        if self.keys.exists():
            raise Permanent(f"{self.root} holds a fleet already; choose another --fleet, or move it away")
        state = (self.vehicles, self.broker, self.receiver, self.quarantine, self.lake)
        for folder in (self.root, self.keys, *state, self.metadata, self.targets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def require(self) -> "FleetFolder":
        """Return this folder.  Raises: Permanent where it holds no fleet."""
        if not self.ca_certificate.exists():
            raise Permanent(f"no fleet in {self.root}: create one with `fleet init --fleet {self.root}`")
        return self
