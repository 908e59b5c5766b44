"""Store large documents of the repository packed, and read chunks of them for vehicles.

agent/formats/down/chunks.py describes packed documents.  The fleet packs a document once, when it is published, so the
answer to a vehicle costs one read of one chunk.
"""

from pathlib import Path

from tuf.api.metadata import TargetFile

from agent.errors import Permanent, Untrusted
from agent.formats.down.chunks import CHUNK_BYTES, LargeFile, is_large, large_field, large_file, pack, unpack


def stored_form(content: bytes, path: str, *, in_chunks: bool = False) -> tuple[bytes, dict[str, object]]:
    """Return the file that is stored for a document, and what its target's `custom` field says about it.

    A large document travels in chunks.  A smaller one does so only if `in_chunks` is true.

    Raises: Permanent naming `path` if the document is too large for vehicles.
    """
    packed = pack(content)
    if not in_chunks and not is_large(content, packed):
        return content, {}
    try:
        return packed, large_field(content, packed)
    except Permanent as error:
        raise Permanent(f"{path}: {error}") from error


def is_large_target(target: TargetFile) -> bool:
    """Return whether the document of `target` is stored packed and travels in chunks.  Raises: as `large_file_of`."""
    return large_file_of(target) is not None


def large_file_of(target: TargetFile) -> LargeFile | None:
    """Return the description of the large document of `target`, or None if the document is not large.

    Raises: Untrusted if the description is malformed.
    """
    return large_file(target.custom, target.hashes["sha256"], target.length)


def document_of(target: TargetFile, stored: bytes) -> bytes:
    """Return the document whose stored file is `stored`.  Raises: Permanent if the file is damaged."""
    try:
        file = large_file_of(target)
        return stored if file is None else unpack(stored, file.document_bytes)
    except Untrusted as error:
        raise Permanent(
            f"The repository's file for {target.path} is damaged ({error}). Please restore it from the backup."
        ) from error


def read_chunk(file: Path, index: int) -> bytes:
    """Return one chunk of a packed file, or no bytes if the file ends before it.

    Raises: Permanent if the file cannot be read.
    """
    try:
        with file.open("rb") as stored:
            stored.seek(index * CHUNK_BYTES)
            return stored.read(CHUNK_BYTES)
    except OSError as error:
        raise Permanent(
            f"The repository's file {file} cannot be read ({error.strerror}). "
            "Please restore the repository from the backup."
        ) from error
