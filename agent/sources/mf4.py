"""Read MF4 logs in a child process.

The child is needed because asammdf reads MF4 logs with C code.  A damaged log can crash that code, keep it busy for
ever, or make it take all memory.

The child (`python -m agent.sources.mf4 LOG FOLDER`) writes items in MessagePack to its standard output.  Before each
item comes its length (4 bytes, big endian).  An item is a list of frames, or a map from a word to a text.  The
text is a note, or, in the last item, it says what is damaged or that the end of the log is missing.  asammdf writes its
temporary files to FOLDER.  The parent removes FOLDER when it closes the reader, even if the child has crashed.

Invariant: the parent reports each failure of the child as ValueError, and the child's resources are limited.
"""

import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Final, Protocol, Self

import can
import msgspec

from agent.sources.mf4_groups import Mf4Frame, frames_of

_BATCH_FRAMES: Final = 1024
_BATCH_BYTES: Final = 1024 * 1024  # A batch of CAN FD frames takes about an eighth of this size.
_LENGTH_BYTES: Final = 4
_COMPLAINT_CHARACTERS: Final = 500
_NOTE, _DAMAGE, _TRUNCATION = "note", "damage", "truncation"  # what an item may say
# -P keeps the working directory off sys.path: a file there could otherwise replace a module of the child.
_COMMAND: Final = (sys.executable, "-P", "-m", "agent.sources.mf4")
# The limits of a child grow with the size of its log.  A sound log of six million frames (58 MB, packed)
# takes 2 s and 0.7 GiB until its first batch, and some 15 ms for each later batch.
_SILENCE_S: Final = 10.0  # the processor time that the child may use to open the log, or for one batch
_SILENCE_BYTES_PER_S: Final = 1024 * 1024
_SPACE_BYTES: Final = 2 * 1024**3  # limits each temporary file, and the memory that the child takes after its start
_SPACE_PER_LOG: Final = 8


class Child(Protocol):
    """A process that runs `write`.  The members are those of `subprocess.Popen` that `Mf4Messages` uses."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Return the pipe that the process writes to."""

    def kill(self) -> None:
        """Kill the process unless it has ended already."""

    def wait(self) -> int:
        """Wait for the process to end; return its exit status, or the negative number of the signal that ended it."""


def _started(path: Path, folder: Path) -> Child:
    return subprocess.Popen([*_COMMAND, path, folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


class Mf4Messages:
    """Yields the frames of an MF4 log: `with Mf4Messages(path) as messages: for message in messages: ...`.

    Raises: ValueError if the log is damaged, or if the child fails, and EOFError, after all whole frames, if its end is
    missing.
    """

    def __init__(self, path: Path, start: Callable[[Path, Path], Child] = _started) -> None:
        """Start the child: call `start` with the path of the log and the path of a temporary folder."""
        self.notes: tuple[str, ...] = ()
        """What the log holds that was not read, in sentences for users."""
        self._folder = tempfile.TemporaryDirectory(prefix="mf4-")
        self._child = start(path, Path(self._folder.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The child may have ended by itself or hang in C; SIGKILL is right for both, and `wait` leaves no zombie.
        self._child.kill()
        self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()
        self._folder.cleanup()

    def __iter__(self) -> Iterator[can.Message]:
        decoder = msgspec.msgpack.Decoder(list[Mf4Frame] | dict[str, str])
        for content in self._contents():
            item = decoder.decode(content)
            if isinstance(item, dict):
                self._hear(item)
                continue
            for frame in item:
                yield can.Message(**{name: getattr(frame, name) for name in Mf4Frame.__struct_fields__})
        status = self._child.wait()
        # SIGPROF comes from the timer in `write`, so the child used up its processor time without writing a batch.
        if status == -signal.SIGPROF:
            raise ValueError("its reader made no progress")
        if status:
            raise ValueError(f"its reader crashed with {f'signal {-status}' if status < 0 else f'status {status}'}")

    def _hear(self, told: dict[str, str]) -> None:
        if _DAMAGE in told:
            raise ValueError(told[_DAMAGE])
        if _TRUNCATION in told:
            raise EOFError(told[_TRUNCATION])
        self.notes += tuple(told.values())

    def _contents(self) -> Iterator[bytes]:
        """Yield each complete item that the child wrote.  If the child ended within an item, that item is dropped."""
        output = self._child.stdout
        assert output is not None
        while len(head := output.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
            size = int.from_bytes(head)
            # A child that asammdf has corrupted may write any length, which must not become an allocation here.
            if size > _BATCH_BYTES:
                raise ValueError(f"its reader sent {size} bytes for {_BATCH_FRAMES} frames, more than CAN allows")
            content = output.read(size)
            if len(content) < size:
                return
            yield content


def write(path: Path, folder: Path, output: BinaryIO, least_silence_s: float = _SILENCE_S) -> None:
    """Write the frames of the log at `path` to `output`.

    This function runs in the child process, and first limits the resources of that process.
    """
    # asammdf is an extra of this package, and only the child needs it.
    from asammdf import MDF  # noqa: PLC0415

    batch: list[Mf4Frame] = []

    def put_batch() -> None:
        if batch:
            _put(batch, output)
            batch.clear()
        signal.setitimer(signal.ITIMER_PROF, silence_s)

    tempfile.tempdir = str(folder)
    log_bytes = path.stat().st_size
    silence_s = least_silence_s + log_bytes / _SILENCE_BYTES_PER_S
    signal.setitimer(signal.ITIMER_PROF, silence_s)  # SIGPROF ends the process even while it runs C code.
    _bound(_SPACE_BYTES + _SPACE_PER_LOG * log_bytes)
    try:
        # asammdf prints to standard output, which carries the frames here.
        with redirect_stdout(sys.stderr), MDF(path) as mdf:
            for frame in frames_of(mdf, lambda note: _put({_NOTE: note}, output)):
                batch.append(frame)
                if len(batch) == _BATCH_FRAMES:
                    put_batch()
            put_batch()
    except MemoryError:
        _put({_DAMAGE: "reading it takes more memory than a log of its size should need"}, output)
    except EOFError as error:
        put_batch()
        _put({_TRUNCATION: str(error)}, output)
    except Exception as error:  # noqa: BLE001  # The child is a sandbox: the parent reports whatever asammdf raises.
        complaint = " ".join(f"{type(error).__name__}: {error}".split())
        _put({_DAMAGE: complaint[:_COMPLAINT_CHARACTERS]}, output)


def _bound(space_bytes: int) -> None:
    # RLIMIT_AS counts memory that the process has mapped already, so that memory is added to the limit.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + space_bytes)
    _limit(resource.RLIMIT_FSIZE, space_bytes)
    # A crash is expected on damaged logs, and a core file would hold frames in plain text.
    _limit(resource.RLIMIT_CORE, 0)


def _limit(kind: int, amount: int) -> None:
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount if most == resource.RLIM_INFINITY else min(amount, most), most))


def _put(item: list[Mf4Frame] | dict[str, str], output: BinaryIO) -> None:
    content = msgspec.msgpack.encode(item)
    output.write(len(content).to_bytes(_LENGTH_BYTES) + content)
    output.flush()


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.stdout.buffer)
