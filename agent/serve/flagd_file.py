"""Write the current flag definition to a file, for apps that evaluate flags with flagd's in-process provider.

The rules in the file are those of this vehicle (`agent.formats.down.vehicle_rules`), because a reader of the file does
not know the vehicle.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from agent.errors import Transient
from agent.system.durable import write_file

FLAGD_FILE: Final = "flags.flagd.json"
_NO_FLAGS: Final = b'{"flags":{}}'


class FlagdFile:
    """Keeps flagd's file in the runtime folder.  Readers see the old definition or the new one, never a mixture.

    The methods block until the disk has done its work.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FLAGD_FILE
        self._newest_ns = 0
        """The latest time of change that the file has had."""

    def write(self, definition: bytes | None) -> None:
        """Write `definition` to the file; None means that there are no flags.

        If the file already has this content, nothing is written.  An unchanged definition can therefore be applied
        again on a full disk.

        Raises: Transient if the disk refuses the write.  The file then keeps its old content.
        """
        content = _NO_FLAGS if definition is None else definition
        try:
            if self.path.exists():
                self._newest_ns = max(self._newest_ns, self.path.stat().st_mtime_ns)
                if self.path.read_bytes() == content:
                    return
            write_file(self.path, content, mode=0o644)
            self._make_newest()
        except OSError as error:
            raise Transient(
                f"{self.path}: the flags cannot be written: {error.strerror}; check the folder state.runtime_folder"
            ) from error

    def remove(self) -> None:
        """Remove the file.  If the disk refuses, the file stays, and no error is raised."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _make_newest(self) -> None:
        """Give the file a later time of change than it had before.

        flagd's provider for Python reads the file again only if its time is later.  If the clock has been set back, it
        would go on with the old flags.
        """
        changed_ns = self.path.stat().st_mtime_ns
        if changed_ns <= self._newest_ns:
            changed_ns = self._newest_ns + 1_000_000_000
            os.utime(self.path, ns=(changed_ns, changed_ns))
        self._newest_ns = changed_ns
