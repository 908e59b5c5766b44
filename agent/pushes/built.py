"""Find the time at which this software was built.  A clock that shows an earlier time is wrong.

The build writes the time into a file beside this one (see `setup.py`).
"""

from pathlib import Path
from typing import Final

STAMP: Final = "built_at_s.txt"
"""The name of the file that the build writes into this folder.  Its content is a Unix time in whole seconds."""


def built_at_s(folder: Path = Path(__file__).parent) -> int:
    """Return the Unix time of the build or, in a plain checkout, of the newest source file in `folder`.

    Returns 0 if neither can be read.  Expiry is then judged by the clock and by the times of earlier pushes alone.
    """
    try:
        return int((folder / STAMP).read_text(encoding="ascii"))
    except (OSError, ValueError):
        # A checkout has no stamp, and a disk that loses the stamp must not keep the agent from starting.
        return _newest_s(folder)


def _newest_s(folder: Path) -> int:
    try:
        return max((int(path.stat().st_mtime) for path in folder.glob("*.py")), default=0)
    except OSError:
        return 0
