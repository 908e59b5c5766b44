"""The release that a push results in, and the messages between the agent and the verifier process.  Pure.

    agent --- Question (JSON on standard input) ---> verifier
    agent <-- Verdict (JSON on standard output) ---- verifier

Byte strings are base64 in JSON.  This file imports nothing heavy, so the agent can talk to the verifier without the
25 MB that importing TUF costs.
"""

from enum import StrEnum

import msgspec

from agent.errors import Untrusted
from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import Versions


class Reason(StrEnum):
    """Why a push was refused or reverted.  The words are stable, because receipts and dashboards use them."""

    MALFORMED = "malformed"
    """The payload is not a bundle."""
    OVERSIZED = "oversized"
    """The payload has more bytes than a bundle may have, or a file more than the metadata allows."""
    TRUNCATED = "truncated"
    """A file that the metadata calls for is missing or short."""
    TAMPERED = "tampered"
    """The content of a file does not fit its signature or hash."""
    FOREIGN_KEY = "foreign_key"
    """A key that does not have the role signed the file."""
    UNDERSIGNED = "undersigned"
    """The signatures are genuine, but fewer than the threshold of the role."""
    ROLLBACK = "rollback"
    """The version is older than one that this vehicle has seen."""
    MIX_AND_MATCH = "mix_and_match"
    """Genuine files of different versions are put together."""
    EXPIRED = "expired"
    """The fleet has not signed for the version in time: an attacker holds a newer one back, or none is published."""
    INVALID = "invalid"
    """The release is signed, and yet this vehicle cannot use one of its documents."""
    CRASHED = "crashed"
    """The verifier did not survive the bundle."""
    TIMEOUT = "timeout"
    """The verifier did not finish with the bundle."""
    UNHEALTHY = "unhealthy"
    """The release was applied, and the agent did not work with it."""


class Refused(Untrusted):
    """A bundle must not be applied, for a stable `reason`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"push refused ({reason}): {detail}")
        self.reason = reason
        self.detail = detail


class Release(msgspec.Struct, frozen=True):
    """The verified documents that are meant for this vehicle.

    `version` is that of the signed targets; `documents` maps the path of each target to its content.
    """

    version: int
    documents: dict[str, bytes]


class Question(msgspec.Struct, frozen=True):
    """Everything that the verifier works with; it reads nothing else from the disk.

    `metadata` is the trusted metadata held, by the names that `agent.pushes.trust` gave it, and `contents` the target
    files held.  `floor` has the highest version seen of each role.  `now_s` is the trusted time (Unix).  `settled` are
    the versions of targets that need not be unpacked again.
    """

    bundle: bytes
    trusted_root: bytes
    metadata: dict[str, bytes]
    contents: tuple[bytes, ...]
    floor: Versions
    settled: tuple[int, ...]
    now_s: int
    vehicle: Attributes


class Verdict(msgspec.Struct, frozen=True):
    """The result of a verification, which is one of three.

    | `reason` | `metadata` | meaning |
    |---|---|---|
    | set | empty | refused; nothing of the bundle may be kept |
    | INVALID | set | the metadata is trusted, but this vehicle cannot use the documents |
    | None | set | trusted; `release` is None where its version is settled already |
    """

    reason: Reason | None = None
    detail: str = ""
    versions: Versions = Versions()
    metadata: dict[str, bytes] = {}
    signed_at_s: int = 0
    release: Release | None = None
