"""Enrol a vehicle: write its pseudonym, device key, certificate and the keys that it must trust into one folder.

Invariant: the folder does not say which car it is for.  The pseudonym is random and never derived from the VIN.  An
operator who must know which VIN a pseudonym belongs to keeps that record elsewhere.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from agent.formats.topics import partition_of
from agent.system.durable import write_file
from fleet.state import certificates, keys
from fleet.state.authorities import accepted_authorities, issuing_authority, update_revocation_lists
from fleet.state.certificates import pem_of
from fleet.state.folder import FleetFolder
from fleet.state.key_lock import key_lock
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord


@dataclass(frozen=True, slots=True)
class Model:
    """Holds the properties of a vehicle by which a push may select its audience."""

    brand: str
    model: str
    market: str
    model_year: int


def enrol(
    fleet: FleetFolder, out: Path, model: Model, *, days: int, now: datetime, csr: Path | None = None
) -> VehicleRecord:
    """Write the vehicle folder `out` (new or empty), register the vehicle, and return its record.

    The certificate is valid for `days` days.  `csr` is a file with a signing request in PEM.  With a request, no
    private key is made or written: the key stays in the device that made the request, for example in a TPM.

    Raises: Permanent if the fleet, the model, `out` or `csr` is not usable.
    """
    fleet.require()
    for name, text in (("brand", model.brand), ("model", model.model), ("market", model.market)):
        if not text or not text.isprintable():
            raise Permanent(f"The {name} {text!r} is empty or not printable. Give a printable text with --{name}.")
    _check_out(out)
    root = fleet.metadata / "1.root.json"
    if not root.exists():
        raise Permanent(
            f"{root} is missing, and no vehicle can verify pushes without it. Restore the file from the fleet's backup."
        )
    issuer = Issuer.of(fleet)
    device_key = _device_key(out, csr)
    record = issuer.issue(device_key, model, days=days, now=now)
    _write_folder(fleet, out, record)
    # Registering comes last, so that an unfinished folder never belongs to a registered vehicle.
    Registry(fleet.vehicles).add(record)
    return record


def enrol_again(
    fleet: FleetFolder, vehicle: str, out: Path, *, days: int, now: datetime, csr: Path | None = None
) -> VehicleRecord:
    """Write the folder `out` for the new head unit of a vehicle, which keeps its pseudonym and properties.

    The certificates of the old head unit are withdrawn: the broker and the receivers no longer accept them.  A revoked
    vehicle stays revoked.

    Raises: Permanent if the vehicle is not enrolled, or as `enrol` does.
    """
    registry = Registry(fleet.require().vehicles)
    before = registry.require(vehicle)
    _check_out(out)
    issuer = Issuer.of(fleet)
    certificate = issuer.certify(vehicle, _device_key(out, csr), days=days, now=now)
    # The list comes first.  If the authority's key is missing, nothing has changed.
    with key_lock(fleet):
        update_revocation_lists(fleet, add=before.certificates, now=now)
    _write_folder(fleet, out, msgspec.structs.replace(before, certificate_pem=pem_of(certificate)))
    return registry.change(vehicle, lambda record: record.with_only(certificate))


def reissue(fleet: FleetFolder, vehicle: str, *, days: int, now: datetime) -> VehicleRecord:
    """Issue a new certificate for the newest key of `vehicle`, whose certificate may have expired while it was off.

    Raises: Permanent if the vehicle is not enrolled or is revoked, or if the authority's key is not here.
    """
    registry = Registry(fleet.require().vehicles)
    before = registry.require(vehicle)
    if before.revoked:
        raise Permanent(f"Vehicle {vehicle} is revoked. Reinstate it first: fleet keys reinstate {vehicle}.")
    certificate = Issuer.of(fleet).certify(vehicle, before.device_keys()[0], days=days, now=now)
    return registry.change(vehicle, lambda record: record.with_certificate(certificate))


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Permanent(f"{out} exists and is not an empty folder. Choose another --out.")


def _device_key(out: Path, csr: Path | None) -> ec.EllipticCurvePublicKey:
    """Return the public key of the signing request `csr`, or of a new key in the new folder `out`."""
    requested = None if csr is None else _requested_key(csr)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    return requested or keys.create_p256(out / "device.key.pem").public_key()


def _write_folder(fleet: FleetFolder, out: Path, record: VehicleRecord) -> None:
    """Write all files of a vehicle folder except the private key."""
    recipient = keys.read_recipient(fleet).public
    acks = keys.read_ed25519(fleet.key("acks")).public_key()
    root = fleet.metadata / "1.root.json"
    write_file(out / "device.crt.pem", record.certificate_pem.encode(), mode=0o644)
    keys.write_certificates(out / "ca.crt.pem", accepted_authorities(fleet))
    write_file(out / "hpke.pub.json", recipient.to_json(), mode=0o644)
    keys.write_public(out / "acks.pub.pem", acks)
    write_file(out / "root.json", root.read_bytes(), mode=0o644)
    identity: dict[str, str | int] = {
        "vehicle": record.vehicle,
        "brand": record.brand,
        "model": record.model,
        "market": record.market,
        "model_year": record.model_year,
        "partition": record.partition,
        "fleet": fleet.root.resolve().name,
    }
    write_file(out / "identity.toml", _toml(identity).encode(), mode=0o644)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Holds the certificate and the private key of the fleet's authority.

    Both are read from the disk once, and then issue certificates for any number of vehicles.
    """

    authority: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, fleet: FleetFolder) -> Self:
        """Read the authority of `fleet`.  Raises: Permanent if its certificate or key is missing or damaged."""
        issuing = issuing_authority(fleet)
        return cls(issuing.certificate, issuing.key)

    def issue(self, device_key: ec.EllipticCurvePublicKey, model: Model, *, days: int, now: datetime) -> VehicleRecord:
        """Return the record of a new vehicle, with a new pseudonym and its certificate.  Nothing is stored."""
        # The pseudonym is random, because one derived from the VIN could be found by trying all VINs.
        vehicle = str(uuid.uuid4())
        certificate = self.certify(vehicle, device_key, days=days, now=now)
        return VehicleRecord(
            vehicle=vehicle,
            certificate_pem=pem_of(certificate),
            brand=model.brand,
            model=model.model,
            market=model.market,
            model_year=model.model_year,
            partition=partition_of(vehicle),
            revoked=False,
        )

    def certify(
        self, vehicle: str, device_key: ec.EllipticCurvePublicKey, *, days: int, now: datetime
    ) -> x509.Certificate:
        """Return a certificate of `vehicle` for this key.  Nothing is stored."""
        return certificates.issue_client(
            self.authority,
            self.key,
            device_key,
            common_name=vehicle,
            now=now,
            days=days,
            serial=x509.random_serial_number(),
        )


def _requested_key(csr: Path) -> ec.EllipticCurvePublicKey:
    """Return the public key of a signing request.

    Raises: Permanent if the request cannot be read, if its key is not EC P-256, or if it is not signed with that key.
    """
    try:
        request = x509.load_pem_x509_csr(csr.read_bytes())
    except OSError as error:
        raise Permanent(f"The signing request {csr} cannot be read ({error.strerror}). Check --csr.") from error
    except ValueError as error:
        raise Permanent(f"{csr} is not a signing request in PEM. Make a request with `openssl req -new`.") from error
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Permanent(f"{csr}: The key of the request is not EC P-256. Make a request with an EC P-256 key.")
    if not request.is_signature_valid:
        raise Permanent(f"{csr}: The request is not signed with its own key. Make the request again.")
    return key


def _toml(values: Mapping[str, str | int]) -> str:
    """Return `values` as lines of TOML.  TOML writes integers and strings as JSON does."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
