"""Defines the paths of the files in the fleet folder.  Other modules get the paths from this module.

Invariant: private keys and telemetry lie in folders of mode 0700, so other users of the machine can neither list nor
read them.  This module reads no file.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.errors import Permanent

ROOT_KEYS = ("root1", "root2", "root3")
RENEW_RECEIVER = (
    "install this fleet's broker/receivers.crt.pem on the broker, or renew the certificate (fleet keys renew receiver)"
)
"""How the broker comes to accept the certificate of the fleet's programs, for messages."""


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """Holds the paths of the files in `folder` that the broker needs."""

    folder: Path

    @property
    def key(self) -> Path:
        """Return the file of the broker's TLS server key."""
        return self.folder / "server.key.pem"

    @property
    def certificate(self) -> Path:
        """Return the file of the broker's TLS server certificate."""
        return self.folder / "server.crt.pem"

    @property
    def access_list(self) -> Path:
        """Return the file of mosquitto's access list, which says which client may use which topic."""
        return self.folder / "mosquitto.acl"

    @property
    def authorities(self) -> Path:
        """Return the file of the authorities' certificates that broker and receiver accept.

        The issuing authority comes first.  There is a second one only while the authority is being rotated.
        """
        return self.folder / "authorities.crt.pem"

    @property
    def revocation_list(self) -> Path:
        """Return the file of the broker's revocation lists (CRL), one of each accepted authority."""
        return self.folder / "revoked.crl.pem"

    @property
    def accepted_receivers(self) -> Path:
        """Return the file of the receivers' certificates that the broker accepts at the port for the fleet's programs.

        The certificate in use is among them.  There is a second one only while the certificate is being renewed.
        """
        return self.folder / "receivers.crt.pem"


@dataclass(frozen=True, slots=True)
class FleetFolder:
    """Holds the paths of all files in the fleet folder `root`."""

    root: Path

    @property
    def keys(self) -> Path:
        """Return the folder of the private keys of TUF roles, acknowledgements, HPKE and the certificate authority."""
        return self.root / "keys"

    def key(self, name: str) -> Path:
        """Return the PEM file of a private key.

        `name` is root1, root2, root3, targets, snapshot, timestamp, acks or ca.key.
        """
        return self.keys / f"{name}.pem"

    @property
    def hpke_private(self) -> Path:
        """Return the JSON file of the HPKE private key.  Only this key opens telemetry."""
        return self.keys / "hpke.json"

    def sealing_key(self, key_id: str) -> Path:
        """Return the JSON file of the HPKE private key with this id.  Each key after the first rotation has one."""
        return self.keys / f"hpke-{key_id}.json"

    @property
    def ca_certificate(self) -> Path:
        """Return the file of the authority's certificate, which is public."""
        return self.root / "ca.crt.pem"

    @property
    def metadata(self) -> Path:
        """Return the folder of the repository's TUF metadata."""
        return self.root / "repository" / "metadata"

    @property
    def targets(self) -> Path:
        """Return the folder of the repository's TUF targets, whose file names begin with their hashes."""
        return self.root / "repository" / "targets"

    @property
    def rollouts(self) -> Path:
        """Return the folder of the staged roll-outs (`fleet.rollout.book`).  It is made by the first roll-out."""
        return self.root / "rollouts"

    @property
    def vehicles(self) -> Path:
        """Return the folder of the registry, which has one JSON file for each vehicle."""
        return self.root / "vehicles"

    @property
    def renewals(self) -> Path:
        """Return the folder of vehicles' requests for certificates that wait for the authority's signature."""
        return self.root / "renewals"

    @property
    def broker(self) -> BrokerFiles:
        """Return the files of the broker: key, certificates, access list and revocation list."""
        return BrokerFiles(self.root / "broker")

    @property
    def receiver(self) -> Path:
        """Return the folder of the receiver's TLS key and certificate, its inbox and its quarantine."""
        return self.root / "receiver"

    @property
    def receiver_key(self) -> Path:
        """Return the file of the receiver's TLS client key."""
        return self.receiver / "client.key.pem"

    @property
    def receiver_certificate(self) -> Path:
        """Return the file of the receiver's TLS client certificate, self-signed with the common name `receiver`."""
        return self.receiver / "client.crt.pem"

    @property
    def next_receiver_certificate(self) -> Path:
        """Return the file of the receiver's next certificate, which exists only while the certificate is renewed."""
        return self.receiver / "next.crt.pem"

    @property
    def inbox(self) -> Path:
        """Return the SQLite file of the inbox (`fleet.receiving.inbox`)."""
        return self.receiver / "receiver.db"

    @property
    def quarantine(self) -> Path:
        """Return the folder of rejected batches.  Each batch is kept sealed, beside a file with the reason."""
        return self.receiver / "quarantine"

    @property
    def lake(self) -> Path:
        """Return the folder of the fleet's own lake.  Commands may use another lake (`--lake`)."""
        return self.root / "lake"

    def create(self) -> None:
        """Create the folders of a new fleet.

        Raises: Permanent if `root` holds a fleet already, because its keys must never be overwritten.
        """
        if self.root.exists() and not self.root.is_dir():
            raise Permanent(f"{self.root} is a file, not a folder. Choose another --fleet.")
        # The certificate is written last, so keys without the certificate come from an interrupted `fleet init`.
        if self.keys.exists() and not self.ca_certificate.exists():
            raise Permanent(
                f"{self.root} was left incomplete by an interrupted `fleet init`. Remove the folder and try again."
            )
        if self.keys.exists():
            raise Permanent(f"{self.root} holds a fleet already. Choose another --fleet, or move this folder away.")
        state = (self.vehicles, self.broker.folder, self.receiver, self.quarantine, self.lake)
        for folder in (self.root, self.keys, *state, self.metadata, self.targets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def require(self) -> "FleetFolder":
        """Return this folder, unchanged.  Raises: Permanent if it holds no fleet."""
        if not self.ca_certificate.exists():
            raise Permanent(f"There is no fleet in {self.root}. Create a fleet with `fleet init --fleet {self.root}`.")
        return self
