"""What a push comes to for one vehicle, and how the verifier process is asked and answers.

Pure data.  Question and Verdict cross a pipe as JSON (byte strings as base64); this file imports nothing heavy, so the
steady process can speak with the verifier without paying for TUF.
"""

from enum import StrEnum
from typing import Final

import msgspec

from agent.errors import Untrusted
from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import Versions

TOGGLES: Final = "toggles.json"
CAMPAIGNS: Final = "campaigns/"


class Reason(StrEnum):
    """Why a push was refused; stable, for receipts and dashboards."""

    MALFORMED = "malformed"  # not a bundle at all
    OVERSIZED = "oversized"  # more bytes than a bundle, or than the metadata allows a file
    TRUNCATED = "truncated"  # a file that the metadata calls for is missing or short
    TAMPERED = "tampered"  # content does not fit its signature or hash
    FOREIGN_KEY = "foreign_key"  # signed by a key that does not have the role
    UNDERSIGNED = "undersigned"  # genuine signatures, but fewer than the role's threshold
    ROLLBACK = "rollback"  # an older version than this vehicle has seen
    MIX_AND_MATCH = "mix_and_match"  # genuine files of different versions put together
    EXPIRED = "expired"  # nobody has signed for it in time: somebody holds the newer one back, or nobody publishes
    INVALID = "invalid"  # signed, and yet no document that this vehicle can use
    CRASHED = "crashed"  # the verifier did not survive this bundle
    TIMEOUT = "timeout"  # the verifier did not finish with this bundle
    UNHEALTHY = "unhealthy"  # applied, and the agent was not well with it


class Refused(Untrusted):
    """A bundle that must not be applied, with its stable `reason`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"push refused ({reason}): {detail}")
        self.reason = reason
        self.detail = detail


class Release(msgspec.Struct, frozen=True):
    """What is in force on this vehicle: `version` is that of the signed targets.

    `toggles` is the flag definition (JSON) or None where none is meant for this vehicle; `campaigns` are names and
    documents (JSON), by name.
    """

    version: int
    toggles: bytes | None
    campaigns: tuple[tuple[str, bytes], ...]

    @property
    def documents(self) -> tuple[bytes, ...]:
        """Contents of all target files of this release."""
        toggles = () if self.toggles is None else (self.toggles,)
        return (*toggles, *(document for _, document in self.campaigns))


class Question(msgspec.Struct, frozen=True):
    """All that the verifier is told: it reads nothing from the disk.

    `metadata` is the trusted metadata held (names as `agent.pushes.trust` gave them), `contents` the target files held,
    `now_s` the trusted time (Unix), `settled` versions of targets that need not be unpacked again.
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
    """What the verifier found.

    `reason` set and `metadata` empty: refused, nothing of it may be kept.  `reason` INVALID with metadata: trusted, but
    the documents are not usable.  Else trusted; `release` is None where its version is settled already.
    """

    reason: Reason | None = None
    detail: str = ""
    versions: Versions = Versions()
    metadata: dict[str, bytes] = {}
    signed_at_s: int = 0
    release: Release | None = None
