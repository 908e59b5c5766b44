"""Makes a fleet and vehicles for tests, with real keys, real sealing and small windows."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from agent.formats import topics
from agent.formats.topics import Lane
from agent.formats.up.acks import Ack, Sealed, verify_ack
from agent.formats.up.catalogue import Catalogue, catalogue_of
from agent.formats.up.columns import Clock, ClockQuality, ColumnGroup, Described, Event, SignalInfo, Window
from agent.formats.up.encode import encode_catalogue, encode_window
from agent.formats.up.recipient import RecipientPublicKey
from agent.formats.up.seal import Header, seal
from can_dbc.values import Kind
from fleet.admin.create import create_fleet
from fleet.admin.enrol import Model, enrol
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_p256

EPOCH = "0123456789abcdef0123456789abcdef"
MADE = 1_000  # sealed batches that a vehicle keeps to send them again
T0_US = 1_760_000_000_000_000
DEMO = Model("Demo", "Hatch", "EU", 2026)


def make_fleet(root: Path) -> FleetFolder:
    fleet = FleetFolder(root)
    create_fleet(fleet, suite="X25519", broker_names=(), now=datetime.now(UTC))
    return fleet


@dataclass(frozen=True)
class Vehicle:
    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    recipient: RecipientPublicKey
    acks_key: Ed25519PublicKey
    made: dict[tuple[object, ...], bytes] = field(default_factory=dict, compare=False)

    @property
    def topic(self) -> str:
        return topics.up(topics.partition_of(self.name), self.name, Lane.LIVE)

    def header(self, seq: int, *, lane: Lane = Lane.LIVE) -> Header:
        key_id, suite = self.recipient.key_id, self.recipient.suite
        return Header(self.name, EPOCH, seq, lane, key_id, suite, T0_US + seq)

    def batch(
        self,
        seq: int,
        window: Window | None = None,
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        catalogue: Catalogue | None = None,
    ) -> bytes:
        """Return a sealed batch.  With `catalogue`, the batch refers to it instead of describing its signals."""
        return self.sealed(seq, encode_window(make_window(seq) if window is None else window, catalogue), key=key)

    def sealed(self, seq: int, body: bytes, *, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        """Return a sealed batch.  The same arguments give the same bytes, as a vehicle sends stored bytes again."""
        made = (seq, body, key)
        if made not in self.made:
            if len(self.made) >= MADE:
                del self.made[next(iter(self.made))]
            self.made[made] = seal(self.header(seq), body, key or self.key, self.recipient)
        return self.made[made]

    def catalogue_batch(self, seq: int, catalogue: Catalogue) -> bytes:
        body = encode_catalogue(catalogue, T0_US, make_window(seq).clock)
        return self.sealed(seq, body)

    def verify(self, payload: bytes) -> Ack:
        return verify_ack(payload, self.acks_key)


def numbers(named: Iterable[Sealed]) -> tuple[int, ...]:
    """Return the sequence numbers of the batches that an acknowledgement names."""
    return tuple(seq for seq, _ in named)


def make_vehicle(fleet: FleetFolder, folder: Path) -> Vehicle:
    enrol(fleet, folder, DEMO, days=2, now=datetime.now(UTC))
    identity = tomllib.loads((folder / "identity.toml").read_text())
    acks_key = load_pem_public_key((folder / "acks.pub.pem").read_bytes())
    assert isinstance(acks_key, Ed25519PublicKey)
    recipient = RecipientPublicKey.from_json((folder / "hpke.pub.json").read_bytes(), "hpke.pub.json")
    return Vehicle(folder, identity["vehicle"], read_p256(folder / "device.key.pem"), recipient, acks_key)


def make_window(seq: int, *, samples: int = 10) -> Window:
    """Return a window with two signals of one message, every 10 ms.  Raw values and times depend on `seq`."""
    t_us = T0_US + seq * 1_000_000 + np.arange(samples, dtype=np.int64) * 10_000
    signals = (
        SignalInfo("Speed.VehicleSpeed", "can0", "km/h", Kind.UINT, 16, 0.01, 0.0),
        SignalInfo("Speed.Gear", "can0", None, Kind.INT, 4, 1.0, -1.0),
    )
    raw = np.stack([np.arange(samples) + seq * 1000, np.arange(samples) % 3]).astype(np.int64)
    group = ColumnGroup(t_us, signals, raw, ({}, {0: "reverse", 1: "neutral"}))
    events = (Event(T0_US + seq, "started", {"reason": "test", "seq": seq}),)
    clock = Clock(ClockQuality.NETWORK, "boot", T0_US, 5_000_000)
    return Window("drive", "0123456789ab", int(t_us[0]), int(t_us[-1]), clock, (group,), events)


def make_catalogue(*, more: int = 0) -> Catalogue:
    """Return a catalogue of the signals of `make_window`, and of `more` signals that no window holds."""
    speed, gear = make_window(1).groups[0].signals
    unseen: list[Described] = [
        (SignalInfo(f"Unseen.S{i}", "can0", None, Kind.UINT, 8, 1.0, 0.0), {}) for i in range(more)
    ]
    return catalogue_of("drive", "0123456789ab", [(speed, {}), (gear, {0: "reverse", 1: "neutral"}), *unseen])
