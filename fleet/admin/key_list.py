"""Lists every key and certificate of a fleet: who holds it, when it expires, and what to do about it.

Invariant: the list reads no private key except to learn that its file is there, so it runs on machines from which the
most important keys have been taken offline.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import Permanent
from fleet.publishing.repository import read_root, read_state
from fleet.state.certificates import fingerprint
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.keys import read_certificate, read_certificates, read_recipient
from fleet.state.registry import Registry
from fleet.state.sealing_keys import made_at, retired_files
from fleet.state.vehicle_record import VehicleRecord

if TYPE_CHECKING:
    from fleet.admin.sealing_switch import SealingSwitch
    from fleet.lake.location import Location

SOON: Final = timedelta(days=90)
"""An expiry within this time asks for action, so a review every three months finds it in time."""

OK: Final = "ok"
_RENEW_ROOT: Final = "Sign a new root: fleet keys root start (docs/keys.md)."


@dataclass(frozen=True, slots=True)
class Line:
    """Describes one key or certificate.

    `expires` is None for a key that never expires.  `action` says what to do now, or is OK.
    """

    name: str
    purpose: str
    holder: str
    id: str
    expires: datetime | None
    action: str


@dataclass(frozen=True, slots=True)
class Vehicles:
    """Counts the certificates of vehicles.  `soonest` is the earliest expiry of a vehicle that is not revoked."""

    enrolled: int
    revoked: int
    expired: int
    expire_soon: int
    soonest: datetime | None
    unreadable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyList:
    """Holds the lines of all keys and certificates, and the counts of the vehicles' certificates.

    `sealing` says how far vehicles have followed a rotation of the sealing key.  It is None before the first one.
    """

    lines: tuple[Line, ...]
    vehicles: Vehicles
    sealing: "SealingSwitch | None"


def list_keys(fleet: FleetFolder, now: datetime, lake: "Location | None" = None) -> KeyList:
    """Return the keys and certificates of `fleet`.

    The registry is read once, which takes about a minute for a million vehicles.  After a rotation of the sealing key,
    `lake` tells which vehicles have switched; without a lake, the list leaves this out.

    Raises: Permanent if the fleet folder holds no fleet, or if a public file is missing or damaged.
    """
    fleet.require()
    switch = None
    if lake is not None and retired_files(fleet):
        # The import stands here, because the list must also work where the packages of the lake are not installed.
        from fleet.admin.sealing_switch import sealing_switch  # noqa: PLC0415

        switch = sealing_switch(fleet, lake)
    lines = (
        *_root_keys(fleet, now),
        *_online_keys(fleet, now),
        Line("acks", "signs acknowledgements", "receiver", "", None, _presence(fleet.key("acks"))),
        *_sealing(fleet, switch),
        *_authorities(fleet, now),
        _certificate("broker", "TLS server", fleet.broker.certificate, now),
        _certificate("receiver", "TLS client", fleet.receiver_certificate, now),
    )
    return KeyList(lines, _vehicles(Registry(fleet.vehicles), now), switch)


def _root_keys(fleet: FleetFolder, now: datetime) -> Iterator[Line]:
    root = read_root(fleet.metadata).signed
    for name, key_id in zip(ROOT_KEYS, root.roles["root"].keyids, strict=False):
        here = fleet.key(name).exists()
        due = _due(root.expires, now, _RENEW_ROOT)
        action = due if due != OK else f"Take {fleet.key(name)} offline (fleet init --help)." if here else OK
        yield Line(
            name, f"signs root {root.version}", "this folder" if here else "offline", key_id[:16], root.expires, action
        )


def _online_keys(fleet: FleetFolder, now: datetime) -> Iterator[Line]:
    state = read_state(fleet.metadata)
    root = read_root(fleet.metadata).signed
    signed = {"targets": state.targets, "snapshot": state.snapshot, "timestamp": state.timestamp}
    for name, metadata in signed.items():
        missing = _presence(fleet.key(name))
        action = _due(metadata.expires, now, "Run `fleet publish`, or keep `fleet receive` running.", _margin(name))
        yield Line(
            name,
            f"signs {name} {metadata.version}",
            "publisher" if name != "timestamp" else "publisher, receiver",
            root.roles[name].keyids[0][:16],
            metadata.expires,
            action if action != OK else missing,
        )


def _margin(role: str) -> timedelta:
    # The timestamp lives 90 days at most, and the receiver renews it after a third of its life.
    return timedelta(days=30) if role == "timestamp" else SOON


def _sealing(fleet: FleetFolder, switch: "SealingSwitch | None") -> Iterator[Line]:
    current = read_recipient(fleet)
    yield Line("sealing", f"opens telemetry ({current.suite})", "receiver", current.key_id, None, "Keep a backup.")
    for path in retired_files(fleet):
        key_id = path.stem.removeprefix("hpke-")
        purpose = f"opens telemetry from before {made_at(fleet.hpke_private):%Y-%m-%d}"
        action = "Keep it; with the lake, this list says what needs it." if switch is None else switch.verdict(key_id)
        yield Line("sealing, earlier", purpose, "receiver", key_id, None, action)


def _authorities(fleet: FleetFolder, now: datetime) -> Iterator[Line]:
    for certificate in read_certificates(fleet.broker.authorities):
        issuing = certificate == read_certificate(fleet.ca_certificate)
        here = fleet.key("ca.key").exists()
        action = _due(certificate.not_valid_after_utc, now, "Run `fleet keys rotate authority`.")
        yield Line(
            "authority" if issuing else "authority, other",
            "issues certificates" if issuing else "is accepted during a rotation",
            ("this folder" if here else "offline") if issuing else "-",
            fingerprint(certificate),
            certificate.not_valid_after_utc,
            action,
        )


def _certificate(name: str, purpose: str, path: Path, now: datetime) -> Line:
    certificate = read_certificate(path)
    expires = certificate.not_valid_after_utc
    action = _due(expires, now, f"Run `fleet keys renew {name}`.")
    return Line(name, purpose, name, fingerprint(certificate), expires, action)


def _vehicles(registry: Registry, now: datetime) -> Vehicles:
    revoked, expiries, unreadable = 0, [], []
    names = registry.names()
    for name in names:
        try:
            record = registry.read(name)
            if record is None:
                continue
            if record.revoked:
                revoked += 1
                continue
            expiries.append(_expiry(record))
        except Permanent as error:
            unreadable.append(str(error))
    return Vehicles(
        len(names),
        revoked,
        sum(expiry < now for expiry in expiries),
        sum(now <= expiry < now + SOON for expiry in expiries),
        min(expiries, default=None),
        tuple(unreadable),
    )


def _expiry(record: VehicleRecord) -> datetime:
    return record.certificates[0].not_valid_after_utc


def _presence(path: Path) -> str:
    return OK if path.exists() else f"{path} is missing. Restore it from the backup."


def _due(expires: datetime, now: datetime, remedy: str, margin: timedelta = SOON) -> str:
    if expires <= now:
        return f"Expired. {remedy}"
    return f"Expires in {(expires - now).days} days. {remedy}" if expires - now < margin else OK
