"""What every command line of the project shares: words for `--dbc`, and how a command ends.

Exit status: 0 success, 1 the work failed, 130 interrupted.

Invariant: what can go wrong outside the program is told in plain words and never as a traceback, also where nobody
reads the output any more (`| head`) or where it finds no room.  (argparse ends wrong use with status 2.)
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from agent.errors import AgentError


def ended(work: Callable[[], int], complain: Callable[[object], None]) -> int:
    """The exit status of `work`; `complain` is told what went wrong."""
    try:
        return _told(work)
    except AgentError as error:
        complain(error)
        return 1
    except BrokenPipeError:
        _drop_unread_output()
        return 0
    except OSError as error:
        _drop_unread_output()
        complain(f"{error.filename or 'the system'}: {error.strerror or error}")
        return 1
    except UnicodeEncodeError as error:  # a name on the command line or the disk that is no text
        around = error.object[max(0, error.start - 40) : error.end + 40]
        complain(f"{around!a} cannot be written as {error.encoding}: use names in UTF-8")
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


def bus_and_file(text: str) -> tuple[str | None, Path]:
    """Read `[BUS=]FILE`, a type for argparse; without a bus the file is for all of them.

    No bus has a slash in its name, so "=" behind a slash belongs to the path, as in `/data/a=b/x.dbc`.
    """
    bus, equals, file = text.partition("=")
    if equals and "/" not in bus:
        if not bus or not file:
            raise argparse.ArgumentTypeError(f"{text!r} is not [BUS=]FILE")
        return bus, Path(file)
    return None, Path(text)


def printable(line: str) -> str:
    """`line` with control characters (ESC, ...) as escapes: a terminal obeys none of what a log or a library says."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _told(work: Callable[[], int]) -> int:
    """Work, and have its output written now, while a failure can still be told."""
    try:
        status = work()
    except SystemExit:  # argparse has printed its help
        _flush()
        raise
    _flush()
    return status


def _flush() -> None:
    if sys.stdout is not None:  # it was closed before we began
        sys.stdout.flush()


def _drop_unread_output() -> None:
    """What cannot be written must not be tried again when the interpreter ends."""
    try:
        _flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
