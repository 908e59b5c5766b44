"""Writes a file that appears under its name only when it is complete."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import Permanent


@contextmanager
def replaced_file(out: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which is renamed to `out` when the `with` block ends.

    If the `with` block fails, the temporary file is removed, and an older file `out` stays.

    Raises: Permanent if the file cannot be written.
    """
    # The temporary file is in the same folder, so that the rename stays on one file system.  Its name has the process
    # id, so that two commands with the same output do not write into one file.
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise Permanent(
            f"{out}: the table cannot be written: {error.strerror or error}; {_remedy(out, error.errno)}"
        ) from error
    finally:
        # If this fails as well, its cause has been reported above.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _remedy(out: Path, code: int | None) -> str:
    match code:
        case errno.ENOENT:
            return f"make the folder {out.parent}, or choose another place"
        case errno.ENOTDIR | errno.EISDIR:
            return "name a file in a folder that exists"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "choose a place where this user may write"
        case errno.ENAMETOOLONG:
            return "choose a shorter name"
    return "make room or choose another place"
