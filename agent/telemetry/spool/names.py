"""Makes and parses the names of the spool's files.  This file is pure.

If the index is lost, the name of a batch's file is enough to list the batch in a new index.

    batches/<epoch>/<seq>.<lane>.<priority>.<checksum>.batch                      a batch of events, or of a catalogue
    batches/<epoch>/<seq>.<lane>.<priority>.<window>.<k>of<n>.<checksum>.batch    fragment k of n of a window
    checkpoints/<window>.<k>.<priority>.<checksum>.batch                          checkpoint k of a window
    catalogues/<digest>.<epoch>.<seq>.batch                                       copy of a batch with a catalogue

`seq` has 12 digits, and `window` is a window id (32 hex digits).  `checksum` is the first 16 hex digits of the SHA-256
of the content.  The checksum is needed because a power cut can leave a file whose content is cut short.  `digest` is
the digest of the catalogue that the batch carried.

Invariant: `parse_batch` and `parse_checkpoint` read the names that BatchName makes, and return None for other names.
"""

import hashlib
import re
from typing import Final

import msgspec

from agent.formats.topics import Lane

BATCHES: Final = "batches"
CHECKPOINTS: Final = "checkpoints"
CHECKSUM_CHARS: Final = 16
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")
_BATCH: Final = re.compile(
    r"([0-9]{12})\.(events|live|backlog)\.([0-9]{1,10})"
    r"(?:\.([0-9a-f]{32})\.([1-9][0-9]{0,8})of([1-9][0-9]{0,8}))?\.([0-9a-f]{16})\.batch"
)
_CHECKPOINT: Final = re.compile(r"([0-9a-f]{32})\.([1-9][0-9]{0,8})\.([0-9]{1,10})\.([0-9a-f]{16})\.batch")
_CARRIER: Final = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})\.([0-9]{12})\.batch")


class BatchName(msgspec.Struct, frozen=True):
    """The name of a batch's file, split into fields.

    `window` is empty for a batch that belongs to no window.  A checkpoint has the id of its window as its epoch, and
    has no fragment numbers.
    """

    epoch: str
    seq: int
    lane: Lane
    priority: int
    checksum: str
    window: str = ""
    fragment: int = 0
    fragments: int = 0

    @property
    def is_checkpoint(self) -> bool:
        """Return whether the file is a checkpoint."""
        return self.window == self.epoch

    @property
    def folder(self) -> str:
        """The folder of the file, relative to the spool's folder."""
        return CHECKPOINTS if self.is_checkpoint else f"{BATCHES}/{self.epoch}"

    @property
    def file(self) -> str:
        """The name of the file in its folder."""
        if self.is_checkpoint:
            return f"{self.window}.{self.seq}.{self.priority}.{self.checksum}.batch"
        place = f".{self.window}.{self.fragment}of{self.fragments}" if self.window else ""
        return f"{self.seq:012d}.{self.lane.label}.{self.priority}{place}.{self.checksum}.batch"


def is_epoch(text: str) -> bool:
    """Return whether `text` has the form of an epoch or a window id: 32 hex digits."""
    return _EPOCH.fullmatch(text) is not None


def checksum_of(digest: bytes) -> str:
    """Return the checksum for a file name, which is the first digits of the content's SHA-256."""
    return digest.hex()[:CHECKSUM_CHARS]


def matches(name: BatchName, content: bytes) -> bool:
    """Return whether `content` matches the checksum in the file name `name`."""
    return checksum_of(hashlib.sha256(content).digest()) == name.checksum


def parse_batch(epoch: str, file: str) -> BatchName | None:
    """Parse the name of a file in the folder of `epoch`.  Return None if it is not the name of a batch."""
    match = _BATCH.fullmatch(file)
    if match is None:
        return None
    seq, lane, priority, window, fragment, fragments, checksum = match.groups()
    return BatchName(
        epoch,
        int(seq),
        Lane[lane.upper()],
        int(priority),
        checksum,
        window or "",
        int(fragment or 0),
        int(fragments or 0),
    )


def parse_checkpoint(file: str) -> BatchName | None:
    """Parse the name of a file in the folder of checkpoints.  Return None if it is not the name of a checkpoint."""
    match = _CHECKPOINT.fullmatch(file)
    if match is None:
        return None
    window, seq, priority, checksum = match.groups()
    return BatchName(window, int(seq), Lane.LIVE, int(priority), checksum, window)


def carrier_file(digest: bytes, epoch: str, seq: int) -> str:
    """Return the file name for the copy of batch (`epoch`, `seq`), which carried the catalogue `digest`."""
    return f"{digest.hex()}.{epoch}.{seq:012d}.batch"


def parse_carrier(file: str) -> tuple[bytes, str, int] | None:
    """Return the digest, epoch and sequence number in the file name of a catalogue copy, or None for other names."""
    match = _CARRIER.fullmatch(file)
    return None if match is None else (bytes.fromhex(match[1]), match[2], int(match[3]))
