"""Asks a child process one question, and reads its answer.

Invariant: whatever the process does (crash, hang, write without end), the caller gets its answer or an error in bounded
time and memory, and no process stays behind.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_PART_BYTES: Final = 1 << 16


class Answer(NamedTuple):
    """The exit status of a child process, and what it wrote to standard output and to standard error."""

    status: int
    output: bytes
    complaint: bytes


async def ask(
    command: Sequence[str],
    question: bytes,
    *,
    timeout_s: float,
    most_bytes: int,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Start `command`, write `question` to its standard input, and return its answer when it has ended.

    A process that writes more than `most_bytes` to standard output or to standard error is killed.  The answer then has
    more than `most_bytes`, but not much more.  `environment` is the default of a child process if it is None.

    Raises: OSError if the process cannot be started, TimeoutError if it has not ended after `timeout_s` seconds.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as tasks:
            tasks.create_task(_write(process.stdin, question))
            output, complaint = (
                tasks.create_task(_read(process, stream, most_bytes)) for stream in (process.stdout, process.stderr)
            )
        status = await process.wait()
    finally:
        # After a timeout or a cancellation, the process still runs.
        if process.returncode is None:
            process.kill()
            # asyncio waits until the output ends, and notices the end only while the output is read.
            await process.communicate()
    return Answer(status, output.result(), complaint.result())


async def _write(stream: asyncio.StreamWriter, question: bytes) -> None:
    # If the process ends before it has read the question, its exit status says why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(question)
        await stream.drain()
    stream.close()


async def _read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader, most_bytes: int) -> bytes:
    content = bytearray()
    while part := await stream.read(_PART_BYTES):
        if len(content) <= most_bytes:
            content += part
        else:
            # The rest is read and dropped, because asyncio waits until the output ends.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return bytes(content)
