"""Check the folders of the agent for `headunit-agent check`: may this user write to them, and is there room?"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agent.runtime.limits import Limits
from agent.settings.settings import Loaded
from agent.system import durable
from agent.telemetry.spool.shortage import below_reserve

SERVICE_FOLDERS: Final = (Path("/var/lib/headunit-agent"), Path("/run/headunit-agent"))
"""The folders that systemd makes when it starts the service (StateDirectory=, RuntimeDirectory=)."""

UNITS: Final = tuple(
    Path(folder, "headunit-agent.service")
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
)


class Findings(NamedTuple):
    """Holds the problems and notes of the check."""

    problems: list[str]
    notes: list[str]


def check_folders(loaded: Loaded, units: Sequence[Path] = UNITS) -> Findings:
    """Check the folders that the configuration names.

    `units` are the files of which one exists if the service is installed.  systemd then makes the service's folders, so
    they need not exist before its first start.
    """
    found = Findings([], [])
    installed = any(unit.exists() for unit in units)
    for key, name in (
        ("folder", loaded.settings.state.folder),
        ("runtime_folder", loaded.settings.state.runtime_folder),
    ):
        folder = loaded.path(name)
        if not (installed and folder in SERVICE_FOLDERS and not folder.exists()):
            found.problems.extend(f"{loaded.file}: state.{key}: {problem}" for problem in _not_writable(folder))
    _check_space(loaded, found)
    return found


def _not_writable(folder: Path) -> list[str]:
    """Return what keeps this user from writing to `folder`, or from making it; the list is empty if nothing does."""
    # The agent makes a missing folder, which needs write access to the nearest parent that exists.
    present = _present(folder)
    if present.is_dir() and os.access(present, os.W_OK | os.X_OK):
        return []
    if not present.is_dir():
        return [f"{present} is not a folder; remove it, or name another folder"]
    if os.statvfs(present).f_flag & os.ST_RDONLY:
        return [f"{present} is on a read-only file system; mount it for writing, or name another folder"]
    if present == folder:
        return [f"this user cannot write to {folder}; let its owner run the command, or name another folder"]
    return [
        f"{folder} does not exist, and this user cannot make it in {present}; make it as root for the user of the "
        f"agent: install -d -o USER -m 700 {folder}, or name another folder"
    ]


def _check_space(loaded: Loaded, found: Findings) -> None:
    state = loaded.path(loaded.settings.state.folder)
    present = _present(state)
    free = shutil.disk_usage(present).free
    needed = max(loaded.settings.spool.reserve_bytes, Limits().batch_max_bytes)
    if free < needed:
        found.problems.append(f"{loaded.file}: spool.reserve_mb: {below_reserve(present, free, needed)}")
        return
    # A folder that this user may not write to is a problem already, and says nothing about the disk.
    if state.is_dir() and not _not_writable(state):
        found.problems.extend(_try_disk(state))
    wanted = loaded.settings.spool.quota_bytes + loaded.settings.spool.reserve_bytes
    if free < wanted:
        found.notes.append(
            f"state.folder: {free:,} bytes are free on {present}, but spool.quota_mb + spool.reserve_mb are {wanted:,} "
            "bytes; free space or lower spool.quota_mb, otherwise the spool evicts batches before it reaches its quota"
        )


def _try_disk(state: Path) -> list[str]:
    """Write, sync and remove a file as large as a batch, and return what the disk says if it refuses."""
    file = state / f".check-{os.getpid()}"
    try:
        durable.create_file(file, bytes(Limits().batch_max_bytes))
        durable.remove(file)
    except OSError as error:
        return [
            f"state.folder: the disk of {state} takes no data ({error.strerror or error}), so batches are sent from "
            "memory while the link is up, and lost when memory is full. Free some space or repair the file system."
        ]
    return []


def _present(folder: Path) -> Path:
    """Return `folder`, or the nearest of its parents that exists."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
