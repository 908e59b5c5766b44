"""Stores the staged roll-out of a fleet durably, in the folder `rollouts` of the fleet folder.

    current.json     the latest roll-out
    ID.json          an earlier roll-out, as it ended
    documents/HASH   the content of a document, by its SHA-256 in hex

One roll-out runs at a time: a receipt names the version of a whole release, so the failures of two roll-outs could not
be told apart.  Contents are written before the record that names them.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec

from agent.errors import Permanent, Transient
from agent.system.durable import make_folder, write_file
from fleet.rollout.plan import Rollout
from fleet.state.folder import FleetFolder

_CURRENT: Final = "current.json"


class Book:
    """Reads and writes the roll-outs of one fleet."""

    def __init__(self, fleet: FleetFolder) -> None:
        self._folder = fleet.rollouts

    def read(self) -> Rollout | None:
        """Return the latest roll-out, or None if there was none.  Raises: Permanent if its file is damaged."""
        path = self._folder / _CURRENT
        try:
            return msgspec.json.decode(path.read_bytes(), type=Rollout)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise Permanent(
                f"The record of the roll-out {path} cannot be read ({error}). Restore it from the fleet's backup."
            ) from error

    def require(self) -> Rollout:
        """Return the latest roll-out.  Raises: Permanent if there was none, or if its file is damaged."""
        found = self.read()
        if found is None:
            raise Permanent("There is no roll-out. Start one with `fleet rollout start`.")
        return found

    def write(self, rollout: Rollout) -> None:
        """Store `rollout` as the latest one.  An earlier one is kept under its own name.

        Raises: Transient if the disk refuses.
        """
        try:
            make_folder(self._folder)
            before = self.read()
            if before is not None and before.id != rollout.id:
                write_file(self._folder / f"{before.id}.json", _encoded(before), mode=0o600)
            write_file(self._folder / _CURRENT, _encoded(rollout), mode=0o600)
        except OSError as error:
            raise self._refused(error) from error

    def write_documents(self, contents: Mapping[str, bytes]) -> dict[str, str]:
        """Store the contents of documents, and return their SHA-256 in hex by path.

        Raises: Transient if the disk refuses.
        """
        found = {}
        try:
            make_folder(self._folder / "documents")
            for path, content in contents.items():
                found[path] = hashlib.sha256(content).hexdigest()
                write_file(self._folder / "documents" / found[path], content, mode=0o600)
        except OSError as error:
            raise self._refused(error) from error
        return found

    def document(self, sha256: str) -> bytes:
        """Return the content of a document.  Raises: Permanent if it is missing or damaged."""
        path = self._folder / "documents" / sha256
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Permanent(f"The document {path} cannot be read ({error.strerror}). Restore it.") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Permanent(f"The document {path} is damaged. Restore it from the fleet's backup.")
        return content

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the roll-out for a `with` block.

        Raises: Transient if another process is changing it.
        """
        try:
            make_folder(self._folder)
            descriptor = os.open(self._folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refused(error) from error
        try:
            try:
                # The kernel releases the lock when the process ends, even after a crash.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Transient(
                    f"Another `fleet rollout` is working on {self._folder}. Try again in a moment."
                ) from error
            yield
        finally:
            os.close(descriptor)

    def _refused(self, error: OSError) -> Transient:
        return Transient(f"The roll-out cannot be stored in {self._folder} ({error.strerror}). Check the disk.")


def documents_in_rollout(fleet: FleetFolder) -> tuple[str, ...]:
    """Return the own paths of the documents that a running roll-out publishes, which no other command may change.

    Raises: Permanent if the record of the roll-out is damaged.
    """
    rollout = Book(fleet).read()
    busy = rollout is not None and (rollout.phase.active or not rollout.published)
    return tuple(rollout.documents) if rollout is not None and busy else ()


def _encoded(rollout: Rollout) -> bytes:
    return msgspec.json.format(msgspec.json.encode(rollout), indent=2) + b"\n"
