"""Makes an empty folder for each run.  Invariant: only files of an earlier run are deleted."""

import shutil
from pathlib import Path

from agent.errors import Permanent

MARKER = ".headunit-agent-demo"


def fresh(folder: Path) -> Path:
    """Make `folder` empty and return it.

    Raises: Permanent if `folder` is a file, or if it holds files but not the marker that every run leaves.
    """
    if folder.exists() and not folder.is_dir():
        raise Permanent(f"{folder} is a file, not a folder. Choose another --out.")
    marker = folder / MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise Permanent(f"{folder} holds files that no earlier run has made. Choose another --out.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()
    return folder
