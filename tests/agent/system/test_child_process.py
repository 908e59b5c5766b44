"""A child process gives an answer or an error in bounded time and memory, and stays behind in no case."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from agent.system.child_process import Answer, ask

MOST_BYTES = 100_000
FLOOD = "import sys\nwhile True: sys.stdout.write('x' * 65536)"


def answer_of(code: str, question: bytes = b"", *, timeout_s: float = 60.0) -> Answer:
    return asyncio.run(ask((sys.executable, "-c", code), question, timeout_s=timeout_s, most_bytes=MOST_BYTES))


def test_the_answer_has_status_output_and_complaint() -> None:
    code = "import sys\nsys.stdout.write(sys.stdin.read()[::-1])\nsys.stderr.write('no')\nsys.exit(3)"
    assert answer_of(code, b"question") == Answer(3, b"noitseuq", b"no")


def test_a_process_that_reads_no_question_still_answers() -> None:
    assert answer_of("print('early')", bytes(10**6)) == Answer(0, b"early\n", b"")


def test_a_process_that_writes_without_end_is_killed_and_its_answer_is_bounded() -> None:
    answer = answer_of(FLOOD)
    assert answer.status == -9
    assert MOST_BYTES < len(answer.output) <= MOST_BYTES + 65_536


@pytest.mark.parametrize("ending", ["import time\ntime.sleep(600)", "import sys\nsys.stdout.close()\nwhile True: pass"])
def test_a_process_that_does_not_end_is_killed_and_does_not_stay(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "pid"
    with pytest.raises(TimeoutError):
        answer_of(f"import os\nopen({str(file)!r}, 'w').write(str(os.getpid()))\n{ending}", timeout_s=3.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_a_program_that_does_not_exist_is_an_error_of_the_system() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(ask(("/nonexistent/program",), b"", timeout_s=1.0, most_bytes=1))
