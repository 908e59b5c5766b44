"""Asks a question as a process of its own, as a user does, and says how the process ended."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.queries.questions import Question, questions_about

LIMIT_S = 5.0
MEDIAN_S = 2.0
_PATIENCE_S = 60.0
"""A process that takes longer than this hangs, even on a busy machine."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class End:
    """How one process ended.  `status` is None if it hung."""

    question: str
    status: int | None
    seconds: float
    right: bool
    said: str = ""


def ask(fleet: Path, question: Question, *more: str) -> End:
    """Ask a question about the lake of a fleet, and check the answer."""
    command = [sys.executable, "-m", "fleet", "query", question.arguments[0], "--fleet", str(fleet), "--json"]
    started_s = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *more, *question.arguments[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        return End(str(question), None, time.monotonic() - started_s, right=False)
    seconds = time.monotonic() - started_s
    right = done.returncode == 0 and question.is_right(json.loads(done.stdout))
    return End(str(question), done.returncode, seconds, right, done.stderr)


def ask_all(fleet: Path, lake: Path, times: int) -> Iterator[End]:
    """Ask every question `times` times."""
    for question in questions_about(lake):
        for _ in range(times):
            yield ask(fleet, question)
