"""Finds private keys of the fleet that every user of the machine can read or replace.

The files and folders of a new fleet are closed to others.  A copy of the folder, or a careless chmod, may open them.
"""

import stat
from pathlib import Path

from fleet.state.folder import FleetFolder


def exposed_keys(fleet: FleetFolder) -> list[str]:
    """Return a message with the remedy for each folder whose private keys are open to every user of the machine.

    Access of a group is not reported, because it may be intended.
    """
    if not _mode(fleet.root) & stat.S_IXOTH:
        return []
    found = []
    for folder, files in (
        (fleet.keys, sorted(fleet.keys.glob("*"))),
        (fleet.receiver_key.parent, [fleet.receiver_key]),
    ):
        mode = _mode(folder)
        readable = [file for file in files if mode & stat.S_IXOTH and _mode(file) & stat.S_IROTH]
        if readable or (mode & stat.S_IWOTH and mode & stat.S_IXOTH):
            verb = "read" if readable else "replace"
            remedy = f"chmod 700 {folder}" + (f"; chmod 600 {' '.join(map(str, readable))}" if readable else "")
            found.append(
                f"Every user of this machine can {verb} private keys in {folder}. Run `{remedy}`, and replace the keys "
                "(docs/keys.md) if another user may have been there."
            )
    return found


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        # The command itself reports a file that is missing or closed to this user.
        return 0
