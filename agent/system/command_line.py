"""How every command of both programs ends: exit status 0 success, 1 the work failed, 130 interrupted.

What can go wrong outside of the program is reported in plain words and never as a traceback, even if the reader of the
output has gone (`| head`) or the output has no room.  Wrong use ends with status 2, which argparse does by itself.
"""

import os
import sys
from collections.abc import Callable

from agent.errors import AgentError


def ended(work: Callable[[], int], report: Callable[[object], None]) -> int:
    """Run `work` and return the exit status; `report` receives what went wrong, for a person."""
    try:
        return _run_and_flush(work)
    except AgentError as error:
        report(error)
        return 1
    except BrokenPipeError:
        # A reader such as `head` that has seen enough closes the pipe: the command has done its work.
        _discard_unread_output()
        return 0
    except OSError as error:
        _discard_unread_output()
        report(f"{error.filename or 'the system'}: {error.strerror or error}")
        return 1
    except UnicodeEncodeError as error:
        # A name on the command line or on the disk is not valid text, and Python carries it as lone surrogates.
        around = error.object[max(0, error.start - 40) : error.end + 40]
        report(f"{around!a} cannot be written as {error.encoding}: use names in UTF-8")
        return 1
    except KeyboardInterrupt:
        report("interrupted")
        return 130


def complain(program: str, problem: object) -> None:
    """Print `problem` on stderr, after the name of the program, as one line."""
    # The texts of libraries and the lines of logs that a message quotes can hold line breaks and terminal commands.
    print(f"{program}: {printable(' '.join(str(problem).split()))}", file=sys.stderr)  # noqa: T201


def printable(line: str) -> str:
    """Return `line` with control characters (ESC, ...) as escapes, so that a terminal obeys none of them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _run_and_flush(work: Callable[[], int]) -> int:
    try:
        status = work()
    except SystemExit:
        # argparse has printed its help and ends the program.
        _flush()
        raise
    # Python itself would write the output when it ends, too late to report a failure.
    _flush()
    return status


def _flush() -> None:
    # Python sets stdout to None if it was closed before the program started (`>&-`).
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_unread_output() -> None:
    try:
        _flush()
    except OSError:
        # The buffer still holds the text; without this, the interpreter would fail on it again at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
