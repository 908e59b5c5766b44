"""Turns documents into TUF targets and into the files that the repository stores for them, and reads these files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tuf.api.metadata import TargetFile

from agent.errors import Permanent
from agent.formats.down.audience import Audience, audience_field
from agent.formats.down.documents import Document, Kind, kind_of
from fleet.publishing.large import stored_form
from fleet.publishing.repository import stored_name
from fleet.state.folder import FleetFolder

_NAME_DIGITS: Final = 32
"""How many hex digits of the hash replace the name of a document that is not for all vehicles."""


def target_of(path: str, content: bytes, audience: Audience, name: str | None = None) -> tuple[TargetFile, bytes]:
    """Return the TUF target at `path` for a document, and the file that is stored for it.

    `name` is the name of the document, or of several documents that have one share of the vehicles; without it, `path`
    is.  The target's `custom` field holds the audience, and describes a large document.  TUF signs this field but does
    not interpret it.

    Raises: Permanent if the document is too large for vehicles.
    """
    stored, custom = stored_form(content, path)
    sha256 = hashlib.sha256(stored).hexdigest()
    if audience:
        custom |= audience_field(audience, sha256, name or path)
    fields: dict[str, object] = {"custom": custom} if custom else {}
    return TargetFile(len(stored), {"sha256": sha256}, path, fields), stored


def target_of_document(document: Document, audience: Audience, kinds: Sequence[Kind]) -> tuple[TargetFile, bytes]:
    """Do what `target_of` does.  If only some vehicles may get the document, its path hides its name."""
    path, kind = document.path, kind_of(document.path, kinds)
    # All vehicles read the list of targets, and the name of a campaign may tell which vehicle it is for.
    if audience and kind is not None and kind.name_of is not None and kind.name_of(document.value):
        path = hidden_path(kind, document)
    return target_of(path, document.content, audience, document.path)


def hidden_path(kind: Kind, document: Document) -> str:
    """Return a path for `document` that hides its name."""
    return kind.path_of(hashlib.sha256(document.content).hexdigest()[:_NAME_DIGITS])


def read_stored(folder: FleetFolder, target: TargetFile) -> bytes:
    """Return the file that is stored for `target`.  Raises: Permanent if it cannot be read."""
    return read_file(folder.targets / stored_name(target))


def read_file(file: Path) -> bytes:
    """Return the content of `file`.  Raises: Permanent if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Permanent(f"{file} cannot be read ({error.strerror}). Check the path and its permissions.") from error
