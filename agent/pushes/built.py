"""Tell when this software was built: no moment of a vehicle's life is earlier, whatever its clock shows.

The build writes the time into a file beside this one (see `setup.py`).
"""

from pathlib import Path
from typing import Final

STAMP: Final = "built_at_s.txt"
"""Name of the file that the build writes into this folder: Unix time in whole seconds."""


def built_at_s(folder: Path = Path(__file__).parent) -> int:
    """Return the Unix time of the build; in a plain checkout, the time of the newest source file in `folder`.

    The result is 0 where neither can be read: expiry is then judged by the clock and by the times of earlier pushes.
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
