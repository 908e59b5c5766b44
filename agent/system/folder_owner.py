"""Keep root from leaving files of its own in the state folder of the service's user.

The service runs as the user `headunit-agent`.  It could not read files of root in its state folder, and would never
start again.
"""

import os
import pwd
from pathlib import Path
from typing import Final

from agent.errors import Permanent

_ROOT: Final = 0


def owner(folder: Path) -> tuple[int, int] | None:
    """Return user and group of `folder` if this process is root and the folder belongs to another user, or None.

    A folder that is missing has no owner yet.
    """
    if os.geteuid() != _ROOT:
        return None
    try:
        found = folder.stat()
    except OSError:
        return None
    return None if found.st_uid == _ROOT else (found.st_uid, found.st_gid)


def user_name(user: int) -> str:
    """Return the name of `user`, or the number if no name is known."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def become(user: int, group: int, runtime_folder: Path) -> None:
    """Give up root for good and go on as `user`, who cannot make `runtime_folder` and therefore gets it first.

    The process loses every capability.  The kernel makes it dumpable or not by its own setting, so `forbid_dumps` must
    be called afterwards.

    Raises: Permanent if the kernel refuses.
    """
    try:
        if not runtime_folder.is_dir():
            runtime_folder.mkdir(parents=True)
            # Apps of the head unit run as other users, and read flagd's file in this folder.
            runtime_folder.chmod(0o755)
            os.chown(runtime_folder, user, group)
        os.setgroups([group])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except OSError as error:
        raise Permanent(
            f"cannot go on as the user {user_name(user)} ({error.strerror}); start the command as this user"
        ) from error
    os.umask(0o077)
