"""End each command of the agent and of `fleet` with a status: 0 success, 1 the work failed, 130 interrupted.

A failure outside of the program, such as a full disk, is reported in plain words and never as a traceback.  If the
reader of the output has gone (`| head`), the command ends with success.  After wrong use, argparse itself ends the
program with status 2.
"""

import os
import sys
from collections.abc import Callable

from agent.errors import AgentError, Mistakes


def ended(work: Callable[[], int], report: Callable[[object], None]) -> int:
    """Run `work` and return the exit status of the command.  If the work fails, call `report` with the reason."""
    try:
        return _run_and_flush(work)
    except AgentError as error:
        for problem in error.each if isinstance(error, Mistakes) else (error,):
            report(problem)
        return 1
    except BrokenPipeError:
        # A reader such as `head` closes the pipe when it has seen enough, so the command has done its work.
        _discard_unread_output()
        return 0
    except OSError as error:
        _discard_unread_output()
        report(f"{error.filename or 'the system'}: {error.strerror or error}")
        return 1
    except UnicodeEncodeError as error:
        # A name on the command line or on the disk is not valid text.  Python represents bad bytes by lone surrogates.
        around = error.object[max(0, error.start - 40) : error.end + 40]
        report(f"{around!a} cannot be written as {error.encoding}: use names in UTF-8")
        return 1
    except KeyboardInterrupt:
        report("interrupted")
        return 130


def complain(program: str, problem: object) -> None:
    """Print `problem` on stderr as one line that begins with the name of the program."""
    # A message can quote texts of libraries and lines of logs, which may hold line breaks and terminal commands.
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
    # Python itself would write the output only when it ends, which is too late to report a failure.
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
        # The buffer still holds the text.  Without a new target, the interpreter would fail again when it ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
