"""Boots Debian's User Mode Linux on this machine's own file system, runs one command in it, and hands back its output.

Needs no privilege.  The file system is read-only inside, but for one folder; the network is its own.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INIT: Final = Path(__file__).with_name("init")
MODULES: Final = Path("/usr/lib/uml/modules")
MEMORY: Final = "768M"
PACKAGES: Final = "user-mode-linux kmod iproute2 can-utils"


@dataclass(frozen=True)
class Outcome:
    """What became of the command; `status` None: it did not end in time, or the kernel did not come up."""

    status: int | None
    output: str
    console: str
    files: Mapping[str, bytes]


def unavailable() -> str | None:
    """Why it cannot be booted here; None where it can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in ("linux.uml", "modprobe", "ip", "cangen") if shutil.which(name, path=path) is None]
    if missing or not MODULES.is_dir():
        return f"{', '.join(missing) or MODULES} missing; install {PACKAGES}"
    return None


def run(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout_s: float, files: Sequence[str] = ()
) -> Outcome:
    """Run `command` in `folder` inside; `files`: names that it writes below /mnt, to be handed back."""
    with tempfile.TemporaryDirectory(prefix="uml-") as name:
        results = Path(name)
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment.items())
        (results / "command").write_text(f"{exports}cd {shlex.quote(str(folder))} && {shlex.join(command)}\n")
        kernel = ["linux.uml", "rootfstype=hostfs", "rootflags=/", "ro", f"init={INIT}", "con=null", "con0=fd:0,fd:1"]
        kernel += [f"mem={MEMORY}", f"uml_dir={results}/", f"RESULTS={results}"]
        console = _supervise(kernel, results / "console", timeout_s)
        status = _text(results / "status").strip()
        return Outcome(
            int(status) if status.isdigit() else None,
            _text(results / "output"),
            console,
            {file: (results / file).read_bytes() for file in files if (results / file).exists()},
        )


def _supervise(kernel: Sequence[str], console: Path, timeout_s: float) -> str:
    with console.open("wb") as log:
        process = subprocess.Popen(
            kernel, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ)
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.write(f"\nnot finished after {timeout_s:.0f} s\n".encode())
        finally:
            # Its processes are processes of this machine, all in the session made above.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return _text(console)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
