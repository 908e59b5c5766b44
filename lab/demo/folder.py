"""Folders that are made anew by each run.  Invariant: nothing is deleted but what an earlier run has left."""

import shutil
from pathlib import Path

from agent.errors import Permanent

MARKER = ".headunit-agent-demo"


def fresh(folder: Path) -> Path:
    """An empty `folder`; what an earlier run left there goes, anything else stays and is Permanent."""
    if folder.exists() and not folder.is_dir():
        raise Permanent(f"{folder} is a file; choose another --out")
    marker = folder / MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise Permanent(f"{folder} holds something else than an earlier run; choose another --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()
    return folder
