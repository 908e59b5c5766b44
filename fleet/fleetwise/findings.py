"""Tells what became of each document: taken, taken with a difference, or refused, and why.  Pure."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """Says what became of a document."""

    TAKEN = "taken"
    DIFFERENCE = "difference"
    REFUSED = "refused"


class Remark(msgspec.Struct, frozen=True):
    """Says what is different, or why something is refused.

    `key` is the path of the field in the document, such as `signalDecoders[3].canSignal`; it is empty if the remark is
    about the whole document.
    """

    key: str
    text: str


class Finding(msgspec.Struct, frozen=True):
    """Says what became of one document.  `place` is its place in the file; it is empty if the file is the document."""

    outcome: Outcome
    file: str
    place: str
    kind: str
    name: str
    remarks: tuple[Remark, ...] = ()


class Remarks:
    """Collects the remarks on one document."""

    def __init__(self) -> None:
        self._found: list[Remark] = []

    def add(self, key: str, text: str) -> None:
        """Add a remark; the same one counts once."""
        remark = Remark(key, text)
        if remark not in self._found:
            self._found.append(remark)

    def all(self) -> tuple[Remark, ...]:
        """Return the remarks in the order in which they were added."""
        return tuple(self._found)


def text_of(findings: Iterable[Finding]) -> str:
    """Return a report for people: each document with its outcome, and its remarks below it."""
    lines = []
    for finding in findings:
        where = f"{finding.file}: {finding.place}" if finding.place else finding.file
        lines.append(f"{finding.outcome:<10}  {where} ({finding.kind}{f' {finding.name}' if finding.name else ''})")
        for remark in finding.remarks:
            lines.append(f"{'':<12}{f'{remark.key}: ' if remark.key else ''}{remark.text}")
    return "\n".join(lines)


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many documents have each outcome."""
    found = {outcome.value: 0 for outcome in Outcome}
    for finding in findings:
        found[finding.outcome.value] += 1
    return found
