"""Folders that each run makes anew.  The invariant: only what an earlier run has left is deleted."""

import shutil
from pathlib import Path

from agent.errors import Permanent

MARKER = ".headunit-agent-demo"


def fresh(folder: Path) -> Path:
    """Empty `folder` and return it.  Raises: Permanent where it holds anything that no earlier run has left."""
    if folder.exists() and not folder.is_dir():
        raise Permanent(f"{folder} is a file; choose another --out")
    marker = folder / MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise Permanent(f"{folder} holds something else than an earlier run; choose another --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()
    return folder
