"""Create a fleet: every key, the certificates of the cloud side, and the first TUF repository.

Invariant: an existing fleet is never overwritten.  Its vehicles trust its keys, and new keys would orphan them all.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from agent.formats.up.recipient import RecipientPrivateKey, SuiteName
from agent.system.durable import write_file
from fleet.publishing import publish
from fleet.state import certificates, keys
from fleet.state.access_list import ACCESS_LIST
from fleet.state.folder import ROOT_KEYS, FleetFolder

AUTHORITY_DAYS = 30 * 365
"""Longer than the service life of a car, because vehicles recognise their broker by this certificate."""

SERVICE_DAYS = 5 * 365
"""Validity of the certificates of broker and receiver, which an operator can replace any day."""


def create_fleet(folder: FleetFolder, *, suite: SuiteName, broker_names: Sequence[str], now: datetime) -> None:
    """Make the fleet in `folder`.  Raises: Permanent where a fleet is there already.

    `broker_names` are host names and addresses of the broker, in addition to localhost and 127.0.0.1.
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
    server_key = keys.create_p256(folder.broker_key)
    server = certificates.issue_server(
        authority,
        authority_key,
        server_key.public_key(),
        names=("localhost", "127.0.0.1", *broker_names),
        now=now,
        days=SERVICE_DAYS,
        serial=x509.random_serial_number(),
    )
    keys.write_certificate(folder.broker_certificate, server)
    write_file(folder.broker_acl, ACCESS_LIST.encode())
    receiver_key = keys.create_p256(folder.receiver_key)
    receiver = certificates.issue_client(
        authority,
        authority_key,
        receiver_key.public_key(),
        common_name="receiver",
        now=now,
        days=SERVICE_DAYS,
        serial=x509.random_serial_number(),
    )
    keys.write_certificate(folder.receiver_certificate, receiver)

    publish.create_repository(folder, now)
    # This comes last: the certificate says that the fleet is whole.
    keys.write_certificate(folder.ca_certificate, authority)
