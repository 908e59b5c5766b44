"""Prints for the commands of `fleet`: results as text or JSON on standard output, problems on standard error."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence

from agent.system.command_line import printable


def report(args: argparse.Namespace, values: Mapping[str, object], text: str) -> None:
    """Print `values` as one JSON object if `--json` was given, and `text` otherwise."""
    print(json.dumps(values) if args.json else text)


def complain(problem: object) -> None:
    """Print a problem on standard error, and keep its line breaks.

    Some problems need several lines: DuckDB marks an error in SQL on a line below, and a problem may quote a log.
    """
    print("\n".join(printable(line) for line in f"fleet: {problem}".splitlines()), file=sys.stderr)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a text table for a terminal, with numbers aligned right and everything else aligned left."""
    cells = [["" if value is None else _cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    numeric = [
        bool(rows) and all(value is None or isinstance(value, int | float) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(columns)
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    # Names and texts come from vehicles, and a terminal must obey none of their control characters.
    return f"{value:.10g}" if isinstance(value, float) else printable(str(value))
