"""Read a text log line by line, and collect the notes of a reader about it.

Each text format has a module of its own: `candump`, `asc`, `trc` and `csv_log`.  Each module has a function `messages`,
which takes `Lines`, yields python-can messages, and obeys one rule: a line is a frame, or something that the format
defines, or an error.  No line is skipped in silence.
"""

import codecs
import io
from collections import Counter
from collections.abc import Iterator
from typing import Final

_LINE_BYTES: Final = 16 * 1024  # A CAN XL frame has some 6,300 characters in an ASC log; more is not a text log.
_QUOTED_CHARACTERS: Final = 80

REQUESTS: Final = "transmit requests (TxRq), which are not frames of the bus"
XL_FRAMES: Final = "CAN XL frames"


class Unreadable(ValueError):
    """A defect of a log.  The text says what is wrong and what to do; file and line are added by the caller."""


class Notes:
    """Collects, in sentences for users, what was unusual or not read in a log."""

    def __init__(self) -> None:
        self._left_out: Counter[str] = Counter()
        self._said: dict[str, None] = {}  # keeps the order, and each sentence once

    def leave_out(self, what: str, count: int = 1) -> None:
        """Count what is not read.  `what` is a plural noun."""
        self._left_out[what] += count

    def say(self, sentence: str) -> None:
        """Add a sentence, unless it has been said before."""
        self._said[sentence] = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Return all notes so far."""
        return (*self._said, *(f"{what}, not read: {count:,}" for what, count in self._left_out.items()))


class Lines:
    """Yields the lines of a text log and counts them.  A line that is too long raises Unreadable.

    Text is UTF-8.  A line that is not UTF-8 is read as Windows-1252, the ANSI code page that Vector's tools
    write, for example in German names of months.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.number = 0
        """The number of the line that was yielded last, counted from 1."""
        self.ended = True
        """False if the line that was yielded last has no line end, like the last line of a log that was cut."""

    def __iter__(self) -> Iterator[str]:
        first = True
        while line := self._stream.readline(_LINE_BYTES):
            self.number += 1
            if len(line) == _LINE_BYTES:
                raise Unreadable(f"the line has {_LINE_BYTES:,} characters or more; export the log again as text")
            if first:
                line, first = line.removeprefix(codecs.BOM_UTF8), False
            self.ended = line.endswith(b"\n")
            try:
                yield line.decode()
            except UnicodeDecodeError:
                yield line.decode("cp1252", "replace")

    def close(self) -> None:
        """Close the underlying stream."""
        self._stream.close()


def quoted(line: str) -> str:
    """Return a line for a message, in quotes and cut to a readable length."""
    return repr(line.strip()[:_QUOTED_CHARACTERS])


def data_bytes(tokens: list[str], count: int) -> bytes:
    """Convert the first `count` of `tokens`, each two hex digits, to bytes.

    Raises: Unreadable if there are fewer tokens, or if one of them is not a byte.
    """
    if len(tokens) < count:
        raise Unreadable(f"too few data bytes: the frame has {count}, the line {len(tokens)}, so it was cut; {DAMAGED}")
    text = " ".join(tokens[:count])
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != count:
        raise Unreadable(f"{quoted(text)} is not {count} bytes of two hex digits each; {DAMAGED}")
    return data


DAMAGED: Final = "cut the log before the damage, or export it again"
"""The remedy for a line that is not a frame of its format."""
