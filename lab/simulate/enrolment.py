"""Enrols many virtual vehicles at once, and writes the files that their connections need.

The pseudonyms, keys and certificates are real.  But the keys are needed only during the simulation, so they are not
written durably, and lie in a temporary folder.
"""

from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.link.endpoint import Endpoint
from fleet.admin.enrol import Issuer, Model
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord

MODEL: Final = Model("Simulation", "Virtual", "none", 2026)
DAYS: Final = 2
KEEPALIVE_S: Final = 120
"""Seconds between pings.  The time is long, because a process with thousands of connections may be late with pings."""


Enrolled = tuple[VehicleRecord, ec.EllipticCurvePrivateKey, Endpoint]


def enrol_many(fleet: FleetFolder, folder: Path, count: int, *, host: str, port: int, now: datetime) -> list[Enrolled]:
    """Register `count` new vehicles, and write their certificates and keys to `folder`.

    Return the record, the private key and the broker's address for each vehicle.
    """
    issuer, registry = Issuer.of(fleet), Registry(fleet.vehicles)
    enrolled = []
    for _ in range(count):
        key = ec.generate_private_key(ec.SECP256R1())
        record = issuer.issue(key.public_key(), MODEL, days=DAYS, now=now)
        certificate, private = folder / f"{record.vehicle}.crt.pem", folder / f"{record.vehicle}.key.pem"
        certificate.write_text(record.certificate_pem)
        private.write_bytes(_pem(key))
        registry.add(record)
        endpoint = Endpoint(host, port, fleet.ca_certificate, certificate, private, record.vehicle, KEEPALIVE_S, 30.0)
        enrolled.append((record, key, endpoint))
    return enrolled


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
