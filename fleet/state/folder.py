"""Where everything of one fleet lies on disk: the only place that knows the names of the fleet folder.

The invariant: private keys and telemetry state live in folders of mode 0700, so nobody else on the machine
lists or reads them.  Nothing here opens a file's content.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.errors import Permanent

ROOT_KEYS = ("root1", "root2", "root3")


@dataclass(frozen=True, slots=True)
class FleetFolder:
    """Paths of the fleet folder `root`."""

    root: Path

    @property
    def keys(self) -> Path:
        """Private keys: TUF roles, acknowledgements, HPKE recipient, certificate authority."""
        return self.root / "keys"

    def key(self, name: str) -> Path:
        """PEM of the private key `name`: root1..3, targets, snapshot, timestamp, acks, ca.key."""
        return self.keys / f"{name}.pem"

    @property
    def hpke_private(self) -> Path:
        """HPKE private key of the fleet, the one key that opens telemetry (JSON)."""
        return self.keys / "hpke.json"

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the fleet's authority; public."""
        return self.root / "ca.crt.pem"

    @property
    def metadata(self) -> Path:
        """TUF metadata of the repository."""
        return self.root / "repository" / "metadata"

    @property
    def targets(self) -> Path:
        """TUF target files of the repository (consistent snapshots)."""
        return self.root / "repository" / "targets"

    @property
    def vehicles(self) -> Path:
        """Registry: one JSON file a vehicle."""
        return self.root / "vehicles"

    @property
    def broker(self) -> Path:
        """Server key and certificate of the broker, and its access-control list."""
        return self.root / "broker"

    @property
    def broker_key(self) -> Path:
        """TLS server key of the broker."""
        return self.broker / "server.key.pem"

    @property
    def broker_certificate(self) -> Path:
        """TLS server certificate of the broker."""
        return self.broker / "server.crt.pem"

    @property
    def broker_acl(self) -> Path:
        """Who may use which topic (mosquitto ACL)."""
        return self.broker / "mosquitto.acl"

    @property
    def receiver(self) -> Path:
        """The receiver's client key and certificate, its inbox and its quarantine."""
        return self.root / "receiver"

    @property
    def receiver_key(self) -> Path:
        """TLS client key of the receiver."""
        return self.receiver / "client.key.pem"

    @property
    def receiver_certificate(self) -> Path:
        """TLS client certificate of the receiver, CN=receiver."""
        return self.receiver / "client.crt.pem"

    @property
    def inbox(self) -> Path:
        """SQLite database of what was taken in (`fleet.receiving.inbox`)."""
        return self.receiver / "receiver.db"

    @property
    def quarantine(self) -> Path:
        """Batches that were refused, still sealed, each with its reason."""
        return self.receiver / "quarantine"

    @property
    def lake(self) -> Path:
        """The Delta tables."""
        return self.root / "lake"

    def create(self) -> None:
        """Create the folders.  Permanent where a fleet lives already: its keys are never overwritten."""
        if self.root.exists() and not self.root.is_dir():
            raise Permanent(f"{self.root} is a file; choose another --fleet")
        if self.keys.exists() and not self.ca_certificate.exists():
            raise Permanent(f"{self.root} is what a `fleet init` left that did not end; remove it and try again")
        if self.keys.exists():
            raise Permanent(f"{self.root} holds a fleet already; choose another --fleet, or move it away")
        state = (self.vehicles, self.broker, self.receiver, self.quarantine, self.lake)
        for folder in (self.root, self.keys, *state, self.metadata, self.targets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def require(self) -> "FleetFolder":
        """This folder, when it holds a fleet; else Permanent."""
        if not self.ca_certificate.exists():
            raise Permanent(f"no fleet in {self.root}: create one with `fleet init --fleet {self.root}`")
        return self
