"""Define the release, and the messages between the agent and the verifier process.  Pure.

    agent --- Question (JSON on standard input) ---> verifier
    agent <-- Verdict (JSON on standard output) ---- verifier

Byte strings are base64 in JSON.  The agent imports this file but not TUF, which would take 25 MB of memory.
"""

from enum import StrEnum

import msgspec

from agent.errors import Untrusted
from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import Versions
from agent.formats.down.chunks import LargeFile, Sha256


class Reason(StrEnum):
    """The reasons to refuse or revert a push.  Their values are stable, because receipts and dashboards use them."""

    MALFORMED = "malformed"
    """The payload is not a bundle."""
    OVERSIZED = "oversized"
    """The bundle, one of its files, or the number of its targets is above a limit."""
    TRUNCATED = "truncated"
    """The bundle is cut short, or lacks a file that the metadata calls for."""
    TAMPERED = "tampered"
    """The content of a file does not match its signature or hash."""
    FOREIGN_KEY = "foreign_key"
    """The file has no signature by a key of its role."""
    UNDERSIGNED = "undersigned"
    """The file has genuine signatures, but fewer than the threshold of its role."""
    ROLLBACK = "rollback"
    """The bundle has an older version than one that this vehicle has seen."""
    MIX_AND_MATCH = "mix_and_match"
    """The bundle combines genuine files of different versions."""
    EXPIRED = "expired"
    """The metadata has expired: an attacker withholds newer metadata, or the fleet has not signed any in time."""
    INVALID = "invalid"
    """The release is signed, but this vehicle cannot use one of its documents."""
    CRASHED = "crashed"
    """The verifier process crashed on the bundle, or printed no verdict."""
    TIMEOUT = "timeout"
    """The verifier process did not finish in time."""
    UNWANTED = "unwanted"
    """The chunk belongs to no document that this vehicle fetches."""
    DUPLICATE = "duplicate"
    """The chunk has arrived before."""
    UNHEALTHY = "unhealthy"
    """The release was put on trial, but the agent did not work with it."""
    UNPROVEN = "unproven"
    """The release touches the link or the sealing key, and was not proven in a trial that lasted a day."""


class Refused(Untrusted):
    """A bundle must not be applied; `reason` is stable, and `detail` is for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"the push is refused ({reason}): {detail}")
        self.reason = reason
        self.detail = detail


class Release(msgspec.Struct, frozen=True):
    """Holds the verified documents that are meant for this vehicle.

    `version` is the version of the signed targets.  `documents` maps the path of each target to its content.  `large`
    has the SHA-256 (hex) of the packed file and the size of each large document, by path.
    """

    version: int
    documents: dict[str, bytes]
    large: dict[str, tuple[Sha256, int]] = {}

    def without_large(self) -> "Release":
        """Return a copy that has no contents of large documents.  They lie in the push store as packed files."""
        small = {path: content for path, content in self.documents.items() if path not in self.large}
        return msgspec.structs.replace(self, documents=small)

    def with_large(self, contents: dict[str, bytes]) -> "Release":
        """Return a copy with the `contents` of large documents, by path."""
        return msgspec.structs.replace(self, documents=dict(sorted((self.documents | contents).items())))


class Question(msgspec.Struct, frozen=True):
    """Holds the whole input of the verifier process.

    `metadata` is the trusted metadata of the vehicle, by file name as in an earlier `Verdict.metadata`.  `contents`
    are the target files that the vehicle has; those of large documents are packed.  `floor` has the highest version
    seen of each role.  `now_s` is the trusted time (Unix).  `settled` has the versions of targets that the vehicle has
    applied or refused already; the verifier does not unpack the documents of these versions.
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
    """Holds the result of a verification, in one of three forms.

    | `reason` | `metadata` | meaning |
    |---|---|---|
    | set | empty | The bundle is refused, and nothing of it may be kept. |
    | INVALID | set | The metadata is trusted, but this vehicle cannot use the documents. |
    | None | set | The bundle is trusted.  `release` is None if its version is in `Question.settled`, or if large |
    | | | documents are missing. |

    `release` does not contain the contents of large documents, because the agent has their packed files.  If a large
    document is missing, `wanted` lists all large documents of the release.

    `unconfined` has the layers of confinement that the verifier lacked, each with the reason
    (agent/system/confinement.py).
    """

    reason: Reason | None = None
    detail: str = ""
    versions: Versions = Versions()
    metadata: dict[str, bytes] = {}
    signed_at_s: int = 0
    release: Release | None = None
    wanted: tuple[LargeFile, ...] = ()
    unconfined: tuple[str, ...] = ()
