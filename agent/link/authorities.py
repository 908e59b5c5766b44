"""Keeps the certificate authorities by which the vehicle recognises its broker.

    <folder>/authorities.next.pem   pushed authorities, until a connection was made with them
    <folder>/authorities.pem        pushed authorities in use; without this file, those from the enrolment are in use

Invariant: pushed authorities replace the earlier ones only after one connection.  A document that names a wrong
authority therefore cannot keep the vehicle offline: the new and the old authorities take turns.
"""

import contextlib
from pathlib import Path
from typing import Final

from cryptography import x509

from agent.errors import Permanent, Transient
from agent.system.durable import make_folder, remove, write_file

NEXT: Final = "authorities.next.pem"
IN_USE: Final = "authorities.pem"


class Authorities:
    """Owns the files of pushed authorities; `enrolled` is the file from the enrolment.  Methods block."""

    def __init__(self, folder: Path, enrolled: Path) -> None:
        self._folder = folder
        self._enrolled = enrolled

    @property
    def following(self) -> Path | None:
        """Return the file of authorities that have not connected yet, or None."""
        path = self._folder / NEXT
        return path if path.exists() else None

    @property
    def in_use(self) -> Path:
        """Return the file of the authorities in use."""
        path = self._folder / IN_USE
        return path if path.exists() else self._enrolled

    def read(self) -> list[x509.Certificate]:
        """Return the newest authorities, the issuing one first, whether or not they have connected yet.

        Raises: Permanent if the file cannot be read.
        """
        path = self.following or self.in_use
        try:
            return x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise Permanent(f"{path}: cannot be read ({error}); copy the identity folder again") from error

    def write(self, content: bytes | None) -> None:
        """Store pushed authorities for the next connection, or return to those from the enrolment if there are none.

        Raises: Transient if the disk refuses.
        """
        try:
            if content is None:
                # A file that a power cut brings back is removed at the next start.
                for name in (NEXT, IN_USE):
                    remove(self._folder / name)
            elif not self._has(IN_USE, content):
                make_folder(self._folder)
                write_file(self._folder / NEXT, content)
            else:
                remove(self._folder / NEXT)
        except OSError as error:
            raise Transient(f"cannot store {self._folder / NEXT}: {error.strerror}; free some space") from error

    def confirm(self) -> None:
        """Put the authorities into use with which a connection was made.

        If the disk refuses, they stay the next ones, and are confirmed by a later connection.
        """
        with contextlib.suppress(OSError):
            content = (self._folder / NEXT).read_bytes()
            write_file(self._folder / IN_USE, content)
            remove(self._folder / NEXT)

    def _has(self, name: str, content: bytes) -> bool:
        try:
            return (self._folder / name).read_bytes() == content
        except FileNotFoundError:
            return False
