"""Collects what the checks of `headunit-agent check` find, and shows it as text or JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.errors import AgentError, Mistakes

_T = TypeVar("_T")


@dataclass(slots=True)
class Report:
    """Holds the problems, notes and facts that the checks have found.

    A problem keeps the agent from working as configured, and a note does not.  `str(report)` leaves the problems out,
    because `run` prints them on stderr.
    """

    file: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether there is no problem."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain values for JSON."""
        return {"ok": self.ok, "file": self.file, "problems": self.problems, "notes": self.notes, **self.facts}

    def __str__(self) -> str:
        lines = [f"note: {note}" for note in self.notes]
        lines += [f"{name:<10}{line}" for name, value in self.facts.items() for line in _lines(value)]
        lines.append(f"{self.file}: {'ok' if self.ok else f'{len(self.problems)} problem(s)'}")
        return "\n".join(lines)

    def attempt(self, work: Callable[[], _T]) -> _T | None:
        """Return the result of `work`; if it raises an AgentError, add the error as a problem and return None."""
        try:
            return work()
        except AgentError as error:
            self.problems += error.each if isinstance(error, Mistakes) else [str(error)]
            return None


def _lines(fact: Any) -> list[str]:
    """Return the lines of text that show one fact; a mapping takes one line for each key."""
    if isinstance(fact, Mapping):
        return [f"{key} {', '.join(_lines(value))}" for key, value in fact.items()]
    return [", ".join(fact)] if isinstance(fact, list) else [str(fact)]
