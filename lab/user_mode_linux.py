"""Boots Debian's User Mode Linux on this machine's file system, and runs one command in it, usually a whole scenario.

No privileges are needed.  Inside, the file system is read-only except for /mnt and for what `Storage` adds, and the
network is separate.
"""

import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
INIT: Final = Path(__file__).with_name("user_mode_linux_init")
COMPILED: Final = ("agent", "bench", "can_dbc", "fleet", "lab", "simulator", "tests")
MODULES: Final = Path("/usr/lib/uml/modules")
MEMORY: Final = "1024M"  # the limit; the machine lends only the memory that is used
POLL_S: Final = 0.01
PACKAGES: Final = "user-mode-linux kmod iproute2 can-utils"


@dataclass(frozen=True)
class Outcome:
    """Holds the outcome of the command that ran in User Mode Linux.

    `status` is its exit status, or None if the command did not end in time or the kernel did not boot.  `output` is the
    text that the command printed, and `console` the text that the kernel printed.  `files` holds the contents of the
    requested files by name.
    """

    status: int | None
    output: str
    console: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Storage:
    """Names what the machine inside can write, besides /mnt.

    `image` is a file with an ext4 file system, which is mounted on `disk`.  Its data passes through the page cache of
    the kernel inside.  If the kernel is killed, data that was not synced is therefore lost, as in a power cut.
    `shared` is a folder of this machine, which has the same path inside.  What is written there survives a power cut.
    `disk` may lie in `shared`.
    """

    image: Path
    disk: Path
    shared: Path


def unavailable() -> str | None:
    """Return the reason why User Mode Linux cannot be booted here, or None if it can be booted."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in ("linux.uml", "modprobe", "ip", "cangen") if shutil.which(name, path=path) is None]
    if missing or not MODULES.is_dir():
        return f"This machine lacks {', '.join(missing) or MODULES}. Install the packages {PACKAGES}."
    return None


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    files: Sequence[str] = (),
    watch: Callable[[int, Path], None] = lambda _session, _results: None,
    storage: Storage | None = None,
) -> Outcome:
    """Boot User Mode Linux, run `command` in it with `folder` as the working directory, and return the outcome.

    `files` are names of files that the command writes below /mnt; the outcome holds their contents.  `watch` is called
    every POLL_S seconds with two arguments.  The first is the id of the process session that holds all processes of the
    kernel.  The second is the folder of this machine that the command sees as /mnt.
    """
    compile_sources()
    with tempfile.TemporaryDirectory(prefix="uml-") as name:
        results = Path(name)
        # The kernel passes no environment to its first process, so the command file exports it.
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment.items())
        (results / "command").write_text(f"{exports}cd {shlex.quote(str(folder))} && {shlex.join(command)}\n")
        # hostfs gives access to this machine's files.  "con0=fd:0,fd:1" writes the console to the log.
        kernel = ["linux.uml", "rootfstype=hostfs", "rootflags=/", "ro", f"init={INIT}", "con=null", "con0=fd:0,fd:1"]
        kernel += [f"mem={MEMORY}", f"uml_dir={results}/", f"RESULTS={results}"]
        if storage is not None:
            kernel += [f"ubda={storage.image}", f"SHARED={storage.shared}", f"DISK={storage.disk}"]
        console = _supervise(kernel, results, timeout_s, watch)
        status = _text(results / "status").strip()
        return Outcome(
            int(status) if status.isdigit() else None,
            _text(results / "output"),
            console,
            {file: (results / file).read_bytes() for file in files if (results / file).exists()},
        )


@functools.cache
def compile_sources() -> None:
    """Compile all modules of the project, once for each process that boots machines.

    The file system of a machine is read-only, so each process in it would compile every module without a compiled file.
    """
    subprocess.run([sys.executable, "-m", "compileall", "-q", *COMPILED], cwd=ROOT, check=True)


def run_module(
    module: str,
    *arguments: str,
    timeout_s: float,
    watch: Callable[[int, Path], None] = lambda _session, _results: None,
) -> str:
    """Run a Python module of the project in User Mode Linux, and return the last line of its output.

    Raises: RuntimeError if User Mode Linux cannot be booted, or if the module fails.
    """
    if (reason := unavailable()) is not None:
        raise RuntimeError(f"User Mode Linux cannot be booted. {reason}")
    command = [sys.executable, "-m", module, *arguments]
    outcome = run(command, folder=ROOT, environment={"PYTHONPATH": str(ROOT)}, timeout_s=timeout_s, watch=watch)
    if outcome.status != 0:
        raise RuntimeError(
            f"The module {module} failed inside User Mode Linux. Its output and the kernel's console:\n"
            f"{outcome.output}\n{outcome.console}"
        )
    return outcome.output.splitlines()[-1]


def _supervise(kernel: Sequence[str], results: Path, timeout_s: float, watch: Callable[[int, Path], None]) -> str:
    console = results / "console"
    with console.open("wb") as log:
        process = subprocess.Popen(kernel, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        end_s = time.monotonic() + timeout_s
        try:
            while process.poll() is None and time.monotonic() < end_s:
                watch(process.pid, results)
                time.sleep(POLL_S)
            if process.poll() is None:
                log.write(f"\nThe command has not finished after {timeout_s:.0f} s and is killed.\n".encode())
        finally:
            kill(process.pid)
            process.wait()
    return _text(console)


def kill(session: int) -> None:
    """Kill the kernel and all processes inside at once.  `session` is the id that `watch` got."""
    # The kernel runs as processes of this machine, which are all in the session and process group that `run` has made.
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
