"""Prints a table of databases: what is read of each, what was repaired and where, and what is refused and why.

python -m tests.can_dbc.database_table [FOLDER]        the databases (*.dbc) below FOLDER, or the open databases
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.errors import DatabaseError
from tests import shared_data


def rows(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield file, messages, signals, and the notes (without the path) of each database, or why it is refused."""
    for path in sorted(folder.rglob("*.dbc")):
        name = str(path.relative_to(folder))
        try:
            plan = compile_plan([load(path)])
        except DatabaseError as error:
            yield name, "-", "-", "REFUSED: " + str(error).removeprefix(f"{path}: ")
            continue
        signals = sum(len(message.signals) for message in plan.messages)
        notes = "; ".join(note.replace(f"{path}: ", "") for note in plan.notes)
        yield name, str(len(plan.messages)), str(signals), notes or "-"


if __name__ == "__main__":
    print("| database | messages | signals | repaired, left out or refused |\n|---|---|---|---|")
    for row in rows(Path(sys.argv[1]) if len(sys.argv) > 1 else shared_data.DBC):
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
