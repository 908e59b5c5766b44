"""Reading of MF4 logs in a process of its own: a damaged one can crash asammdf, which reads them in C.

The child (`python -m agent.sources.mf4 LOG`) writes frames to its standard output as MessagePack, in batches, each with
its length before it (4 bytes, big endian).  Invariant: whatever ends the child, its reader learns it as ValueError.
"""

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, Final, Self

import can
import msgspec

_BATCH_FRAMES: Final = 1024
_LENGTH_BYTES: Final = 4
_COMMAND: Final = (sys.executable, "-P", "-m", "agent.sources.mf4")


class _Frame(msgspec.Struct, array_like=True):
    timestamp: float
    arbitration_id: int
    is_extended_id: bool
    is_remote_frame: bool
    is_error_frame: bool
    is_fd: bool
    bitrate_switch: bool
    error_state_indicator: bool
    channel: int | str | None
    dlc: int
    data: bytes


class Mf4Messages:
    """The frames of a log: `with Mf4Messages(path) as messages: for message in messages: ...`.  Raises ValueError."""

    def __init__(self, path: Path) -> None:
        self._complaint = TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._process = subprocess.Popen([*_COMMAND, str(path)], stdout=subprocess.PIPE, stderr=self._complaint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._complaint.close()

    def __iter__(self) -> Iterator[can.Message]:
        output = self._process.stdout
        assert output is not None
        decoder = msgspec.msgpack.Decoder(list[_Frame])
        while head := output.read(_LENGTH_BYTES):
            for frame in decoder.decode(output.read(int.from_bytes(head))):
                yield can.Message(**{name: getattr(frame, name) for name in _Frame.__struct_fields__})
        status = self._process.wait()
        if status:
            self._complaint.seek(0)
            said = self._complaint.read().decode(errors="replace").strip().splitlines()
            raise ValueError(said[-1] if status > 0 and said else f"its reader crashed with signal {-status}")


def _frame(message: can.Message) -> _Frame:
    fields = {name: getattr(message, name) for name in _Frame.__struct_fields__}
    return _Frame(**{**fields, "data": bytes(message.data)})


def _write(path: Path, output: BinaryIO) -> None:
    with can.MF4Reader(path) as reader:
        messages = iter(reader)
        while batch := [_frame(message) for message in islice(messages, _BATCH_FRAMES)]:
            content = msgspec.msgpack.encode(batch)
            output.write(len(content).to_bytes(_LENGTH_BYTES) + content)


if __name__ == "__main__":
    _write(Path(sys.argv[1]), sys.stdout.buffer)
