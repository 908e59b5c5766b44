"""The file with the flag definition in force, for apps that evaluate flags with flagd's in-process provider."""

import contextlib
from pathlib import Path
from typing import Final

from agent.errors import Transient
from agent.system.durable import write_file

FLAGD_FILE: Final = "flags.flagd.json"
_NO_FLAGS: Final = b'{"flags":{}}'


class FlagdFile:
    """The file in the runtime folder.  Readers see the old definition or the new one, never a mixture.  Blocking."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FLAGD_FILE

    def write(self, definition: bytes | None) -> None:
        """Write `definition`; None is no flags.

        A file that has this content is left alone, so that a release whose file is there can be put in force again on
        a full disk.  Raises: Transient where the disk refuses it; the file is then the one before.
        """
        content = _NO_FLAGS if definition is None else definition
        try:
            if self.path.exists() and self.path.read_bytes() == content:
                return
            write_file(self.path, content, mode=0o644)
        except OSError as error:
            raise Transient(f"cannot write {self.path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the file, if the disk allows: a missing file is better than one that is wrong."""
        with contextlib.suppress(OSError):
            self.path.unlink()
