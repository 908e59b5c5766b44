"""Kills a command of `fleet` before each of its changes to the disk.

    python -m tests.fleet.kill_points FLEET OUT WORDS...

The command runs on copies of the folder FLEET: OUT/1 is the copy that a command left which was killed before its first
change, OUT/2 before its second, and so on.  The last copy is that of a command that ran to its end.  Files and folders
are changed by opening a file for writing, renaming, removing and making folders; Python reports all of them to an audit
hook, so the tested code knows nothing of the kill.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from fleet.__main__ import main

CHANGES = {"os.rename", "os.remove", "os.mkdir"}
LIMIT = 200


def killed_before_each_change(fleet: Path, out: Path, *words: str) -> list[Path]:
    """Run the command in a process of its own, and return the copies in the order of the kills."""
    command = [sys.executable, "-m", __name__, str(fleet), str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir(), key=lambda path: int(path.name))


def run_killed(folder: Path, number: int, words: list[str]) -> None:
    """Run the command, and kill this process before the change with this number."""
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (event in CHANGES or is_write) or str(folder) not in str(arguments[0]):
            return
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    os._exit(main([*words, "--fleet", str(folder)]))


def play(fleet: Path, out: Path, words: list[str]) -> int:
    for number in range(1, LIMIT):
        folder = out / str(number)
        shutil.copytree(fleet, folder)
        child = os.fork()
        if child == 0:
            run_killed(folder, number, words)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
    return 1


if __name__ == "__main__":
    sys.exit(play(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
