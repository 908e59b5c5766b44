"""Enrol a vehicle: put a pseudonym, a device key, its certificate and all that the vehicle must trust into one folder.

Invariant: the folder does not say which car it is for.  The pseudonym is random and never derived from the VIN; an
operator who needs the link between the two keeps it elsewhere.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from agent.formats.topics import partition_of
from agent.system.durable import write_file
from fleet.state import certificates, keys
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry, VehicleRecord


@dataclass(frozen=True, slots=True)
class Model:
    """The properties of a vehicle by which a push may select its audience."""

    brand: str
    model: str
    market: str
    model_year: int


def enrol(
    fleet: FleetFolder, out: Path, model: Model, *, days: int, now: datetime, csr: Path | None = None
) -> VehicleRecord:
    """Write the vehicle folder `out` (new or empty), register the vehicle, and return its record.

    With `csr`, a signing request in PEM, the private key stays where the request was made (in a TPM, for example), and
    the folder holds no key.  Raises: Permanent where the fleet, `out` or `csr` are not usable.
    """
    fleet.require()
    for name, text in (("brand", model.brand), ("model", model.model), ("market", model.market)):
        if not text or not text.isprintable():
            raise Permanent(f"{name} {text!r}: give it as printable text")
    requested = None if csr is None else _requested_key(csr)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Permanent(f"{out} exists and is not an empty folder; choose another --out")
    root = fleet.metadata / "1.root.json"
    if not root.exists():
        raise Permanent(f"{root} is missing: vehicles start their trust there; restore it from the backup")
    issuer = Issuer.of(fleet)
    recipient = keys.read_recipient(fleet).public
    acks = keys.read_ed25519(fleet.key("acks")).public_key()

    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    device_key = requested or keys.create_p256(out / "device.key.pem").public_key()
    record = issuer.issue(device_key, model, days=days, now=now)
    write_file(out / "device.crt.pem", record.certificate_pem.encode(), mode=0o644)
    keys.write_certificate(out / "ca.crt.pem", issuer.authority)
    write_file(out / "hpke.pub.json", recipient.to_json(), mode=0o644)
    keys.write_public(out / "acks.pub.pem", acks)
    write_file(out / "root.json", root.read_bytes(), mode=0o644)
    identity: dict[str, str | int] = {
        "vehicle": record.vehicle,
        "brand": model.brand,
        "model": model.model,
        "market": model.market,
        "model_year": model.model_year,
        "partition": record.partition,
        "fleet": fleet.root.resolve().name,
    }
    write_file(out / "identity.toml", _toml(identity).encode(), mode=0o644)
    # This comes last, so that a folder that was not finished belongs to no registered vehicle.
    Registry(fleet.vehicles).add(record)
    return record


@dataclass(frozen=True, slots=True)
class Issuer:
    """The fleet's certificate authority, read once for any number of vehicles."""

    authority: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, fleet: FleetFolder) -> Self:
        """Read the authority of `fleet`.  Raises: Permanent where certificate or key are missing."""
        return cls(keys.read_certificate(fleet.ca_certificate), keys.read_p256(fleet.key("ca.key")))

    def issue(self, device_key: ec.EllipticCurvePublicKey, model: Model, *, days: int, now: datetime) -> VehicleRecord:
        """Return the registry's record of a new vehicle, with a new pseudonym and a certificate for it."""
        # Random, because a pseudonym derived from the VIN is found by trying all VINs.
        vehicle = str(uuid.uuid4())
        certificate = certificates.issue_client(
            self.authority,
            self.key,
            device_key,
            common_name=vehicle,
            now=now,
            days=days,
            serial=x509.random_serial_number(),
        )
        return VehicleRecord(
            vehicle=vehicle,
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            brand=model.brand,
            model=model.model,
            market=model.market,
            model_year=model.model_year,
            partition=partition_of(vehicle),
            revoked=False,
        )


def _requested_key(csr: Path) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request, which is signed with the matching private key."""
    try:
        request = x509.load_pem_x509_csr(csr.read_bytes())
    except OSError as error:
        raise Permanent(f"cannot read {csr}: {error.strerror}") from error
    except ValueError as error:
        raise Permanent(f"{csr} is not a signing request in PEM; make one with `openssl req -new`") from error
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Permanent(f"{csr}: the key is not EC P-256; make the request with such a key")
    if not request.is_signature_valid:
        raise Permanent(f"{csr}: the request is not signed by its own key")
    return key


def _toml(values: Mapping[str, str | int]) -> str:
    """Return flat keys as TOML, which reads integers and strings as JSON writes them."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
