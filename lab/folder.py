"""Makes an empty folder for each run.  Invariant: only files of an earlier run are deleted."""

import shutil
from pathlib import Path

from agent.errors import Permanent

MARKER = ".headunit-agent-demo"


def require_ours(folder: Path) -> None:
    """Check that `fresh` may empty `folder`.

    Raises: Permanent if `folder` is a file, or if it holds files but not the marker that every run leaves.
    """
    if folder.exists() and not folder.is_dir():
        raise Permanent(f"{folder} is a file, not a folder. Choose another --out.")
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise Permanent(f"{folder} holds files that no earlier run has made. Choose another --out.")


def fresh(folder: Path) -> Path:
    """Make `folder` empty and return it.  Raises: Permanent, as `require_ours` does."""
    require_ours(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    return folder
