"""Holds the demonstration's result, and formats it for `build/demo.json` and for the terminal."""

import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.demo.compare import Comparison
from lab.demo.documents import GREETING
from lab.demo.log_count import Count
from lab.mosquitto import find_mosquitto
from lab.world import World

OUTAGE_SHARE = 0.1
"""The outage takes a third of the drive.  A machine that is too slow for a tenth shows no outage worth the name."""


@dataclass(frozen=True, slots=True)
class Result:
    """Holds all counts of the demonstration, and the verdict `passed`."""

    source: str
    count: Count
    frames: int
    frames_decoded: int
    frames_captured: int
    comparison: Comparison
    bytes_on_air: int
    outage_s: float
    drive_s: float
    broker_kills: int
    receiver_kills: int
    batches: int
    losses: Sequence[Mapping[str, Any]]
    applied_version: int
    toggle: object
    refused: Mapping[str, bool]
    broker: str
    tls: str
    agent_status: int
    picture: Path
    drawn: Sequence[str]
    seconds: float

    @property
    def passed(self) -> bool:
        """Return whether all checks passed, and the outage was long enough to show something."""
        return self.right and self.outage_shown

    @property
    def outage_shown(self) -> bool:
        """Return whether the outage took so much of the drive that there was something to store and to send later."""
        return self.outage_s >= OUTAGE_SHARE * self.drive_s

    @property
    def right(self) -> bool:
        """Return whether all that was checked is right.

        The lake must be exact, and no frame may be lost: those that the agent captured, those that the oracle read and
        those that were counted in the input must be equally many.  Every attack must be refused, and every fault must
        have taken place.  The pushed toggles must be in force, and the agent must have ended with status 0.
        """
        return (
            self.comparison.equal
            and self.comparison.expected > 0
            and self.count.frames == self.frames == self.frames_captured
            and not self.losses
            and all(self.refused.values())
            and self.toggle == GREETING
            and self.applied_version > 0
            and self.broker_kills > 0
            and self.receiver_kills > 0
            and self.agent_status == 0
        )

    @property
    def bytes_per_sample(self) -> float:
        """Return the mean number of bytes on the air for a sample in the lake.  TLS and both directions are counted."""
        return self.bytes_on_air / max(self.comparison.in_lake, 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of build/demo.json."""
        return {
            "source": self.source,
            "passed": self.passed,
            "frames_counted": self.count.frames,
            "counted_how": self.count.how,
            "frames": self.frames,
            "frames_captured": self.frames_captured,
            "frames_decoded": self.frames_decoded,
            "samples_expected": self.comparison.expected,
            "samples_in_lake": self.comparison.in_lake,
            "missing": self.comparison.missing,
            "duplicates": self.comparison.duplicates,
            "differing": self.comparison.differing,
            "examples": list(self.comparison.examples),
            "losses": list(self.losses),
            "bytes_on_air": self.bytes_on_air,
            "bytes_per_sample": round(self.bytes_per_sample, 4),
            "outage_s": round(self.outage_s, 2),
            "broker_kills": self.broker_kills,
            "receiver_kills": self.receiver_kills,
            "batches": self.batches,
            "toggles": {"applied_version": self.applied_version, "value": self.toggle, "refused": dict(self.refused)},
            "broker": self.broker,
            "tls": self.tls,
            "agent_exit_status": self.agent_status,
            "picture": self.picture.name,
            "seconds": round(self.seconds, 1),
        }


def render(result: Result) -> str:
    """Return the report as text for a terminal."""
    comparison = result.comparison
    kills = f"{result.broker_kills} kill of the broker, {result.receiver_kills} of the receiver"
    differences = f"{comparison.missing} missing, {comparison.duplicates} double, {comparison.differing} differing"
    captured = f"{result.frames_captured:,} of {result.count.frames:,} frames"
    rows = [
        ("drive", result.source),
        ("counted", f"{result.count.frames:,} frames ({result.count.how}); the oracle read {result.frames:,}"),
        ("captured", f"{captured}, {result.frames_decoded:,} known to the databases"),
        ("in the lake", f"{comparison.in_lake:,} samples in {result.batches:,} sealed batches"),
        ("cantools says", f"{comparison.expected:,} samples"),
        ("difference", differences),
        ("survived", f"{result.outage_s:.0f} s without connection, {kills}"),
        ("on the air", f"{result.bytes_on_air:,} bytes, {result.bytes_per_sample:.2f} a sample, both ways"),
        ("road", f"{result.broker}, {result.tls}, certificates both ways"),
        ("toggle", f"push {result.applied_version} applied: demo-greeting = {result.toggle!r}"),
        ("refused", ", ".join(f"{name} {'yes' if done else 'NO'}" for name, done in result.refused.items())),
        ("picture", ", ".join(result.drawn)),
    ]
    lines = ["", *(f"  {name:>13}  {text}" for name, text in rows)]
    lines += [f"  {'':>13}  e.g. {example}" for example in comparison.examples]
    lines += [f"  {'lost':>13}  {loss}" for loss in result.losses]
    fleet = Path(sys.executable).with_name("fleet")
    look = f"open {result.picture}, or ask the lake: {fleet} query latest --fleet {result.picture.parent / 'fleet'}"
    ends = [("verdict", f"{_verdict(result)}  ({result.seconds:.0f} s)"), ("look now", look)]
    return "\n".join([*lines, "", *(f"  {name:>13}  {text}" for name, text in ends), ""])


def _verdict(result: Result) -> str:
    if result.passed:
        return "PASSED: nothing lost, nothing double, nothing forged"
    if result.right and not result.outage_shown:
        return (
            f"NOT SHOWN: the connection was cut for only {result.outage_s:.0f} of {result.drive_s:.0f} s, because this "
            f"machine is too slow; run again with --length {4 * result.drive_s:.0f} (make demo DEMO='--length "
            f"{4 * result.drive_s:.0f}')"
        )
    return "FAILED"


def broker_version() -> str:
    """Return the name and version of the broker, for example `mosquitto 2.0.11`."""
    said = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"mosquitto version (\S+)", said)
    return f"mosquitto {found[1]}" if found else "mosquitto"


def tls_of(world: World) -> str:
    """Connect to the broker with the vehicle's certificate, and return the TLS version and the cipher."""
    context = ssl.create_default_context(cafile=world.vehicle.identity / "ca.crt.pem")
    context.load_cert_chain(world.vehicle.identity / "device.crt.pem", world.vehicle.identity / "device.key.pem")
    with (
        socket.create_connection(("127.0.0.1", world.broker.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        cipher = secured.cipher()
        return f"{secured.version()} {cipher[0] if cipher else ''}".strip()
