"""Create a fleet: all its keys, the certificates of the cloud side, and the first TUF repository.

Invariant: an existing fleet is never overwritten.  Its vehicles trust the existing keys, so new keys would cut off all
of them.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from agent.formats.up.recipient import RecipientPrivateKey, SuiteName
from agent.system.durable import write_file
from fleet.admin.renew_services import SERVICE_DAYS
from fleet.admin.rotate_authority import AUTHORITY_DAYS
from fleet.publishing import repository
from fleet.state import certificates, keys
from fleet.state.access_list import ACCESS_LIST
from fleet.state.authorities import Authority, write_trust
from fleet.state.folder import ROOT_KEYS, FleetFolder


def create_fleet(folder: FleetFolder, *, suite: SuiteName, broker_names: Sequence[str], now: datetime) -> None:
    """Create a fleet in `folder`.

    `broker_names` are host names and IP addresses of the broker, in addition to localhost and 127.0.0.1.

    Raises: Permanent if the folder holds a fleet already.
    """
    folder.create()
    for name in (*ROOT_KEYS, "targets", "snapshot", "timestamp", "acks"):
        keys.create_ed25519(folder.key(name))
    write_file(folder.hpke_private, RecipientPrivateKey.generate(suite).to_json())

    authority_key = keys.create_p256(folder.key("ca.key"))
    authority = certificates.create_authority(
        authority_key,
        name="headunit fleet authority",
        now=now,
        days=AUTHORITY_DAYS,
        serial=x509.random_serial_number(),
    )
    server_key = keys.create_p256(folder.broker.key)
    server = certificates.issue_server(
        authority,
        authority_key,
        server_key.public_key(),
        names=("localhost", "127.0.0.1", *broker_names),
        now=now,
        days=SERVICE_DAYS,
        serial=x509.random_serial_number(),
    )
    keys.write_certificate(folder.broker.certificate, server)
    write_file(folder.broker.access_list, ACCESS_LIST.encode())
    receiver_key = keys.create_p256(folder.receiver_key)
    # The authority signs vehicles, so it must not sign the receiver: the broker tells the two apart by their signer.
    receiver = certificates.create_client(
        receiver_key,
        common_name="receiver",
        now=now,
        days=SERVICE_DAYS,
        serial=x509.random_serial_number(),
    )
    keys.write_certificate(folder.receiver_certificate, receiver)
    write_trust(folder, Authority(authority, authority_key), receiver, now)

    repository.create(folder, now)
    # The authority's certificate comes last, because its presence says that the fleet is complete.
    keys.write_certificate(folder.ca_certificate, authority)
